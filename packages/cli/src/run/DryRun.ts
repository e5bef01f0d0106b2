/** `--dry-run`: what a run would send, without a request. */
import type { Dimension } from "@sluice/core/Quota"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Terminal from "../Terminal.ts"
import * as Text from "../Text.ts"
import type * as Input from "./Input.ts"
import type * as Journal from "./Journal.ts"
import { maxTokensOf } from "./Ledger.ts"
import * as Limits from "./Limits.ts"
import * as Prices from "./Prices.ts"
import type { Malformed, Prompt } from "./Prompt.ts"
import * as Request from "./Request.ts"
import * as Resume from "./Resume.ts"
import type { Settings } from "./Settings.ts"
import * as Words from "./Words.ts"

/** What the lines of an input need. Tokens of input are estimated at four characters each. */
export interface Needs {
  lines: number
  malformed: number
  /** Requests that are sent: those of equal lines are shared. */
  requests: number
  inputTokens: number
  /** The most tokens of output. `undefined` if a line has no limit. */
  outputTokens: number | undefined
  /** Millionths of a dollar at the preferred target. `undefined` if a model has no price. */
  inputCost: number | undefined
  /** The same with the most output. `undefined` if a line has no limit of tokens, or no price. */
  mostCost: number | undefined
}

/** Reads the input, and counts the lines that the run would send. */
export const needs = <E>(settings: Settings, items: Stream.Stream<Prompt | Malformed, E>): Effect.Effect<Needs, E> =>
  Effect.suspend(() => {
    const counted: Needs = {
      lines: 0,
      malformed: 0,
      requests: 0,
      inputTokens: 0,
      outputTokens: 0,
      inputCost: 0,
      mostCost: 0
    }
    const seen = new Set<number>()
    let last = 0
    const requestOf = Request.hasher(settings)
    return Effect.as(
      Stream.runForEach(items, (item) =>
        Effect.sync(() => {
          // Samples of a line follow each other.
          if (item.line !== last) counted.lines++
          last = item.line
          if (item._tag === "Malformed") {
            counted.malformed++
            return
          }
          // 52 bits are exact as a number, which takes less memory than a text.
          const request = Number.parseInt(requestOf(item).slice(0, 13), 16)
          if (!settings.noShare) {
            if (seen.has(request)) return
            seen.add(request)
          }
          add(counted, item, settings)
        })),
      counted
    )
  })

const add = (counted: Needs, prompt: Prompt, settings: Settings): void => {
  const [target] = settings.targets
  const inputTokens = Math.ceil(charactersOf(prompt) / 4)
  const outputTokens = maxTokensOf(prompt, target, settings)
  const model = prompt.model ?? target.model
  const price = model === undefined ? undefined : settings.prices.of(target, model)?.price
  counted.requests++
  counted.inputTokens += inputTokens
  counted.outputTokens = sum(counted.outputTokens, outputTokens)
  counted.inputCost = sum(
    counted.inputCost,
    price === undefined ? undefined : Prices.costOf(price, { inputTokens, outputTokens: 0 })
  )
  counted.mostCost = sum(
    counted.mostCost,
    price === undefined || outputTokens === undefined ? undefined : Prices.costOf(price, { inputTokens, outputTokens })
  )
}

const sum = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined || b === undefined ? undefined : a + b

const charactersOf = ({ messages }: Prompt): number =>
  messages.reduce(
    (total, { content }) =>
      total +
      (typeof content === "string"
        ? content.length
        : content.reduce((own, part) => own + (part.type === "text" ? part.text.length : 0), 0)),
    0
  )

/** The least time in milliseconds at the limits of a target: whole windows pass, and the rest of the last one is free. */
export const leastMillis = (limits: ReadonlyArray<Dimension>, { inputTokens, requests }: Needs): number =>
  Math.max(
    0,
    ...limits.map(({ limit, name, windowMillis }) => {
      const amount = name === "requests" ? requests : name === "outputTokens" ? 0 : inputTokens
      return Math.max(0, Math.ceil(amount / limit) - 1) * windowMillis
    })
  )

const columns = 80
const labelWidth = 17

/** Renders the needs of a run. */
export const render = (
  counted: Needs,
  { maxCost, targets: [target] }: Settings,
  answered: number | undefined
): string => {
  const { inputCost, inputTokens, lines, malformed, mostCost, outputTokens, requests } = counted
  const limits = (target.limits ?? []).filter(({ windowMillis }) => windowMillis > 0)
  const rows: ReadonlyArray<readonly [label: string, text: string]> = [
    ["lines", Words.count(lines)],
    ...(answered === undefined ? [] : [["answered", `${Words.count(answered)} by earlier runs, left out`] as const]),
    ...(malformed === 0 ? [] : [["no prompts", `${Words.count(malformed)}, which fail as MalformedLine`] as const]),
    [
      "requests",
      `${Words.count(requests)} different${target.model === undefined ? "" : `, for ${Terminal.escape(target.model)}`}`
    ],
    [
      "tokens",
      `about ${Words.count(inputTokens)} in, ${
        outputTokens === undefined
          ? "any number out; --max-tokens limits it"
          : `at most ${Words.count(outputTokens)} out`
      }`
    ],
    ["cost", costText(inputCost, mostCost)],
    ...(maxCost === undefined ? [] : [["budget", Prices.shown(maxCost * 1e6)] as const]),
    ...(limits.length === 0
      ? []
      : [
        [
          "time",
          `${timeText(leastMillis(limits, counted))} at ${limits.map(Limits.shown).join(", ")}`
        ] as const
      ])
  ]
  return rows.flatMap(([label, text]) =>
    Text.wrap(text, columns - labelWidth - 2).map((part, index) =>
      `  ${(index === 0 ? label : "").padEnd(labelWidth)}${part}\n`
    )
  ).join("")
}

const timeText = (millis: number): string =>
  millis === 0 ? "less than a minute of waiting" : `at least ${Words.time(millis)}`

const costText = (input: number | undefined, most: number | undefined): string =>
  input === undefined
    ? "not known: a model has no price; use --price or --price-file"
    : most === undefined
    ? `at least ${Prices.shown(input)} for the input`
    : `about ${Prices.shown(input)} for the input, at most ${Prices.shown(most)} with the longest answers`

/** Counts what the run would send, and renders it. */
export const run = (
  settings: Settings,
  input: Input.Input
): Effect.Effect<string, Input.InputError | Journal.JournalError | Resume.ResumeError> =>
  Effect.gen(function*() {
    const mode = Resume.modeOf(settings)
    const resumed = mode === undefined ? undefined : yield* Resume.make(settings, input, mode)
    if (resumed !== undefined) yield* resumed.check
    const counted = yield* needs(settings, resumed?.items ?? input.items)
    return render(counted, settings, resumed?.place.count("ok"))
  })
