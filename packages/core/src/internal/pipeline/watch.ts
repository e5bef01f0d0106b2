import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import { TracerTimingEnabled } from "effect/References"
import * as Tracer from "effect/Tracer"

/**
 * How a run, or one of its stages, ended. `Recovered`: the attempts failed and the recovery succeeded.
 *
 * @since 0.1.0
 * @category models
 */
export type Ending = "Success" | "Recovered" | "Failure" | "Defect" | "Interrupted"

type Attributes = Readonly<Record<string, string | number>>

/** The measurements of one run of a pipeline. Keeps no input, no result and no error. */
export class RunWatch {
  readonly pipeline: string
  readonly stages: Array<StageWatch> = []
  ending: Ending = "Interrupted"
  elapsedMillis = 0

  constructor(pipeline: string) {
    this.pipeline = pipeline
  }

  begin(stage: string, index: number): StageWatch {
    const watch = new StageWatch(stage, index)
    this.stages.push(watch)
    return watch
  }

  /** Records the end. Returns the attributes of the span. */
  end(exit: Exit.Exit<unknown, unknown>, elapsedMillis: number): Attributes {
    this.ending = endingOf(exit)
    this.elapsedMillis = elapsedMillis
    const type = errorTypeOf(exit)
    const failed = type === undefined ? undefined : this.stages.at(-1)
    return {
      "sluice.ending": this.ending,
      ...(type === undefined ? undefined : { "error.type": type }),
      ...(failed === undefined ? undefined : { "sluice.failed.stage": failed.stage })
    }
  }
}

/** The measurements of one stage of a run. */
export class StageWatch {
  readonly stage: string
  readonly index: number
  attempts = 0
  timeouts = 0
  /** The tag of the error that the recovery was called with. */
  recoveredFrom: string | undefined
  /** If the stage is a pipeline: its last attempt. */
  nested: RunWatch | undefined
  ending: Ending = "Interrupted"
  elapsedMillis = 0

  constructor(stage: string, index: number) {
    this.stage = stage
    this.index = index
  }

  /** Records the end. Returns the attributes of the span. */
  end(exit: Exit.Exit<unknown, unknown>, elapsedMillis: number): Attributes {
    this.ending = Exit.isSuccess(exit) && this.recoveredFrom !== undefined ? "Recovered" : endingOf(exit)
    this.elapsedMillis = elapsedMillis
    const type = errorTypeOf(exit) ?? this.recoveredFrom
    return {
      "sluice.ending": this.ending,
      "sluice.attempts": this.attempts,
      "sluice.timeouts": this.timeouts,
      ...(type === undefined ? undefined : { "error.type": type })
    }
  }
}

/** Whether the program has a tracer. Without one Effect builds spans that are never exported, at 3 to 8 us each. */
export const isTraced = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  fiber.cache.tracer !== undefined && fiber.cache.tracerEnabled

/** Calls `onEnd` with the exit and the duration. With a tracer, the effect runs in a span. */
export const watched = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  { attributes, name, onEnd }: {
    readonly name: string
    readonly attributes: Attributes
    /** Returns the attributes that the span gets at its end. */
    readonly onEnd: (exit: Exit.Exit<A, E>, elapsedMillis: number) => Attributes
  }
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const clock = fiber.getRef(Clock.Clock)
    const startedAt = clock.monotonicTimeNanosUnsafe()
    const end = (exit: Exit.Exit<A, E>) => onEnd(exit, Number(clock.monotonicTimeNanosUnsafe() - startedAt) / 1_000_000)
    if (!isTraced(fiber)) {
      return Effect.onExitPrimitive(self, (exit) => {
        end(exit)
        return undefined
      })
    }
    const timing = fiber.getRef(TracerTimingEnabled)
    return Effect.acquireUseRelease(
      Effect.makeSpan(name, { attributes }),
      (span) => Effect.provideService(self, Tracer.ParentSpan, span),
      (span, exit) =>
        Effect.sync(() => {
          for (const [key, value] of Object.entries(end(exit))) span.attribute(key, value)
          span.end(timing ? clock.currentTimeNanosUnsafe() : 0n, shown(name, exit))
        })
    )
  })

/** Classifies an exit. A defect takes precedence over a failure, and a failure over an interruption. */
export const endingOf = (exit: Exit.Exit<unknown, unknown>): Ending => {
  if (Exit.isSuccess(exit)) return "Success"
  if (Cause.hasDies(exit.cause)) return "Defect"
  return Cause.hasFails(exit.cause) ? "Failure" : "Interrupted"
}

/** The tag of the exit's error. Never the message, which can contain user data. */
export const errorTypeOf = (exit: Exit.Exit<unknown, unknown>): string | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  let type: string | undefined
  for (const reason of exit.cause.reasons) {
    if (Cause.isDieReason(reason)) return tagOf(reason.defect)
    if (Cause.isFailReason(reason)) type ??= tagOf(reason.error)
  }
  return type
}

/** The tag of an error, or `untagged`. */
export const tagOf = (error: unknown): string =>
  Predicate.hasProperty(error, "_tag") && typeof error._tag === "string" ? error._tag : "untagged"

// Exporters print the messages and stacks of a span's exit, and a success contains the result. So the span gets an exit of
// the same kind that contains only the error's tag.
const shown = (name: string, exit: Exit.Exit<unknown, unknown>): Exit.Exit<void, unknown> => {
  const error = () => ({ name: errorTypeOf(exit), message: `${name} failed` })
  switch (endingOf(exit)) {
    case "Failure":
      return Exit.fail(error())
    case "Defect":
      return Exit.die(error())
    case "Interrupted":
      return Exit.interrupt()
    default:
      return Exit.void
  }
}
