/** The facts of a report, collected during the run in bounded memory. */
import type { Attempt, CallLog } from "@sluice/ai/CallLog"
import type { CallRecord } from "../run/CallRecord.ts"
import type { Change } from "../run/Circuits.ts"
import { isOwnRefusal } from "../run/Attempts.ts"
import * as Failure from "../run/Failure.ts"
import { Histogram } from "../run/Histogram.ts"
import { Reasons } from "../run/Reasons.ts"
import type { Result } from "../run/Result.ts"
import { Bins } from "./Bins.ts"

/** How an attempt ended, as the page shows it. */
export type Ending = "answered" | "throttled" | "failed" | "other"

export interface Sum {
  inputTokens: number
  outputTokens: number
  estimated: boolean
}

/** Limits of the lists: failed prompts, prompts with the most attempts, and changes per circuit; and of a message's length. */
export const limits = { failed: 200, hardest: 20, changes: 5_000, message: 200 }

export class TargetFacts {
  readonly name: string
  readonly model: string
  readonly host: string
  attempts = 0
  readonly endings = new Map<Ending, number>()
  readonly firstToken = new Histogram()
  readonly latency = new Histogram()
  readonly timeline = new Bins<Ending>()
  readonly paid: Sum = { inputTokens: 0, outputTokens: 0, estimated: false }
  /** Times are milliseconds since the start of the run. */
  readonly circuit: Array<{ readonly at: number; readonly isOpen: boolean }> = []
  omittedChanges = 0
  openings = 0

  constructor(fields: Pick<TargetFacts, "name" | "model" | "host">) {
    this.name = fields.name
    this.model = fields.model
    this.host = fields.host
  }
}

export interface Listed
  extends Pick<CallRecord, "line" | "id" | "status" | "target" | "attempts" | "milliseconds" | "error">
{
  /** The message of a failed prompt. A provider may have written it, and may quote the prompt. */
  readonly message: string
}

/** Failed attempts at one target for one reason. */
export interface FailureFacts {
  readonly target: string
  readonly reason: string
  times: number
  readonly next: Map<Attempt["next"], number>
}

export class Facts {
  readonly startedAt: number
  readonly targets: ReadonlyMap<string, TargetFacts>
  endedAt: number
  answered = 0
  failed = 0
  /** When lines got their answers, also shared ones. */
  readonly answers = new Bins<"answered">()
  joined = 0
  cached = 0
  requests = 0
  /** Attempts after the first of their line, at any target. */
  retries = 0
  /** Why lines failed. */
  readonly reasons = new Reasons()
  readonly next = new Map<Attempt["next"], number>()
  /** Prompts that another target than the first answered. */
  answeredElsewhere = 0
  /** Incomplete answers, by finish reason. */
  readonly incomplete = new Map<string, number>()
  readonly paid: Sum = { inputTokens: 0, outputTokens: 0, estimated: false }
  /** Prompts that made their own call, by the time from turn to answer. One count per bar of the chart. */
  readonly latencies: Array<number> = latencyEdges.map(() => 0)
  readonly latency = new Histogram()
  readonly failures = new Map<string, FailureFacts>()
  readonly failedPrompts: Array<Listed> = []
  readonly hardest: Array<Listed> = []
  private readonly preferred: string | undefined

  constructor(targets: ReadonlyArray<Pick<TargetFacts, "name" | "model" | "host">>, startedAt: number) {
    this.startedAt = startedAt
    this.endedAt = startedAt
    this.targets = new Map(targets.map((target) => [target.name, new TargetFacts(target)]))
    this.preferred = targets[0]?.name
  }

  /** Adds the record of a line and its result. */
  add(record: CallRecord, result: Result): void {
    this.endedAt = Math.max(this.endedAt, record.startedAt + record.milliseconds)
    this.requests += record.attempts
    this.retries += Math.max(0, record.attempts - 1)
    const message = result.status === "failed" ? result.error.message.slice(0, limits.message) : ""
    if (result.status === "failed") {
      this.reasons.add(result)
      this.addFailed(record, message)
    } else this.addAnswered(record)
    if (record.attempts > 1) this.addHardest(record, message)
    for (const [index, call] of record.calls.entries()) this.addCall(call, index < record.calls.length - 1)
  }

  circuitChanged({ at, circuit, target }: Change): void {
    const facts = this.targets.get(target)
    if (facts === undefined) return
    const isOpen = circuit.state === "open"
    const wasOpen = facts.circuit.at(-1)?.isOpen ?? false
    if (isOpen && !wasOpen) facts.openings++
    if (isOpen === wasOpen) return
    if (facts.circuit.length < limits.changes) facts.circuit.push({ at: at - this.startedAt, isOpen })
    else facts.omittedChanges++
  }

  private addFailed(record: CallRecord, message: string): void {
    this.failed++
    if (this.failedPrompts.length < limits.failed) this.failedPrompts.push(listed(record, message))
  }

  private addAnswered({ finish = "unknown", how, milliseconds, startedAt, target }: CallRecord): void {
    this.answered++
    this.answers.add("answered", startedAt + milliseconds - this.startedAt)
    if (finish !== "stop") count(this.incomplete, finish)
    if (target !== this.preferred) this.answeredElsewhere++
    if (how !== "led") {
      this[how]++
      return
    }
    this.latency.add(milliseconds)
    const bucket = latencyEdges.findIndex((edge) => milliseconds <= edge)
    this.latencies[bucket] = (this.latencies[bucket] ?? 0) + 1
  }

  private addHardest(record: CallRecord, message: string): void {
    this.hardest.push(listed(record, message))
    this.hardest.sort((a, b) => b.attempts - a.attempts || b.milliseconds - a.milliseconds || a.line - b.line)
    if (this.hardest.length > limits.hardest) this.hardest.pop()
  }

  /** `isRepeated`: another call of the same line followed. */
  private addCall(call: CallLog, isRepeated: boolean): void {
    add(this.paid, call.usage)
    for (const step of call.steps) {
      if (step._tag !== "Attempt" || (step.fault !== undefined && isOwnRefusal(step.fault))) continue
      this.addAttempt(step, isRepeated && step.next === "Stop" ? "Retry" : step.next)
    }
  }

  private addAttempt(attempt: Attempt, next: Attempt["next"]): void {
    const { endedAt, fault, firstTokenAt, startedAt, target, usage } = attempt
    count(this.next, next)
    if (fault !== undefined) this.addFault(target, Failure.reasonOf(fault), next)
    const facts = this.targets.get(target)
    if (facts === undefined) return
    const ending = endingOf(attempt)
    facts.attempts++
    count(facts.endings, ending)
    facts.timeline.add(ending, endedAt - this.startedAt)
    if (firstTokenAt !== undefined) facts.firstToken.add(firstTokenAt - startedAt)
    if (ending === "answered") facts.latency.add(endedAt - startedAt)
    if (usage !== undefined) add(facts.paid, usage)
  }

  private addFault(target: string, reason: string, next: Attempt["next"]): void {
    const key = `${target} ${reason}`
    const known = this.failures.get(key) ?? { target, reason, times: 0, next: new Map() }
    known.times++
    count(known.next, next)
    this.failures.set(key, known)
  }
}

const endingOf = ({ fault, next, outcome }: Attempt): Ending => {
  if (fault === undefined) return next === "Done" ? "answered" : "other"
  return outcome === "Throttled" ? "throttled" : "failed"
}

const listed = (
  { attempts, error, id, line, milliseconds, status, target }: CallRecord,
  message: string
): Listed => ({
  line,
  message,
  ...(id === undefined ? {} : { id }),
  status,
  ...(target === undefined ? {} : { target }),
  attempts,
  milliseconds,
  ...(error === undefined ? {} : { error })
})

const count = <K>(counts: Map<K, number>, key: K): void => void counts.set(key, (counts.get(key) ?? 0) + 1)

const add = (sum: Sum, usage: CallLog["usage"]): void => {
  sum.inputTokens += usage.inputTokens
  sum.outputTokens += usage.outputTokens
  sum.estimated ||= usage.estimated
}

/** Upper bounds of the bars of the latency chart, in milliseconds. */
export const latencyEdges: ReadonlyArray<number> = [
  10,
  20,
  50,
  100,
  200,
  500,
  1_000,
  2_000,
  5_000,
  10_000,
  20_000,
  60_000,
  300_000,
  Number.POSITIVE_INFINITY
]
