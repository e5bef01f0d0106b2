import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as ExitCode from "./ExitCode.ts"

/** The signals by which a person or a supervisor ends a command. */
export type Signal = "SIGINT" | "SIGTERM"

/** The exit code of a command that a signal ended. */
export const exitCode = (signal: Signal): number => signal === "SIGINT" ? ExitCode.interrupted : ExitCode.terminated

/** Waits for signals, in place of Node's own handling, which is to end the process at once. */
export interface Signals {
  /** The first: the wish to end in good order. */
  readonly first: Effect.Effect<Signal>
  /** The second: the wish to end now. */
  readonly second: Effect.Effect<Signal>
}

/** Listens until the scope closes. */
export const listen: Effect.Effect<Signals, never, Scope.Scope> = Effect.suspend(() => {
  const first = Deferred.makeUnsafe<Signal>()
  const second = Deferred.makeUnsafe<Signal>()
  const heard = (signal: Signal): void => {
    Deferred.doneUnsafe(Deferred.isDoneUnsafe(first) ? second : first, Effect.succeed(signal))
  }
  return Effect.acquireRelease(
    Effect.sync((): Signals => {
      process.on("SIGINT", heard).on("SIGTERM", heard)
      return { first: Deferred.await(first), second: Deferred.await(second) }
    }),
    () => Effect.sync(() => process.off("SIGINT", heard).off("SIGTERM", heard))
  )
})
