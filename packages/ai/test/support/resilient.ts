/** Resilient models over scripted targets on the TestClock. Shows the caller's results and the calls of each target. */
import { assert } from "@effect/vitest"
import { Cause, Context, Duration, Effect, Exit, Fiber, Layer, Option, Stream } from "effect"
import { AiError, LanguageModel, type Response } from "effect/ai"
import { TestClock } from "effect/testing"
import type * as AiRejection from "@sluice/ai/AiRejection"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as ScriptedModel from "@sluice/ai/testing/ScriptedModel"
import * as Turn from "@sluice/ai/testing/Turn"
import * as RetryPolicy from "@sluice/core/RetryPolicy"

export type Scripted = ScriptedModel.ScriptedModel["Service"]

export const ok = Turn.answer("good")
export const failed = Turn.status(503)

/** One call runs at a time. The others are queued. */
export const single = { capacity: 1, queue: 100 }

/** A failed call moves to the next target at once. */
export const atOnce = { retriesHere: 0 } as const

/** Backoff without jitter: 1 s, 2 s, 4 s. */
export const plainRetry = (options?: RetryPolicy.RetryOptions) =>
  RetryPolicy.exponential({ baseDelay: "1 second", jitter: "none", ...options })

type Options = Partial<Omit<ResilientModel.LayerOptions, "targets">>
type TargetOptions = Partial<ResilientModel.TargetOptions>

/** The turns of a target, or its turns and options. */
export type TargetSpec =
  | Turn.Turns
  | (TargetOptions & { readonly turns: Turn.Turns } & Pick<ScriptedModel.Options, "streamErrors">)

const isTurns = (spec: TargetSpec): spec is Turn.Turns => typeof spec === "function" || Array.isArray(spec)

export interface Built {
  readonly model: LanguageModel.LanguageModel
  readonly resilient: ResilientModel.ResilientModel["Service"]
  readonly context: Context.Context<LanguageModel.LanguageModel | ResilientModel.ResilientModel>
  readonly targets: ReadonlyArray<Scripted>
  /** The text of a whole answer. */
  readonly generate: Effect.Effect<string, AiError.AiError>
  readonly stream: Stream.Stream<Response.AnyPart, AiError.AiError>
  /** The calls of each target: name, turn, ending, start and end in seconds. */
  readonly targetCalls: Effect.Effect<ReadonlyArray<string>>
  /** The number of open calls, and of permits in use or waited for. */
  readonly inUse: Effect.Effect<number>
}

/** A resilient model over scripted targets with these names. */
export const build = Effect.fnUntraced(function*(
  specs: { readonly [name: string]: TargetSpec },
  options: Options = {}
) {
  const targets: Array<Scripted> = []
  const layers: Array<ResilientModel.Target<LanguageModel.LanguageModel, never, never>> = []
  for (const [name, each] of Object.entries(specs)) {
    const { streamErrors, turns, ...own } = isTurns(each) ? { turns: each, streamErrors: undefined } : each
    const target = yield* Effect.orDie(ScriptedModel.make({ name, turns, answer: `from ${name}`, streamErrors }))
    targets.push(target)
    layers.push({ name, ...own, layer: target.layer })
  }
  const context = yield* Effect.orDie(
    Layer.build(ResilientModel.layer({ retry: plainRetry(), ...options, targets: layers }))
  )
  const model = Context.get(context, LanguageModel.LanguageModel)
  const resilient = Context.get(context, ResilientModel.ResilientModel)
  return {
    model,
    resilient,
    context,
    targets,
    generate: Effect.map(model.generateText({ prompt: "hi" }), ({ text }) => text),
    stream: model.streamText({ prompt: "hi" }),
    targetCalls: Effect.map(
      Effect.forEach(targets, (target) => target.journal),
      (journals) =>
        journals.flatMap((calls, at) =>
          calls.map((call) => `${targets[at]?.name} ${call.turn ?? "Echo"} ${call.ending} ${times(call)}`)
        )
    ),
    inUse: Effect.gen(function*() {
      let inUse = 0
      for (const target of targets) inUse += yield* target.open
      for (const { permits } of yield* resilient.targets) inUse += (permits?.running ?? 0) + (permits?.queued ?? 0)
      return inUse
    })
  } satisfies Built
})

const times = ({ endedAt, startedAt }: ScriptedModel.Call): string =>
  `${startedAt / 1000}-${endedAt === undefined ? "" : endedAt / 1000}`

/** Runs the effect while the clock advances by the duration. Fails the test if the effect has not ended by then. */
export const runFor = <A, E, R>(
  duration: Duration.Input,
  self: Effect.Effect<A, E, R>
): Effect.Effect<Exit.Exit<A, E>, never, R> =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(self)
    yield* TestClock.adjust(duration)
    // A tool takes more turns of the scheduler than the clock yields.
    for (let turns = 0; turns < 50 && fiber.pollUnsafe() === undefined; turns++) yield* Effect.yieldNow
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return exit
    yield* Fiber.interrupt(fiber)
    return assert.fail(`the effect has not ended after ${Duration.format(Duration.fromInputUnsafe(duration))}`)
  })

/** The error of an exit. */
export const errorOf = (exit: Exit.Exit<unknown, unknown>): AiError.AiError => {
  const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
  return AiError.isAiError(error) ? error : assert.fail(`no AiError: ${String(exit)}`)
}

export const rejectionOf = (exit: Exit.Exit<unknown, unknown>): AiRejection.Rejection =>
  Option.getOrElse(ResilientModel.rejection(errorOf(exit)), () => assert.fail(`no rejection: ${errorOf(exit).message}`))

/** An exit on one line: its value, or the tag of its rejection, or else the tag of its reason. */
export const summaryOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return String(exit.value)
  const error = errorOf(exit)
  const rejection = Option.getOrUndefined(ResilientModel.rejection(error))
  return rejection?._tag ?? error.reason._tag
}

/** The types of the parts of a stream, its text, and how it ended. */
export const readAll = <E, R>(
  stream: Stream.Stream<Response.AnyPart, E, R>
): Effect.Effect<{ readonly parts: ReadonlyArray<string>; readonly text: string; readonly end: string }, never, R> =>
  Effect.gen(function*() {
    const parts: Array<string> = []
    let text = ""
    const exit = yield* Effect.exit(Stream.runForEach(stream, (part) =>
      Effect.sync(() => {
        const restart = ResilientModel.restartOf(part)
        parts.push(restart === undefined ? part.type : `restart ${restart.from} ${restart.to}`)
        if (part.type === "text-delta") text += part.delta
      })))
    return { parts, text, end: Exit.isSuccess(exit) ? "end" : summaryOf(exit) }
  })

export const valueOf = <A>(exit: Exit.Exit<A, unknown>): A =>
  Exit.isSuccess(exit) ? exit.value : assert.fail(`failed: ${summaryOf(exit)}`)
