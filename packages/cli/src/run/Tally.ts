import { Histogram } from "./Histogram.ts"
import type { Result, Usage } from "./Result.ts"

const noTokens: Usage = { inputTokens: 0, outputTokens: 0, estimated: false }

/** Counts what a run does, in bounded memory. Told by the run as it goes; read by the live line and by the table. */
export class Tally {
  /** Lines that are being worked on. */
  running = 0
  answered = 0
  failed = 0
  /** Tries that were sent to the provider. */
  calls = 0
  /** Lines that were answered by another line's call while it ran, and by one that had been made. */
  joined = 0
  cached = 0
  /** Tokens of all that was asked for, and of answers that did not have to be. */
  spent: Usage = noTokens
  saved: Usage = noTokens
  /** From a line's turn to its answer, of lines that made a call of their own, in milliseconds. */
  readonly latency = new Histogram()
  /** Answers that are not whole, by what ended them. */
  readonly unfinished = new Map<string, number>()
  /** Targets that can answer nothing, each with the reason. */
  readonly unusable = new Map<string, string>()
  /** Why tries failed, by reason: a short list of ours, never a provider's text. */
  private readonly reasons = new Map<string, number>()

  /** A line's turn has come. */
  started(): void {
    this.running++
  }

  /** A try is sent. */
  called(): void {
    this.calls++
  }

  /** A try failed. */
  attemptFailed(reason: string): void {
    this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1)
  }

  /** Tokens were paid for. */
  paid(usage: Usage): void {
    this.spent = add(this.spent, usage)
  }

  /** A line's turn is over. */
  finished(result: Result): void {
    this.running--
    if (result.status === "failed") {
      this.failed++
      return
    }
    this.answered++
    if (result.how === "led") this.latency.add(result.milliseconds)
    else this[result.how]++
    if (result.how !== "led") this.saved = add(this.saved, result.usage)
    if (result.finish !== "stop") this.unfinished.set(result.finish, (this.unfinished.get(result.finish) ?? 0) + 1)
  }

  /** A line has no turn, since it could not be read. */
  failedUnread(): void {
    this.failed++
  }

  get done(): number {
    return this.answered + this.failed
  }

  /** Failed tries by reason, the most frequent first. */
  get failures(): ReadonlyArray<readonly [reason: string, times: number]> {
    return [...this.reasons].sort(([, a], [, b]) => b - a)
  }
}

const add = (a: Usage, b: Usage): Usage => ({
  inputTokens: a.inputTokens + b.inputTokens,
  outputTokens: a.outputTokens + b.outputTokens,
  estimated: a.estimated || b.estimated
})
