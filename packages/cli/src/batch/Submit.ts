/** `sluice batch submit`: stores the prompts of files as a batch. */
import type * as Batch from "@sluice/batch/Batch"
import * as Batches from "@sluice/batch/Batches"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { createHash, randomBytes } from "node:crypto"
import { basename } from "node:path"
import type { BatchFlags } from "../options.ts"
import * as Input from "../run/Input.ts"
import * as Prices from "../run/Prices.ts"
import { Ids } from "../run/Ids.ts"
import type { Malformed, Prompt } from "../run/Prompt.ts"
import * as Words from "../run/Words.ts"
import * as Terminal from "../Terminal.ts"

/** Lines of the input that are no prompts. Nothing was submitted. */
export class UnusableLines extends Schema.Error<UnusableLines>("sluice/UnusableLines")({
  _tag: Schema.tag("UnusableLines"),
  problems: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return this.problems.join("\n")
  }
}

/** More would scroll the first ones away. */
const shownProblems = 10

const charsPerToken = 4

/** That of a request in `@sluice/batch`, which names the place of a request and not its line. */
const maxLineBytes = 2 ** 20

export interface Submitted {
  readonly id: string
  /** Whether an unfinished or finished batch of the same requests was there. */
  readonly isNew: boolean
  readonly status: Batch.Status
}

/**
 * Submits files. The same files and flags make the same batch, so that an interrupted command can be repeated. Refuses flags that would
 * have to change a batch of the same requests: it would run without them.
 */
export const submit = Effect.fnUntraced(function*(paths: ReadonlyArray<string>, flags: BatchFlags) {
  const batches = yield* Batches.Batches
  const { format, limit, promptTemplate: template, system } = { ...flags, format: flags.inputFormat }
  const input = yield* Input.make({ paths, format, limit, template, system })
  const lineOf = encoder(flags)
  const withModel = Stream.mapEffect((item: Malformed | Prompt) =>
    item._tag === "Prompt" && item.model === undefined && flags.model === undefined
      ? Effect.fail(
        new UnusableLines({ problems: [`${input.placeOf(item.line)} names no model; set --model or SLUICE_MODEL`] })
      )
      : Effect.succeed(item)
  )
  const known = input.again === undefined ? undefined : yield* look(withModel(input.items), lineOf, input.placeOf)
  const empty = new UnusableLines({
    problems: [`there are no prompts in ${Words.files(paths.map(Terminal.escape))}`]
  })
  if (known?.count === 0) return yield* empty
  const id = known === undefined ? `batch_${randomBytes(6).toString("hex")}` : `batch_${known.hash.slice(0, 12)}`
  const { maxCost } = flags
  const found = yield* Effect.option(batches.status(id))
  const changed = found._tag === "None" ? [] : changedBy(flags, found.value)
  if (changed.length > 0) {
    return yield* new UnusableLines({
      problems: [
        `batch ${id} has the same prompts and another ${
          changed.join(" and ")
        }; leave that out, or cancel and remove the ` +
        "batch before you submit again"
      ]
    })
  }
  let isEmpty = true
  const stored = batches.submit(
    {
      id,
      name: flags.name ?? Words.files(paths.map((path) => basename(path))),
      priority: flags.priority,
      weight: flags.weight,
      source: paths.length === 1 ? paths[0] : undefined,
      endpoint: "/v1/chat/completions",
      expires: flags.expiresMillis,
      ...(maxCost !== undefined && {
        maxCost: { micros: microsOf(maxCost), estimate: estimateOf(flags, known?.longest ?? 0) }
      })
    },
    Stream.mapEffect(withModel(input.again ?? input.items), (item) =>
      item._tag === "Malformed"
        ? Effect.fail(new UnusableLines({ problems: [`${input.placeOf(item.line)}: ${item.message}`] }))
        : Effect.sync(() => {
          isEmpty = false
          return { key: keyOf(item), body: lineOf(item) }
        })).pipe(Stream.concat(Stream.unwrap(Effect.sync(() => isEmpty ? Stream.fail(empty) : Stream.empty))))
  )
  // Input from a pipe cannot be read again. The batch stays if a worker has yet to end it.
  const forgotten = Effect.ignore(Effect.andThen(batches.cancel(id), batches.remove(id)))
  yield* known === undefined ? Effect.tapError(stored, () => forgotten) : stored
  return { id, isNew: found._tag === "None", status: yield* batches.status(id) } satisfies Submitted
})

/** The given flags with other values than the batch has. */
const changedBy = (
  { expiresMillis, maxCost, name, priority }: BatchFlags,
  { createdAt, expiresAt, maxMicros, ...batch }: Batch.Status
): ReadonlyArray<string> =>
  Object.entries({
    "--name": name !== undefined && name !== batch.name,
    "--priority": priority !== 0 && priority !== batch.priority,
    "--expires": expiresMillis !== undefined && (expiresAt === undefined || expiresMillis !== expiresAt - createdAt),
    "--max-cost": maxCost !== undefined && microsOf(maxCost) !== maxMicros
  }).filter(([, isChanged]) => isChanged).map(([flag]) => flag)

/** Millionths of a dollar. */
export const microsOf = (dollars: number): number => Math.floor(dollars * 1e6)

const keyOf = ({ id, line }: Prompt): string => id ?? `line-${line}`

/** The line of a prompt in the form of OpenAI's Batch API. Fields of the prompt itself override the flags. */
const encoder = ({ maxTokens, model, temperature }: BatchFlags) => (prompt: Prompt): string =>
  JSON.stringify({
    custom_id: keyOf(prompt),
    method: "POST",
    url: "/v1/chat/completions",
    body: {
      model: prompt.model ?? model,
      messages: prompt.messages,
      temperature,
      max_tokens: maxTokens,
      ...prompt.body
    }
  })

interface Looked {
  readonly hash: string
  readonly count: number
  /** The length of the longest line, in characters. */
  readonly longest: number
}

/** Reads all lines once, before anything is stored. */
const look = (
  items: Stream.Stream<Malformed | Prompt, Input.InputError | UnusableLines>,
  lineOf: (prompt: Prompt) => string,
  placeOf: Input.Input["placeOf"]
): Effect.Effect<Looked, Input.InputError | UnusableLines> =>
  Effect.suspend(() => {
    const hash = createHash("sha256")
    const keys = new Ids()
    const problems: Array<string> = []
    let wrong = 0
    let count = 0
    let longest = 0
    const problemOf = (item: Malformed | Prompt): string | undefined => {
      if (item._tag === "Malformed") return item.message
      const { repeated } = keys
      keys.add(item.line, keyOf(item))
      if (keys.repeated > repeated) return "another line has this id; give each line its own"
      const line = lineOf(item)
      if (Buffer.byteLength(line) > maxLineBytes) return "the request is larger than 1 MiB; make it smaller"
      count += 1
      longest = Math.max(longest, line.length)
      hash.update(line).update("\n")
      return undefined
    }
    const add = (item: Malformed | Prompt) => {
      const problem = problemOf(item)
      if (problem === undefined) return
      wrong += 1
      if (problems.length < shownProblems) problems.push(`${placeOf(item.line)}: ${problem}`)
    }
    return Stream.runForEach(items, (item) => Effect.sync(() => add(item))).pipe(
      Effect.flatMap(() => {
        if (wrong === 0) return Effect.succeed({ hash: hash.digest("hex"), count, longest })
        const more = wrong > problems.length ? [`and ${Words.plural(wrong - problems.length, "more line")}`] : []
        return Effect.fail(new UnusableLines({ problems: [...problems, ...more] }))
      })
    )
  })

/** The most that a request costs, in millionths of a dollar. 0 if no price is given: then the first answers tell. */
const estimateOf = ({ maxTokens, price }: BatchFlags, longest: number): number =>
  price === undefined || maxTokens === undefined
    ? 0
    : Math.ceil(Prices.costOf(price, { inputTokens: Math.ceil(longest / charsPerToken), outputTokens: maxTokens }))
