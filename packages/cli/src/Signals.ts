import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { isatty } from "node:tty"
import * as ExitCode from "./ExitCode.ts"

export type Signal = "SIGINT" | "SIGTERM" | "SIGHUP"

const exitCodes: { readonly [_ in Signal]: number } = {
  SIGINT: ExitCode.interrupted,
  SIGTERM: ExitCode.terminated,
  SIGHUP: ExitCode.hungUp
}

export const exitCode = (signal: Signal): number => exitCodes[signal]

const hints: { readonly [_ in Signal]: string } = {
  SIGINT: "Press Ctrl-C again to stop now.",
  SIGTERM: "A second SIGTERM stops them now.",
  SIGHUP: "A second signal stops them now."
}

/** How to stop without waiting, after a first signal. */
export const again = (signal: Signal): string => hints[signal]

/**
 * Ends the process by a signal that it listens for no longer. `process.exit` would wait for system calls that block, such as a
 * write to a named pipe without a reader.
 */
export const endNow = (signal: Signal): void => void process.kill(process.pid, signal)

/** Signals of this process. Replaces Node's default, which ends the process at once. */
export interface Signals {
  /** The first signal, which asks for an orderly end. */
  readonly first: Effect.Effect<Signal>
  /** The second signal, which asks to end now. */
  readonly second: Effect.Effect<Signal>
}

/** Listens until the scope closes, or until the second signal. A third one ends the process, for example while an output blocks. */
export const listen: Effect.Effect<Signals, never, Scope.Scope> = Effect.suspend(() => listenTo(all))

/** `listen` for some signals only. */
export const listenTo = (signals: ReadonlyArray<Signal>): Effect.Effect<Signals, never, Scope.Scope> =>
  Effect.suspend(() => {
    const first = Deferred.makeUnsafe<Signal>()
    const second = Deferred.makeUnsafe<Signal>()
    const stop = (): void => {
      for (const signal of signals) process.off(signal, onSignal)
    }
    const onSignal = (signal: Signal): void => {
      const isSecond = Deferred.isDoneUnsafe(first)
      if (isSecond) stop()
      Deferred.doneUnsafe(isSecond ? second : first, Effect.succeed(signal))
    }
    return Effect.acquireRelease(
      Effect.sync((): Signals => {
        for (const signal of signals) process.on(signal, onSignal)
        return { first: Deferred.await(first), second: Deferred.await(second) }
      }),
      () => Effect.sync(stop)
    )
  })

const all = ["SIGINT", "SIGTERM", "SIGHUP"] as const

/** Runs `reload` at SIGHUP until the scope closes. If SIGHUP says that the terminal was closed, it counts as SIGTERM. */
export const onHangUp = (reload: () => void): Effect.Effect<void, never, Scope.Scope> => {
  const hadTerminal = isatty(0)
  const onSignal = (): void => {
    // A terminal that was closed is none any more.
    if (hadTerminal && !isatty(0)) process.emit("SIGTERM", "SIGTERM")
    else reload()
  }
  return Effect.acquireRelease(
    Effect.sync(() => void process.on("SIGHUP", onSignal)),
    () => Effect.sync(() => process.off("SIGHUP", onSignal))
  )
}
