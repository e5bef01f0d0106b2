import { Histogram } from "./Histogram.ts"
import * as Journal from "./Journal.ts"
import type { Reason } from "./Reasons.ts"
import { Reasons } from "./Reasons.ts"
import type { Result, Usage } from "./Result.ts"

const noTokens: Usage = { inputTokens: 0, outputTokens: 0, estimated: false }

/** Counts the events of a run in bounded memory, for the progress line and the summary. */
export class Tally {
  running = 0
  answered = 0
  failed = 0
  /** Failed prompts that had no result when the run stopped. */
  stopped = 0
  /** Attempts sent to providers. */
  requests = 0
  /** Attempts after the first of their line, at any target. */
  retries = 0
  /** Prompts answered by a call in flight of another line. */
  joined = 0
  /** Prompts answered by a cached answer. */
  cached = 0
  spent: Usage = noTokens
  /** Tokens of shared answers. */
  saved: Usage = noTokens
  /** Milliseconds from a prompt's turn to its answer, for prompts that made their own call. */
  readonly latency = new Histogram()
  /** Incomplete answers, by finish reason. */
  readonly incomplete = new Map<string, number>()
  /** Reasons of targets that cannot answer any prompt. */
  readonly unusable = new Map<string, string>()
  private readonly failedByReason = new Reasons()
  /** Failed attempts by reason. Never a provider's text. */
  private readonly reasons = new Map<string, number>()

  promptStarted(): void {
    this.running++
  }

  attemptStarted(): void {
    this.requests++
  }

  attemptFailed(reason: string): void {
    this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1)
  }

  paid(usage: Usage): void {
    this.spent = add(this.spent, usage)
  }

  promptFinished(result: Result): void {
    this.running--
    if (result.status === "failed") {
      this.failed++
      if (Journal.unsent.has(result.error.tag)) this.stopped++
      return
    }
    this.answered++
    if (result.how === "led") this.latency.add(result.milliseconds)
    else this[result.how]++
    if (result.how !== "led") this.saved = add(this.saved, result.usage)
    if (result.finish !== "stop") this.incomplete.set(result.finish, (this.incomplete.get(result.finish) ?? 0) + 1)
  }

  malformedLine(): void {
    this.failed++
  }

  /** Counts a prompt that had no result when the run stopped. */
  unfinished(wasStarted: boolean): void {
    if (wasStarted) this.running--
    this.failed++
    this.stopped++
  }

  /** Counts a written result, of a line that was sent or not. */
  written(result: Result): void {
    this.retries += Math.max(0, result.attempts - 1)
    if (result.status === "failed") this.failedByReason.add(result)
  }

  /** Why lines failed, the most frequent reason first. */
  get failedLines(): ReadonlyArray<Reason> {
    return this.failedByReason.sorted
  }

  get done(): number {
    return this.answered + this.failed
  }

  /** Failed attempts by reason, the most frequent first. */
  get failures(): ReadonlyArray<readonly [reason: string, times: number]> {
    return [...this.reasons].sort(([, a], [, b]) => b - a)
  }
}

const add = (a: Usage, b: Usage): Usage => ({
  inputTokens: a.inputTokens + b.inputTokens,
  outputTokens: a.outputTokens + b.outputTokens,
  estimated: a.estimated || b.estimated
})
