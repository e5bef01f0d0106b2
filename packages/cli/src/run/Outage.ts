import type * as Effect from "effect/Effect"
import * as Deferred from "effect/Deferred"
import * as Exit from "effect/Exit"
import { RunStopped } from "./RunStopped.ts"
import type { Settings } from "./Settings.ts"
import * as Words from "./Words.ts"

/** Completes when the run has to stop. */
export class Fatal {
  private readonly deferred = Deferred.makeUnsafe<never, RunStopped>()
  /** Fails when the run has to stop. */
  readonly wait: Effect.Effect<never, RunStopped> = Deferred.await(this.deferred)

  stop(why: RunStopped["why"], message: string): void {
    Deferred.doneUnsafe(this.deferred, Exit.fail(new RunStopped({ why, message })))
  }
}

/** Stops the run if no target answers for too long. */
export class Outage {
  private readonly options: Pick<Settings, "maxOutageMillis" | "targets">
  private readonly fatal: Fatal
  /** The first observation that no target answers, in epoch milliseconds. `undefined` after an answer. */
  private since: number | undefined

  constructor(options: Pick<Settings, "maxOutageMillis" | "targets">, fatal: Fatal) {
    this.options = options
    this.fatal = fatal
  }

  /** Records that every circuit is open, or that every call is refused for the rate limit. */
  observed(now: number, what: "down" | "rate-limiting"): void {
    const { maxOutageMillis, targets } = this.options
    this.since ??= now
    if (now - this.since < maxOutageMillis) return
    const subject = targets.length === 1 ? "the provider was" : "all targets were"
    this.stop(`${subject} ${what} for ${Words.time(maxOutageMillis)}`)
  }

  /** Records that no target accepts a call for this many milliseconds. */
  expected(millis: number): void {
    if (millis > this.options.maxOutageMillis) this.stop(`no target accepts calls for ${Words.time(millis)}`)
  }

  ended(): void {
    this.since = undefined
  }

  private stop(why: string): void {
    this.fatal.stop("Outage", `${why}; the remaining prompts were not sent. Raise --max-outage to wait longer`)
  }
}
