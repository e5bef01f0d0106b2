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
import type { Malformed, Prompt } from "../run/Prompt.ts"
import * as Words from "../run/Words.ts"

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

export interface Submitted {
  readonly id: string
  /** Whether an unfinished or finished batch of the same requests was there. */
  readonly isNew: boolean
  readonly status: Batch.Status
}

/** Submits files. The same files and flags make the same batch, so that an interrupted command can be repeated. */
export const submit = Effect.fnUntraced(function*(paths: ReadonlyArray<string>, flags: BatchFlags) {
  const batches = yield* Batches.Batches
  const { format, limit, promptTemplate: template, system } = { ...flags, format: flags.inputFormat }
  const input = yield* Input.make({ paths, format, limit, template, system })
  const lineOf = encoder(flags)
  const withModel = Stream.mapEffect((item: Malformed | Prompt) =>
    item._tag === "Prompt" && item.model === undefined && flags.model === undefined
      ? Effect.fail(
        new UnusableLines({ problems: [`line ${item.line} names no model; set --model or SLUICE_MODEL`] })
      )
      : Effect.succeed(item)
  )
  const known = input.again === undefined ? undefined : yield* look(withModel(input.items), lineOf)
  const id = known === undefined ? `batch_${randomBytes(6).toString("hex")}` : `batch_${known.hash.slice(0, 12)}`
  const { maxCost } = flags
  const isNew = (yield* Effect.option(batches.status(id)))._tag === "None"
  yield* batches.submit(
    {
      id,
      name: flags.name ?? Words.files(paths.map((path) => basename(path))),
      priority: flags.priority,
      source: paths.length === 1 ? paths[0] : undefined,
      endpoint: "/v1/chat/completions",
      expires: flags.expiresMillis,
      ...(maxCost !== undefined && {
        maxCost: { micros: Math.floor(maxCost * 1e6), estimate: estimateOf(flags, known?.longest ?? 0) }
      })
    },
    Stream.mapEffect(withModel(input.again ?? input.items), (item) =>
      item._tag === "Malformed"
        ? Effect.fail(new UnusableLines({ problems: [`line ${item.line}: ${item.message}`] }))
        : Effect.succeed({ key: keyOf(item), body: lineOf(item) }))
  )
  return { id, isNew, status: yield* batches.status(id) } satisfies Submitted
})

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
  /** The length of the longest line, in characters. */
  readonly longest: number
}

/** Reads all lines once, before anything is stored. */
const look = (
  items: Stream.Stream<Malformed | Prompt, Input.InputError | UnusableLines>,
  lineOf: (prompt: Prompt) => string
): Effect.Effect<Looked, Input.InputError | UnusableLines> =>
  Effect.suspend(() => {
    const hash = createHash("sha256")
    const problems: Array<string> = []
    let wrong = 0
    let longest = 0
    const add = (item: Malformed | Prompt) => {
      if (item._tag === "Malformed") {
        wrong += 1
        if (problems.length < shownProblems) problems.push(`line ${item.line}: ${item.message}`)
        return
      }
      const line = lineOf(item)
      longest = Math.max(longest, line.length)
      hash.update(line).update("\n")
    }
    return Stream.runForEach(items, (item) => Effect.sync(() => add(item))).pipe(
      Effect.flatMap(() => {
        if (wrong === 0) return Effect.succeed({ hash: hash.digest("hex"), longest })
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
