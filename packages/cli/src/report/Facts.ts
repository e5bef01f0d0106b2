/** Everything that a report tells, counted while the run goes, in bounded memory. */
import type { Attempt, CallLog } from "@sluice/ai/CallLog"
import type { CallRecord } from "../run/CallRecord.ts"
import type { Change } from "../run/Circuits.ts"
import * as Failure from "../run/Failure.ts"
import { Histogram } from "../run/Histogram.ts"
import { Bins } from "./Bins.ts"

/** How a try ended, as the page shows it. */
export type Ending = "answered" | "throttled" | "failed" | "other"

export interface Sum {
  inputTokens: number
  outputTokens: number
  estimated: boolean
}

/** How many failed prompts are listed, of the hardest ones, and how many changes of a circuit are kept. */
export const most = { failed: 200, hardest: 20, changes: 5_000 }

/** One target, over the whole run. */
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
  /** Times are milliseconds from the beginning. */
  readonly circuit: Array<{ readonly at: number; readonly isOpen: boolean }> = []
  changesLeftOut = 0
  openings = 0

  constructor(fields: Pick<TargetFacts, "name" | "model" | "host">) {
    this.name = fields.name
    this.model = fields.model
    this.host = fields.host
  }
}

/** A prompt, as it is listed. */
export type Listed = Pick<CallRecord, "line" | "id" | "status" | "target" | "attempts" | "milliseconds" | "error">

/** Tries that failed at one target for one reason. */
export interface FailureFacts {
  readonly target: string
  readonly reason: string
  times: number
  /** What followed. */
  readonly next: Map<Attempt["next"], number>
}

export class Facts {
  readonly startedAt: number
  readonly targets: ReadonlyMap<string, TargetFacts>
  endedAt: number
  answered = 0
  failed = 0
  joined = 0
  cached = 0
  requests = 0
  readonly next = new Map<Attempt["next"], number>()
  /** Prompts whose answer came from another target than the first. */
  answeredElsewhere = 0
  /** Answers that are not whole, by what ended them. */
  readonly unfinished = new Map<string, number>()
  readonly paid: Sum = { inputTokens: 0, outputTokens: 0, estimated: false }
  /** From a prompt's turn to its answer, of those that made a call of their own. */
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

  /** A prompt is over. */
  add(record: CallRecord): void {
    this.endedAt = Math.max(this.endedAt, record.startedAt + record.milliseconds)
    if (record.status === "failed") this.addFailed(record)
    else this.addAnswered(record)
    if (record.attempts > 1) this.addHardest(record)
    for (const call of record.calls) this.addCall(call)
  }

  /** A circuit has changed. */
  changed({ at, circuit, target }: Change): void {
    const facts = this.targets.get(target)
    if (facts === undefined) return
    const isOpen = circuit.state === "open"
    const wasOpen = facts.circuit.at(-1)?.isOpen ?? false
    if (isOpen && !wasOpen) facts.openings++
    if (isOpen === wasOpen) return
    if (facts.circuit.length < most.changes) facts.circuit.push({ at: at - this.startedAt, isOpen })
    else facts.changesLeftOut++
  }

  private addFailed(record: CallRecord): void {
    this.failed++
    if (this.failedPrompts.length < most.failed) this.failedPrompts.push(listed(record))
  }

  private addAnswered({ finish = "unknown", how, milliseconds, target }: CallRecord): void {
    this.answered++
    if (finish !== "stop") count(this.unfinished, finish)
    if (target !== this.preferred) this.answeredElsewhere++
    if (how !== "led") {
      this[how]++
      return
    }
    this.latency.add(milliseconds)
    const bucket = latencyEdges.findIndex((edge) => milliseconds <= edge)
    this.latencies[bucket] = (this.latencies[bucket] ?? 0) + 1
  }

  private addHardest(record: CallRecord): void {
    this.hardest.push(listed(record))
    this.hardest.sort((a, b) => b.attempts - a.attempts || b.milliseconds - a.milliseconds || a.line - b.line)
    if (this.hardest.length > most.hardest) this.hardest.pop()
  }

  private addCall(call: CallLog): void {
    add(this.paid, call.usage)
    for (const step of call.steps) if (step._tag === "Attempt") this.addAttempt(step)
  }

  private addAttempt(attempt: Attempt): void {
    const { endedAt, fault, firstTokenAt, next, startedAt, target, usage } = attempt
    this.requests++
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

const listed = ({ attempts, error, id, line, milliseconds, status, target }: CallRecord): Listed => ({
  line,
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

/** The upper ends of the bars of the latency chart, in milliseconds. */
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
