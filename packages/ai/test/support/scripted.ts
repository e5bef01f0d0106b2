/** A stream that does what it is told, part by part, and tells whether it was closed. For the tests of what watches streams. */
import { Cause, Effect, Exit, type Fiber, type Pull, Scope, Stream } from "effect"
import * as Channel from "effect/Channel"
import { type Guard, guard } from "../../src/internal/stream/guard.ts"

/** A letter per part: `s`tart and `u`sage are no output, `d`elta is, `f`inish completes, `e`rror says that it failed. */
export type Part = "s" | "u" | "d" | "f" | "e"

export type Step =
  /** Parts that come in one chunk. */
  | string
  /** Takes so long before what comes next. */
  | number
  | "fail"
  | "die"
  | "hang"
  | "yield"
  /** Lets nobody interrupt it for 1,000 ms, and then gives a delta. */
  | "deaf"

const words = new Set<Step>(["fail", "die", "hang", "yield", "deaf"])

export class Upstream {
  opened = 0
  closed = 0
  pulls = 0
  /** The fibers that it was connected and pulled in. */
  readonly fibers = new Set<Fiber.Fiber<unknown, unknown>>()

  get open(): number {
    return this.opened - this.closed
  }

  /** Connecting takes so long. */
  stream(steps: ReadonlyArray<Step>, connectMillis = 0): Stream.Stream<Part, string> {
    const next = (rest: Array<Step>): Pull.Pull<readonly [Part, ...Array<Part>], string> =>
      Effect.withFiber((fiber) => {
        this.fibers.add(fiber)
        const step = rest.shift()
        if (step === undefined) return Cause.done()
        if (typeof step === "number") return Effect.andThen(Effect.sleep(step), next(rest))
        if (!words.has(step)) return Effect.succeed(partsOf(step))
        switch (step) {
          case "fail":
            return Effect.fail("failed")
          case "die":
            return Effect.die("broken")
          case "yield":
            return Effect.andThen(Effect.yieldNow, next(rest))
          case "deaf":
            return Effect.uninterruptible(Effect.as(Effect.sleep(1000), partsOf("d")))
          default:
            return Effect.never
        }
      })
    return Stream.fromChannel(Channel.fromTransform((_, scope) =>
      Effect.gen({ self: this }, function*() {
        yield* Effect.withFiber((fiber) => Effect.sync(() => this.fibers.add(fiber)))
        yield* Effect.uninterruptible(Effect.andThen(
          Effect.sync(() => void this.opened++),
          // Closing takes its time, as a socket does.
          Scope.addFinalizer(scope, Effect.andThen(Effect.yieldNow, Effect.sync(() => void this.closed++)))
        ))
        if (connectMillis > 0) yield* Effect.sleep(connectMillis)
        const rest = [...steps]
        return Effect.suspend(() => {
          this.pulls++
          return next(rest)
        })
      })
    ))
  }
}

// A script names letters that are parts.
const partsOf = (letters: string) => [...letters] as unknown as readonly [Part, ...Array<Part>]

export type Limits = Partial<
  Pick<
    Guard<Part, string>,
    "firstTokenMillis" | "idleMillis" | "deadlineAt" | "maxHeldParts" | "maxHeldBytes" | "onFirst" | "empty"
  >
>

export const rules = (limits: Limits = {}): Guard<Part, string> => ({
  isOutput: (part) => part === "d",
  isComplete: (part) => part === "f",
  failureOf: (part) => part === "e" ? "error part" : undefined,
  sizeOf: () => 100,
  truncated: (parts, hadOutput) => `truncated after ${parts}, ${hadOutput ? "some" : "nothing"} handed on`,
  silent: (phase, parts) => `silent ${phase} after ${parts}`,
  late: () => "late",
  empty: () => "empty",
  ...limits
})

export const guarded = (
  upstream: Upstream,
  steps: ReadonlyArray<Step>,
  limits: Limits = {},
  connectMillis = 0
): Stream.Stream<Part, string> => guard(upstream.stream(steps, connectMillis), rules(limits))

/** What came of a stream, on one line: its chunks, and then how it ended. */
export const told = (chunks: ReadonlyArray<string>, exit: Exit.Exit<void, string>): string => {
  const end = Exit.match(exit, {
    onSuccess: () => "end",
    onFailure: (cause) =>
      cause.reasons.map((reason) =>
        Cause.isFailReason(reason) ? reason.error : Cause.isDieReason(reason) ? `dies: ${reason.defect}` : "interrupted"
      ).join(" and ")
  })
  return [...chunks, end].join(" | ")
}
