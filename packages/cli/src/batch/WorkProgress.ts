/** The progress of `sluice batch work`, from the counts of this process. */
import type { Answer, Asker, AskLater } from "@sluice/batch/Asker"
import * as Batch from "@sluice/batch/Batch"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Prices from "../run/Prices.ts"
import * as Progress from "../run/Progress.ts"
import * as Words from "../run/Words.ts"
import type { Change } from "../serve/Reloads.ts"
import * as Terminal from "../Terminal.ts"
import * as Table from "./Table.ts"

/** The state of a worker at one moment. The counts are those of this process since its start. */
export interface View {
  /** Epoch milliseconds. */
  readonly now: number
  readonly answered: number
  readonly failed: number
  readonly inFlight: number
  /** Requests answered or failed per second over the last ten seconds. */
  readonly rate: number
  /** In millionths of a dollar. 0 if no price is known. */
  readonly micros: number
  /** Batches that have not ended, of all workers. `undefined` until they are read. */
  readonly batches: number | undefined
  /** Why no call can be made. */
  readonly waiting: Batch.Waiting | undefined
  /** Why the last request was put off. */
  readonly later: Batch.Waiting | undefined
  /** Targets that are down. */
  readonly open: ReadonlyArray<{ readonly target: string; readonly probeAt: number }>
  readonly isStopping: boolean
}

/** Renders the progress line of a worker, clipped to the width. */
export const render = (view: View, columns: number): string => {
  const { answered, batches, failed, inFlight, micros, rate } = view
  const parts = [
    // First, because a narrow terminal clips the end.
    ...statesOf(view),
    `${Words.count(answered)} answered`,
    ...(failed === 0 ? [] : [`${Words.count(failed)} failed`]),
    ...(rate === 0 ? [] : [Progress.rateText(rate)]),
    ...(inFlight === 0 ? [] : [`${Words.count(inFlight)} in flight`]),
    ...(micros === 0 ? [] : [Prices.shown(micros)]),
    ...(batches === undefined || batches === 0 ? [] : [Words.plural(batches, "batch", "batches")])
  ]
  return Terminal.clip(parts.join(" · "), columns)
}

/** Why the worker sends nothing, or which of its targets are down. */
const statesOf = (
  { batches, inFlight, isStopping, later, now, open, waiting }: View
): ReadonlyArray<string> => {
  if (isStopping) return ["stopping"]
  if (waiting !== undefined) return [Table.waitsOf(waiting, now)]
  // Another target answers, so each is named.
  if (open.length > 0) return Progress.circuitTexts({ now, open, targets: Number.POSITIVE_INFINITY })
  if (inFlight > 0) return []
  if (later?.until !== undefined && later.until > now) return [Table.waitsOf(later, now)]
  return batches === 0 ? ["no batch to work on"] : []
}

export interface Totals {
  readonly answered: number
  readonly failed: number
  readonly micros: number
  /** Requests that were being asked at the stop and got no answer. Another worker asks them. */
  readonly givenBack: number
  readonly millis: number
}

/** Renders the line at the end. */
export const summary = ({ answered, failed, givenBack, micros, millis }: Totals): string =>
  [
    `${Words.count(answered)} answered`,
    `${Words.count(failed)} failed`,
    ...(micros === 0 ? [] : [Prices.shown(micros)]),
    ...(givenBack === 0 ? [] : [`${Words.plural(givenBack, "request")} in flight given back`])
  ].join(", ") + ` in ${Words.time(millis)}.`

/** The view as fields of a log line. */
export const fieldsOf = (view: View) => {
  const { answered, batches, failed, inFlight, micros, rate } = view
  return {
    answered,
    failed,
    perSecond: Number(rate.toFixed(1)),
    inFlight,
    costDollars: micros === 0 ? undefined : micros / 1e6,
    batches,
    state: statesOf(view).join(", ") || undefined
  }
}

/** The largest number of batches whose begin and end are told at a time. */
const maxSeen = 1_000

/** How long a probe is shown. Without calls, or after a reload without its target, a circuit stays half-open. */
const probingMillis = 10_000

/** How often the reason of requests that are put off is told. */
const putOffMillis = 10_000

/** As the worker waits if the asker does not say how long. */
const defaultRetryAfter = Duration.seconds(1)

/** Counts the requests of this process. */
export class WorkProgress {
  private answered = 0
  private failed = 0
  private micros = 0
  private givenBack = 0
  private inFlight = 0
  private batches: number | undefined
  private waiting: Batch.Waiting | undefined
  private later: Batch.Waiting | undefined
  private isStopping = false
  private readonly open = new Map<string, number>()
  /** Batches of which this process has asked a request, and that have not ended. */
  private readonly seen = new Set<string>()
  private readonly startedAt: number
  private readonly pace: Progress.Pace
  private readonly now: () => number
  private readonly onBatch: (id: string) => void
  private readonly onPutOff: (batch: string, reason: string) => void
  private toldAt = Number.NEGATIVE_INFINITY

  constructor(
    now: () => number,
    { onBatch, onPutOff }: {
      /** This process asks its first request of a batch. */
      readonly onBatch: (id: string) => void
      /** A request could not be answered yet, such as with a wrong key. Not for each: the first, and at most one in ten seconds. */
      readonly onPutOff: (batch: string, reason: string) => void
    }
  ) {
    this.now = now
    this.onBatch = onBatch
    this.onPutOff = onPutOff
    this.startedAt = now()
    this.pace = new Progress.Pace(this.startedAt)
  }

  /** Counts what the asker is asked. */
  watch(asker: Asker["Service"]): Asker["Service"] {
    return {
      ...asker,
      ask: (asked) =>
        Effect.suspend(() => {
          this.began(asked.batch)
          return Effect.onExit(asker.ask(asked), (exit) => Effect.sync(() => this.ended(asked.batch, exit)))
        }),
      waiting: Effect.map(asker.waiting, (waiting) => this.waiting = waiting)
    }
  }

  circuitChanged({ openMillis = 0, target, to }: Change): void {
    if (to === "Open" || to === "HalfOpen") this.open.set(target, this.now() + openMillis)
    else this.open.delete(target)
  }

  /** Takes what a read of the batches returned. Returns those that this process worked on and that have ended. */
  listed(statuses: ReadonlyArray<Batch.Status>): ReadonlyArray<Batch.Status> {
    this.batches = statuses.filter(({ state }) => state !== "validating" && !Batch.isEnded(state)).length
    const ended = statuses.filter(({ id, state }) => Batch.isEnded(state) && this.seen.has(id))
    for (const { id } of ended) this.seen.delete(id)
    return ended
  }

  stop(): void {
    this.isStopping = true
  }

  view(now: number): View {
    const { answered, batches, failed, inFlight, isStopping, later, micros, waiting } = this
    return {
      now,
      answered,
      failed,
      inFlight,
      rate: this.pace.rate(now, answered + failed),
      micros,
      batches,
      waiting,
      later,
      open: [...this.open]
        .filter(([, probeAt]) => now - probeAt < probingMillis)
        .map(([target, probeAt]) => ({ target, probeAt })),
      isStopping
    }
  }

  totals(now: number): Totals {
    const { answered, failed, givenBack, micros } = this
    return { answered, failed, micros, givenBack, millis: now - this.startedAt }
  }

  private began(batch: string): void {
    this.inFlight++
    if (this.seen.has(batch)) return
    this.seen.add(batch)
    const [oldest] = this.seen
    if (this.seen.size > maxSeen && oldest !== undefined) this.seen.delete(oldest)
    this.onBatch(batch)
  }

  private ended(batch: string, exit: Exit.Exit<Answer, AskLater>): void {
    this.inFlight--
    if (Exit.isSuccess(exit)) {
      this.micros += exit.value.micros
      if (exit.value.kind === "ok") this.answered++
      else this.failed++
      return
    }
    if (this.isStopping) this.givenBack++
    const later = Cause.findErrorOption(exit.cause)
    if (later._tag === "None") return
    const { micros = 0, reason, retryAfter = defaultRetryAfter } = later.value
    this.micros += micros
    const now = this.now()
    this.later = { for: reason, until: now + Duration.toMillis(retryAfter) }
    if (this.isStopping || now - this.toldAt < putOffMillis) return
    this.toldAt = now
    this.onPutOff(batch, reason)
  }
}
