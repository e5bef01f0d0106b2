/** Decides which tickets exist, and ends batches. Everything is in the tables, so another process can continue at once. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { State } from "../Batch.ts"
import * as Engine from "./engine.ts"
import * as Persist from "./persist.ts"
import { affordableOf, type Grant, type Open, plan } from "./plan.ts"
import { offer, type Queue } from "./queue.ts"
import * as Batches from "./tables/batches.ts"
import { type Db, deletedAtOnce } from "./tables/db.ts"
import * as Files from "./tables/files.ts"
import * as Items from "./tables/items.ts"
import * as Results from "./tables/results.ts"
import * as Workers from "./tables/workers.ts"
import { sizeFor } from "./ticket.ts"

export interface Options {
  readonly everyMillis: number
  /** How many requests may be outstanding. `undefined`: four for each slot of the workers that live. */
  readonly window: number | undefined
  readonly ticket: number
  /** Calls of a batch that was stopped are awaited for this long. */
  readonly graceMillis: number
}

type FeedError = Persist.PersistError

const windowPerSlot = 4

/** The rate of a batch is the mean of this time, and written this often. */
const rateMillis = { mean: 10_000, every: 2_000 }

const forgetMillis = 600_000

const endings: { readonly [state: string]: { readonly kind: "cancelled" | "expired" | "capped" } } = {
  cancelling: { kind: "cancelled" },
  expiring: { kind: "expired" },
  capping: { kind: "capped" }
}

export class Feeder {
  private readonly options: Options
  private readonly db: Db
  private readonly queue: Queue
  private readonly samples = new Map<number, Array<{ readonly at: number; readonly answered: number }>>()
  /** The next request to mark, of each batch that was stopped. */
  private readonly marked = new Map<number, number>()
  private forgotAt = 0
  private readonly warn = Persist.warn("Batches could not be fed")

  constructor(options: Options, db: Db, queue: Queue) {
    this.options = options
    this.db = db
    this.queue = queue
  }

  /** Feeds until it is interrupted. */
  get run(): Effect.Effect<never> {
    return Effect.suspend(() => this.round).pipe(
      Effect.onError(() => Effect.sync(() => this.marked.clear())),
      Effect.catch(this.warn),
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.interrupt
          : Effect.logError("Batches could not be fed because of a fault in Sluice. Trying again", cause)
      ),
      // A long batch is marked in many slices.
      Effect.andThen(
        Effect.suspend(() => this.marked.size > 0 ? Effect.yieldNow : Effect.sleep(this.options.everyMillis))
      ),
      Effect.forever,
      Effect.withTracerEnabled(false)
    )
  }

  get round(): Effect.Effect<void, FeedError> {
    return Effect.gen({ self: this }, function*() {
      yield* this.forget
      const batches = (yield* Batches.live(this.db)).toReversed()
      const live = new Set(batches.map(({ batch }) => batch))
      for (const known of [this.samples, this.marked]) {
        for (const batch of known.keys()) if (!live.has(batch)) known.delete(batch)
      }
      if (batches.length === 0) return
      const workers = yield* Workers.live(this.db)
      const feeding: Array<Batches.Row> = []
      for (const batch of batches) {
        yield* this.measure(batch)
        if (!(yield* this.close(batch, workers))) feeding.push(batch)
      }
      yield* this.feed(feeding, workers)
    })
  }

  /** Ends what has ended, and stops what has to. Returns whether the batch gets no tickets. */
  private close(batch: Batches.Row, workers: ReadonlyArray<Workers.LiveWorker>): Effect.Effect<boolean, SqlError> {
    const { db } = this
    // A feeder that was frozen must not end a retry.
    const move = (to: State) => Batches.move(db, batch.batch, [batch.state], to, { run: batch.run })
    return Effect.gen({ self: this }, function*() {
      // Its submitter is away, or too slow.
      if (batch.state === "validating") {
        yield* move("expired")
        return true
      }
      if (Batches.answeredOf(batch) >= batch.total) {
        const ending = endings[batch.state]
        // A batch that expired with its last answer is complete.
        const isWhole = ending === undefined || (batch.marked === 0 && batch.state !== "cancelling")
        yield* move(isWhole ? "completed" : ending.kind)
        return true
      }
      if (batch.state === "in_progress") {
        const to = stopOf(batch)
        if (to === undefined) return false
        yield* move(to)
        return true
      }
      if (yield* this.mayMark(batch, workers)) {
        const kind = endings[batch.state]?.kind ?? "cancelled"
        const next = yield* Results.mark(db, batch, kind, {
          from: this.marked.get(batch.batch) ?? 0,
          limit: Results.markedAtOnce(db)
        })
        if (next === 0) this.marked.delete(batch.batch)
        else this.marked.set(batch.batch, next)
      }
      return true
    })
  }

  /** Requests are marked when no worker asks them any more: answers that are on their way stay in the results. */
  private mayMark(batch: Batches.Row, workers: ReadonlyArray<Workers.LiveWorker>): Effect.Effect<boolean, SqlError> {
    const { stoppingAt = 0 } = batch
    // The clock of the database may have been set back, even by hours.
    if (Math.abs(batch.now - stoppingAt) >= this.options.graceMillis) return Effect.succeed(true)
    // A worker whose last beat is older may not know yet that the batch was stopped.
    if (workers.some(({ beatAt }) => beatAt <= stoppingAt)) return Effect.succeed(false)
    return Effect.map(
      Workers.heldOf(this.db, batch.batch),
      (held) => workers.every(({ worker }) => (held.get(worker) ?? 0) === 0)
    )
  }

  private feed(
    batches: ReadonlyArray<Batches.Row>,
    workers: ReadonlyArray<Workers.LiveWorker>
  ): Effect.Effect<void, FeedError> {
    const window = this.options.window ?? windowPerSlot * workers.reduce((sum, { slots }) => sum + slots, 0)
    const grants = plan(batches.map((batch) => openOf(batch, this.options.ticket)), window)
    return Effect.forEach(
      Map.groupBy(grants, ({ batch }) => batch),
      ([number, grants]) => {
        const batch = batches.find(({ batch }) => batch === number)
        return batch === undefined ? Effect.void : this.offer(batch, grants)
      },
      { discard: true }
    )
  }

  /** Offers tickets, and records it in the same transaction. A feeder that was frozen finds other numbers, and offers nothing. */
  private offer(batch: Batches.Row, grants: ReadonlyArray<Grant>): Effect.Effect<void, FeedError> {
    const { db } = this
    return db.sql.withTransaction(Effect.gen({ self: this }, function*() {
      const tickets = batch.run === 0
        ? grants.map(({ from, to }) => ({ from, to, size: to - from }))
        : yield* this.missing(batch, grants)
      const last = tickets.at(-1)
      const fed = last === undefined ? batch.total : last.to
      const handed = batch.handed + tickets.reduce((sum, { size }) => sum + size, 0)
      if (!(yield* Batches.feed(db, { batch: batch.batch, run: batch.run, before: batch.fed, fed, handed }))) return
      yield* Effect.forEach(
        tickets,
        ({ from, to }) => offer(this.queue, { batch: batch.batch, run: batch.run, from, to, round: 0 }),
        { discard: true }
      )
    }))
  }

  /** In a retry, the requests without a result are scattered. */
  private missing(batch: Batches.Row, grants: ReadonlyArray<Grant>) {
    return Effect.gen({ self: this }, function*() {
      const limit = grants.reduce((sum, { from, to }) => sum + to - from, 0)
      const seqs = yield* Items.next(this.db, { ...batch, from: batch.fed, limit })
      const tickets: Array<{ readonly from: number; readonly to: number; readonly size: number }> = []
      const size = sizeFor(batch, this.options.ticket)
      for (let start = 0; start < seqs.length; start += size) {
        const part = seqs.slice(start, start + size)
        tickets.push({ from: part[0] ?? 0, to: (part.at(-1) ?? 0) + 1, size: part.length })
      }
      return tickets
    })
  }

  private measure(batch: Batches.Row): Effect.Effect<unknown, SqlError> {
    const answered = Batches.answeredOf(batch)
    const samples = this.samples.get(batch.batch) ?? []
    this.samples.set(batch.batch, samples)
    const last = samples.at(-1)
    if (last !== undefined && batch.now - last.at < rateMillis.every) return Effect.void
    samples.push({ at: batch.now, answered })
    while (samples.length > 2 && batch.now - (samples[0]?.at ?? 0) > rateMillis.mean) samples.shift()
    const first = samples[0]
    if (first === undefined || first.at === batch.now) return Effect.void
    return Batches.setRate(
      this.db,
      batch.batch,
      Math.max(0, (answered - first.answered) * 1_000 / (batch.now - first.at))
    )
  }

  private get forget(): Effect.Effect<unknown, SqlError> {
    return Effect.flatMap(Clock.currentTimeMillis, (now) => {
      if (now - this.forgotAt < forgetMillis) return Effect.void
      this.forgotAt = now
      return Workers.forgetDead(this.db).pipe(
        Effect.andThen(Engine.forgetDead(this.db)),
        Effect.andThen(Files.expired(this.db)),
        Effect.flatMap(Effect.forEach((file) => Files.remove(this.db, file, deletedAtOnce), { discard: true }))
      )
    })
  }
}

/** What stops a batch that is in progress: its time or its money. */
const stopOf = (batch: Batches.Row): State | undefined => {
  if (batch.expiresAt !== undefined && batch.expiresAt <= batch.now) return "expiring"
  // Requests that are outstanding would be asked again, also after attempts that failed and were charged.
  if (Batches.isSpent(batch)) return "capping"
  const outstanding = outstandingOf(batch)
  const affordable = affordableOf(batch, outstanding)
  return affordable <= 0 && outstanding <= 0 && batch.fed < batch.total ? "capping" : undefined
}

const outstandingOf = (batch: Batches.Row): number => batch.handed - (Batches.answeredOf(batch) - batch.base)

const openOf = (batch: Batches.Row, ticket: number): Open => {
  const outstanding = outstandingOf(batch)
  return {
    batch: batch.batch,
    priority: batch.priority,
    weight: batch.weight,
    total: batch.total,
    size: sizeFor(batch, ticket),
    fed: batch.fed,
    outstanding,
    affordable: affordableOf(batch, outstanding)
  }
}
