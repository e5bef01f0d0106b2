/** Resilient models over scripted targets, on the TestClock: what the caller got, and what each target saw. */
import { assert } from "@effect/vitest"
import { Cause, Context, Duration, Effect, Exit, Fiber, Layer, Option, Stream } from "effect"
import { AiError, LanguageModel, type Response } from "effect/ai"
import { TestClock } from "effect/testing"
import type * as AiRejection from "@sluice/ai/AiRejection"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as ScriptedModel from "@sluice/ai/testing/ScriptedModel"
import type * as Turn from "@sluice/ai/testing/Turn"
import * as RetryPolicy from "@sluice/core/RetryPolicy"

export type Scripted = ScriptedModel.ScriptedModel["Service"]

/** Without chance: a second, two, four. */
export const plain = (options?: RetryPolicy.RetryOptions) =>
  RetryPolicy.exponential({ baseDelay: "1 second", jitter: "none", ...options })

type Options = Partial<Omit<ResilientModel.Options, "targets">>
type TargetOptions = Partial<ResilientModel.TargetOptions>

/** What a target meets, or that and what is said of it. */
export type Given =
  | Turn.Turns
  | (TargetOptions & { readonly turns: Turn.Turns } & Pick<ScriptedModel.Options, "streamErrors">)

const isTurns = (given: Given): given is Turn.Turns => typeof given === "function" || Array.isArray(given)

export interface Built {
  readonly model: LanguageModel.LanguageModel
  readonly resilient: ResilientModel.ResilientModel["Service"]
  readonly context: Context.Context<LanguageModel.LanguageModel | ResilientModel.ResilientModel>
  readonly targets: ReadonlyArray<Scripted>
  /** Asks for a whole answer. */
  readonly ask: Effect.Effect<string, AiError.AiError>
  readonly stream: Stream.Stream<Response.AnyPart, AiError.AiError>
  /** What each target saw: turn, ending, and from when to when in seconds. */
  readonly seen: Effect.Effect<ReadonlyArray<string>>
  /** Calls and permits that are still there. */
  readonly left: Effect.Effect<number>
}

/** A resilient model over scripted targets, named as here. */
export const build = Effect.fnUntraced(function*(
  given: { readonly [name: string]: Given },
  options: Options = {}
) {
  const targets: Array<Scripted> = []
  const described: Array<ResilientModel.Target<LanguageModel.LanguageModel, never, never>> = []
  for (const [name, each] of Object.entries(given)) {
    const { streamErrors, turns, ...own } = isTurns(each) ? { turns: each, streamErrors: undefined } : each
    const target = yield* Effect.orDie(ScriptedModel.make({ name, turns, answer: `from ${name}`, streamErrors }))
    targets.push(target)
    described.push({ name, ...own, layer: target.layer })
  }
  const context = yield* Effect.orDie(
    Layer.build(ResilientModel.layer({ retry: plain(), ...options, targets: described }))
  )
  const model = Context.get(context, LanguageModel.LanguageModel)
  const resilient = Context.get(context, ResilientModel.ResilientModel)
  return {
    model,
    resilient,
    context,
    targets,
    ask: Effect.map(model.generateText({ prompt: "hi" }), ({ text }) => text),
    stream: model.streamText({ prompt: "hi" }),
    seen: Effect.map(
      Effect.forEach(targets, (target) => target.journal),
      (journals) =>
        journals.flatMap((calls, at) =>
          calls.map((call) => `${targets[at]?.name} ${call.turn ?? "Echo"} ${call.ending} ${times(call)}`)
        )
    ),
    left: Effect.gen(function*() {
      let left = 0
      for (const target of targets) left += yield* target.open
      for (const { permits } of yield* resilient.targets) left += (permits?.running ?? 0) + (permits?.queued ?? 0)
      return left
    })
  } satisfies Built
})

const times = ({ endedAt, startedAt }: ScriptedModel.Call): string =>
  `${startedAt / 1000}-${endedAt === undefined ? "" : endedAt / 1000}`

/** Runs it while so much time goes by; it has to be over then. */
export const during = <A, E, R>(
  duration: Duration.Input,
  self: Effect.Effect<A, E, R>
): Effect.Effect<Exit.Exit<A, E>, never, R> =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(self)
    yield* TestClock.adjust(duration)
    // A tool that is run takes more turns of the scheduler than the clock gives.
    for (let turns = 0; turns < 50 && fiber.pollUnsafe() === undefined; turns++) yield* Effect.yieldNow
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return exit
    yield* Fiber.interrupt(fiber)
    return assert.fail(`it is not over after ${Duration.format(Duration.fromInputUnsafe(duration))}`)
  })

/** The error of an exit. */
export const errorOf = (exit: Exit.Exit<unknown, unknown>): AiError.AiError => {
  const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
  return AiError.isAiError(error) ? error : assert.fail(`no AiError: ${String(exit)}`)
}

export const rejectionOf = (exit: Exit.Exit<unknown, unknown>): AiRejection.Rejection =>
  Option.getOrElse(ResilientModel.rejection(errorOf(exit)), () => assert.fail(`no rejection: ${errorOf(exit).message}`))

/** An exit on one line: the value, or the rejection or else the reason that it failed with. */
export const told = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return String(exit.value)
  const error = errorOf(exit)
  const rejection = Option.getOrUndefined(ResilientModel.rejection(error))
  return rejection?._tag ?? error.reason._tag
}

/** The parts of a stream as one reads them, and how it ended. */
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
    return { parts, text, end: Exit.isSuccess(exit) ? "end" : told(exit) }
  })

export const valueOf = <A>(exit: Exit.Exit<A, unknown>): A =>
  Exit.isSuccess(exit) ? exit.value : assert.fail(`failed: ${told(exit)}`)
