/** A stream that follows a script and counts how often it was opened and closed. For the tests of the stream guard. */
import { Cause, Effect, Exit, type Fiber, type Pull, Scope, Stream } from "effect"
import * as Channel from "effect/Channel"
import { type Guard, guard } from "../../src/internal/stream/guard.ts"

/** One letter per part: `d`elta is output, `s`tart and `u`sage are not, `f`inish completes the stream, `e`rror fails it. */
export type Part = "s" | "u" | "d" | "f" | "e"

export type Step =
  /** The parts of one chunk. */
  | string
  /** Milliseconds before the next step. */
  | number
  | "fail"
  /** Loses the connection. */
  | "lose"
  | "die"
  | "hang"
  | "yield"
  /** Takes 1,000 ms, cannot be interrupted, and then emits a delta. */
  | "uninterruptible"

const keywords = new Set<Step>(["fail", "lose", "die", "hang", "yield", "uninterruptible"])

export class Upstream {
  opened = 0
  closed = 0
  pulls = 0
  /** The fibers in which it was opened and pulled. */
  readonly fibers = new Set<Fiber.Fiber<unknown, unknown>>()

  get open(): number {
    return this.opened - this.closed
  }

  /** A stream that follows the steps. `connectMillis`: how long it takes to open. */
  stream(steps: ReadonlyArray<Step>, connectMillis = 0): Stream.Stream<Part, string> {
    const next = (rest: Array<Step>): Pull.Pull<readonly [Part, ...Array<Part>], string> =>
      Effect.withFiber((fiber) => {
        this.fibers.add(fiber)
        const step = rest.shift()
        if (step === undefined) return Cause.done()
        if (typeof step === "number") return Effect.andThen(Effect.sleep(step), next(rest))
        if (!keywords.has(step)) return Effect.succeed(partsOf(step))
        switch (step) {
          case "fail":
            return Effect.fail("failed")
          case "lose":
            return Effect.fail("lost")
          case "die":
            return Effect.die("broken")
          case "yield":
            return Effect.andThen(Effect.yieldNow, next(rest))
          case "uninterruptible":
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
          // Closing takes a turn of the scheduler, as it does for a socket.
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

// The letters of a script are parts.
const partsOf = (letters: string) => [...letters] as unknown as readonly [Part, ...Array<Part>]

export type Limits = Partial<
  Pick<
    Guard<Part, string>,
    "firstTokenMillis" | "idleMillis" | "deadlineAt" | "maxHeldParts" | "maxHeldBytes" | "onFirst" | "empty"
  >
>

export const guardOptions = (limits: Limits = {}): Guard<Part, string> => ({
  isOutput: (part) => part === "d",
  isComplete: (part) => part === "f",
  failureOf: (part) => part === "e" ? "error part" : undefined,
  sizeOf: () => 100,
  truncated: (parts, hadOutput) => `truncated after ${parts}, ${hadOutput ? "some" : "nothing"} handed on`,
  lost: (error, parts, hadOutput) =>
    error === "lost" ? `lost after ${parts}, ${hadOutput ? "some" : "nothing"} handed on` : undefined,
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
): Stream.Stream<Part, string> => guard(upstream.stream(steps, connectMillis), guardOptions(limits))

/** The result of a stream on one line: its chunks and how it ended. */
export const summaryOf = (chunks: ReadonlyArray<string>, exit: Exit.Exit<void, string>): string => {
  const end = Exit.match(exit, {
    onSuccess: () => "end",
    onFailure: (cause) =>
      cause.reasons.map((reason) =>
        Cause.isFailReason(reason) ? reason.error : Cause.isDieReason(reason) ? `dies: ${reason.defect}` : "interrupted"
      ).join(" and ")
  })
  return [...chunks, end].join(" | ")
}
