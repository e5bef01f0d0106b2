/** Works on one ticket: reads what has no answer, asks it, stores the results, and puts back what has to wait. */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { SqlError } from "effect/sql/SqlError"
import type { Answer, Asker, AskLater } from "../../Asker.ts"
import type { Persist } from "../persist.ts"
import { offer, type Queue } from "../queue.ts"
import * as Batches from "../tables/batches.ts"
import type { Db } from "../tables/db.ts"
import * as Items from "../tables/items.ts"
import type { NewResult } from "../tables/results.ts"
import * as Results from "../tables/results.ts"
import * as Workers from "../tables/workers.ts"
import { idOf, type Ticket } from "../ticket.ts"
import * as Writer from "../writer.ts"
import type { Gate } from "./gate.ts"
import type { Held, HeldRun } from "./held.ts"

/** The attempt at which a ticket is suspected to kill its workers. */
const suspectAttempt = 3

/** A suspected request is asked this often at most. */
const maxAsked = 2

/** The least time for which a ticket is put back. The engine counts in whole seconds. */
const minDelayMillis = 1_000
const maxDelayMillis = 300_000

/** How long the calls that an asker gives up may take to end. */
const stopMillis = 100

/** How long a request waits that was refused without a call. A random time: one of many that wait then finds a permit soon. */
const refusedMillis = { least: 100, most: 1_000 }

interface Context {
  readonly asker: Asker["Service"]
  readonly db: Db
  readonly gate: Gate
  readonly held: Held
  readonly now: () => number
  readonly persist: Persist
  readonly queue: Queue
  readonly writer: Writer.Writer<NewResult>
}

/** Says which requests are being asked, for providers that must not be asked twice. */
interface Journal {
  readonly begun: Writer.Writer<Workers.Place>
  readonly ended: Writer.Writer<Workers.Place>
}

interface Options {
  readonly name: string
  readonly inFlight: number
  readonly maxRounds: number
  readonly onLost: "ask-again" | "fail"
}

/** How a ticket came to this worker. */
interface Delivery {
  readonly attempts: number
  /** The lapses of leases before the ticket was claimed. */
  readonly lapses: number
}

/** The requests of one ticket that have to be asked. */
interface Work {
  readonly batch: Batches.Row
  readonly held: HeldRun
  readonly ticket: Ticket
  /** It may hold a request that kills its workers. */
  readonly isSuspect: boolean
  readonly lapses: number
  /** Requests without a result, in order. */
  readonly open: Set<number>
  /** Those of `open` that are being asked, or whose answer is being stored. */
  readonly running: Set<number>
  /** Those that are in tickets of their own by now. */
  readonly given: Set<number>
  /** Requests that are put back. */
  readonly later: Array<{ readonly item: Items.Item; readonly why: AskLater }>
}

export class TicketHandler {
  private readonly slots: Semaphore.Semaphore
  /** One suspected ticket at a time: if it kills the process, it takes no other suspect with it. */
  private readonly quarantine = Semaphore.makeUnsafe(1)
  private readonly running = new Map<string, Deferred.Deferred<void>>()
  private readonly options: Options
  private readonly context: Context
  private journal: Journal | undefined

  constructor(options: Options, context: Context) {
    this.options = options
    this.context = context
    this.slots = Semaphore.makeUnsafe(options.inFlight)
  }

  /** Starts what lives as long as the worker. */
  get start(): Effect.Effect<void, never, Scope.Scope> {
    if (this.options.onLost === "ask-again") return Effect.void
    const { db, persist } = this.context
    const writer = (store: (rows: ReadonlyArray<Workers.Place>) => Effect.Effect<unknown, SqlError>) =>
      Writer.make({ store, bytesOf: () => 0, persist })
    return Effect.gen({ self: this }, function*() {
      this.journal = {
        begun: yield* writer((rows) => Workers.suspect(db, rows)),
        ended: yield* writer((rows) => Workers.clear(db, rows))
      }
    })
  }

  /** Ends when every request of the ticket has a result, was put back, or belongs to a batch that stopped. */
  handle(ticket: Ticket, delivery: Delivery): Effect.Effect<void> {
    return Effect.suspend(() => {
      const id = idOf(ticket)
      const same = this.running.get(id)
      // The lease lapsed and the queue delivered the ticket again, to this process. What it still lacks then is asked here.
      if (same !== undefined) return Effect.andThen(Deferred.await(same), this.handle(ticket, delivery))
      const done = Deferred.makeUnsafe<void>()
      this.running.set(id, done)
      const held = this.context.held.take(ticket.batch, ticket.run, ticket.to - ticket.from)
      const progress = { left: ticket.to - ticket.from }
      return this.work(ticket, delivery, held, progress).pipe(
        Effect.ensuring(Effect.sync(() => {
          this.running.delete(id)
          this.context.held.release(held, progress.left)
          Deferred.doneUnsafe(done, Effect.void)
        }))
      )
    })
  }

  private work(
    ticket: Ticket,
    { attempts, lapses }: Delivery,
    held: HeldRun,
    progress: { left: number }
  ): Effect.Effect<void> {
    const { context } = this
    return Effect.gen({ self: this }, function*() {
      const [batch] = yield* context.persist(
        Batches.select(context.db, context.db.sql`where b.batch = ${ticket.batch}`)
      )
      if (batch === undefined || batch.state !== "in_progress" || batch.run !== ticket.run) return
      // The feeder is about to end it.
      if (Batches.isSpent(batch)) return
      held.micros = batch.micros
      const open = yield* context.persist(Items.open(context.db, { ...ticket, items: batch.items }))
      const isSuspect = attempts >= suspectAttempt
      // Also in the first attempt: a worker that is stopped gives its tickets back uncounted.
      const lost = this.options.onLost === "fail"
        ? yield* context.persist(Workers.suspects(context.db, ticket))
        : none
      context.held.add(held, open.length - progress.left)
      progress.left = open.length
      const work: Work = {
        batch,
        held,
        ticket,
        isSuspect,
        lapses,
        open: new Set(open.map(({ seq }) => seq)),
        running: new Set(),
        given: new Set(),
        later: []
      }
      const ended = () => {
        progress.left -= 1
        context.held.add(held, -1)
      }
      const one = (item: Items.Item) =>
        lost.has(item.seq) ? this.lost(work, item) : isSuspect ? this.askSuspect(work, item) : this.ask(work, item)
      const calls = new Calls(this.slots, held, ended)
      const all = Effect.forEach(open, (item) => calls.begin(one(item), isSuspect), { discard: true }).pipe(
        Effect.raceFirst(held.over.await),
        Effect.andThen(
          Effect.suspend(() => held.isLeft ? this.giveBackUnasked(work, attempts) : Effect.succeed(false))
        ),
        Effect.tap(calls.end),
        Effect.onInterrupt(() => calls.interrupt)
      )
      const isDivided = yield* isSuspect ? this.quarantine.withPermit(all) : all
      // The rest is in tickets of its own, so this one must not come again.
      if (isDivided) return yield* this.giveBack(work, Array.from(work.open))
      // Other workers may ask what was not begun. If none does, the queue delivers the ticket again.
      if (lapses !== context.held.lapses(context.now())) return yield* Effect.interrupt
      yield* this.putBack(work)
      // The ticket goes back to the queue with what was not asked.
      if (held.isLeft && work.open.size > 0) return yield* Effect.interrupt
    })
  }

  /**
   * The worker stops while calls of the ticket run: offers its other requests as tickets of their own, so that another worker asks them
   * now. Returns whether it did.
   */
  private giveBackUnasked(work: Work, attempts: number): Effect.Effect<boolean> {
    // The tries of a suspected request are counted by those of its ticket. And if this process is killed before its calls end, the whole
    // ticket comes again: with `fail`, what another worker asks would then count as lost.
    if (attempts > 1 || this.options.onLost === "fail") return Effect.succeed(false)
    // Calls that the asker gives up end first.
    return Effect.andThen(
      Effect.sleep(stopMillis),
      Effect.suspend(() => {
        const unasked = Array.from(work.open).filter((seq) => !work.running.has(seq))
        if (unasked.length === 0 || work.running.size === 0) return Effect.succeed(false)
        return Effect.as(this.giveBack(work, unasked), true)
      })
    )
  }

  /** Offers requests as tickets of their own, which have none that is running or in another ticket. */
  private giveBack({ given, open, running, ticket }: Work, seqs: ReadonlyArray<number>): Effect.Effect<void> {
    const { context, options: { name } } = this
    return Effect.suspend(() => {
      const ranges = rangesOf(seqs, new Set([...running, ...given]))
      for (const seq of seqs) {
        open.delete(seq)
        given.add(seq)
      }
      return context.persist(Effect.forEach(
        ranges,
        // The worker's name: a ticket of these requests may have been offered before.
        ({ from, to }) => offer(context.queue, { ...ticket, from, to }, { by: name }),
        { discard: true }
      ))
    })
  }

  private ask(work: Work, item: Items.Item): Effect.Effect<void> {
    const { held, now } = this.context
    const mayStart = () => !work.held.isStopped && work.lapses === held.lapses(now())
    const begin = this.begin(work, item)
    const call: Effect.Effect<void> = Effect.suspend(() => {
      if (!mayStart()) return work.isSuspect ? this.clear(work, item) : Effect.void
      if (begin === undefined) return this.call(work, item, call)
      return Effect.andThen(
        begin,
        Effect.suspend(() => mayStart() ? this.call(work, item, call) : this.clear(work, item))
      )
    })
    return Effect.andThen(this.pass(work.held), call)
  }

  /** Writes down that a request is asked before it is, if it may not be asked twice. A suspected one is written down already. */
  private begin({ batch, isSuspect }: Work, { seq }: Items.Item): Effect.Effect<void> | undefined {
    return isSuspect ? undefined : this.journal?.begun.write({ batch: batch.batch, seq })
  }

  /** Takes back that a request was asked: it was not, or its call ended without an answer. */
  private clear({ batch, isSuspect }: Work, { seq }: Items.Item): Effect.Effect<void> {
    const { db, persist } = this.context
    const place = { batch: batch.batch, seq }
    if (this.journal !== undefined) return this.journal.ended.write(place)
    return isSuspect ? persist(Effect.asVoid(Workers.clear(db, [place]))) : Effect.void
  }

  /** Waits for the gate, but not once the batch or the worker stops. */
  private pass(held: HeldRun): Effect.Effect<void> {
    const { gate } = this.context
    return Effect.suspend(() =>
      gate.waiting() === undefined ? Effect.void : Effect.raceFirst(gate.pass, held.over.await)
    )
  }

  /** `again` is used if the call was refused before it was made. */
  private call(
    work: Work,
    item: Items.Item,
    again: Effect.Effect<void>
  ): Effect.Effect<void> {
    const { context } = this
    const asked = context.asker.ask({
      batch: work.batch.id,
      owner: work.batch.owner,
      endpoint: work.batch.endpoint,
      key: item.key ?? String(item.seq),
      body: item.request,
      idempotencyKey: idempotencyKeyOf(work.batch, item),
      hasBudget: work.batch.capMicros !== undefined
    })
    // An answer was paid, so it is stored even if the worker is stopped meanwhile.
    return Effect.uninterruptibleMask((restore) => {
      work.running.add(item.seq)
      return Effect.flatMap(Effect.exit(restore(asked)), (exit): Effect.Effect<void> => {
        if (Exit.isSuccess(exit)) {
          return isAnswer(exit.value)
            ? this.store(work, item, exit.value.body.length > maxAnswerLength ? tooLarge(exit.value) : exit.value)
            : this.fault(work, item, "The asker of a batch returned an invalid answer")
        }
        work.running.delete(item.seq)
        if (Cause.hasInterruptsOnly(exit.cause)) return Effect.interrupt
        const later = Cause.findErrorOption(exit.cause)
        if (later._tag === "None") return this.fault(work, item, "The asker of a batch failed unexpectedly", exit.cause)
        if (!later.value.isCall) {
          const wait = Effect.flatMap(Random.next, (random) => Effect.sleep(refusedFor(later.value, random))).pipe(
            Effect.raceFirst(work.held.over.await),
            Effect.andThen(this.pass(work.held)),
            Effect.andThen(again)
          )
          // While it waits, it is not asked. A suspected one is counted once.
          return restore(work.isSuspect ? wait : Effect.andThen(this.clear(work, item), wait))
        }
        work.later.push({ item, why: later.value })
        const { micros = 0 } = later.value
        const spent = micros === 0
          ? Effect.void
          : context.persist(Results.spend(context.db, this.options.name, work.batch.batch, micros))
        return spent.pipe(Effect.andThen(this.clear(work, item)), Effect.andThen(this.charged(work, micros)))
      })
    })
  }

  private fault(work: Work, item: Items.Item, ...message: ReadonlyArray<unknown>): Effect.Effect<void> {
    return Effect.andThen(
      Effect.logError(...message),
      this.store(work, item, failure("internal_error", "The request could not be asked because of a fault in Sluice"))
    )
  }

  private store(work: Work, { seq }: Items.Item, answer: Answer | Failed): Effect.Effect<void> {
    return Effect.flatMap(this.context.writer.write({ ...answer, batch: work.batch.batch, seq }), () => {
      work.open.delete(seq)
      work.running.delete(seq)
      return this.charged(work, answer.micros)
    })
  }

  /**
   * A cost was stored. If the budget may be spent, reads whether it is, before the slot begins another call. The costs of other
   * workers are read with each beat.
   */
  private charged({ batch: { batch, capMicros }, held }: Work, micros: number): Effect.Effect<void> {
    const { context } = this
    if (capMicros === undefined || micros === 0) return Effect.void
    held.micros += micros
    if (held.micros < capMicros || held.isStopped) return Effect.void
    return Effect.map(context.persist(Workers.statesOf(context.db, [batch])), (states) => context.held.apply(states))
  }

  private lost(work: Work, item: Items.Item): Effect.Effect<void> {
    return this.store(work, item, {
      ...failure(
        "worker_lost",
        "The process that asked it died. It is not asked again, since its answer may have been paid"
      ),
      kind: "worker_lost"
    })
  }

  /** Writes down that a request is asked before it is: its next worker then knows whether it killed this one. */
  private askSuspect(work: Work, item: Items.Item): Effect.Effect<void> {
    const { context } = this
    return Effect.suspend(() =>
      work.held.isStopped ? Effect.succeed([0]) : context.persist(
        Workers.suspect(context.db, [{ batch: work.batch.batch, seq: item.seq }])
      )
    ).pipe(
      Effect.flatMap(([asked = 0]) =>
        asked > maxAsked
          ? this.store(work, item, {
            ...failure("worker_lost", `Processes died ${asked - 1} times while they asked it`),
            kind: "worker_lost"
          })
          : this.ask(work, item)
      )
    )
  }

  private putBack({ batch, held, later, ticket }: Work): Effect.Effect<void> {
    const { context } = this
    return Effect.suspend(() => {
      if (later.length === 0 || held.isStopped) return Effect.void
      if (ticket.round + 1 >= this.options.maxRounds) {
        return Effect.forEach(later, ({ item, why }) =>
          context.writer.write({
            ...failure("rounds_exhausted", `Given up after ${ticket.round + 1} rounds: ${why.reason}`),
            kind: "rounds_exhausted",
            batch: batch.batch,
            seq: item.seq
          }), { concurrency: "unbounded", discard: true })
      }
      const delay = Math.max(minDelayMillis, ...later.map(({ why }) => millisOf(why)))
      return context.persist(
        offer(context.queue, { ...ticket, round: ticket.round + 1 }, { delayMillis: Math.min(maxDelayMillis, delay) })
      )
    })
  }
}

/** A request that was lost with its process has the key that it had. After a retry of failures, all requests have new ones. */
const idempotencyKeyOf = ({ id, keyRun }: Batches.Row, { seq }: Items.Item): string =>
  keyRun === 0 ? `${id}/${seq}` : `${id}/${seq}/${keyRun}`

/** The writer stores answers in groups, and one of another form would stop it for all. */
const isAnswer = Schema.is(Schema.Struct({
  kind: Schema.Literals(["ok", "failed"]),
  body: Schema.String,
  inputTokens: Schema.Number,
  outputTokens: Schema.Number,
  micros: Schema.Number
}))

/** The text of a statement has up to six characters for each, and no text has more than 2^29. */
const maxAnswerLength = 2 ** 26

/** The answer was paid for. */
const tooLarge = ({ inputTokens, micros, outputTokens }: Answer): Answer => ({
  ...failure("answer_too_large", "The answer is larger than 64 MiB"),
  kind: "failed",
  inputTokens,
  outputTokens,
  micros
})

/** The calls of one ticket. */
class Calls {
  private readonly slots: Semaphore.Semaphore
  private readonly held: HeldRun
  private readonly ended: () => void
  private readonly fibers = new Set<Fiber.Fiber<void>>()
  private readonly idle = Latch.makeUnsafe(true)
  private defect: Cause.Cause<never> | undefined

  constructor(slots: Semaphore.Semaphore, held: HeldRun, ended: () => void) {
    this.slots = slots
    this.held = held
    this.ended = ended
  }

  /** Begins a call when there is a slot. Waits for its end if it is the only one that may run. */
  begin(call: Effect.Effect<void>, isAlone: boolean): Effect.Effect<void> {
    const freed = Effect.ensuring(Effect.interruptible(call), this.slots.release(1))
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        restore(this.slots.take(1)),
        () =>
          Effect.flatMap(Effect.forkDetach(freed, { startImmediately: true }), (fiber) => {
            this.idle.closeUnsafe()
            this.fibers.add(fiber)
            this.held.began(fiber)
            fiber.addObserver((exit) => this.onEnd(fiber, exit))
            return isAlone ? restore(Effect.asVoid(Fiber.await(fiber))) : Effect.void
          })
      )
    )
  }

  private onEnd(fiber: Fiber.Fiber<void>, exit: Exit.Exit<void>): void {
    this.fibers.delete(fiber)
    this.ended()
    if (Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)) this.defect = exit.cause
    if (this.fibers.size === 0) this.idle.openUnsafe()
  }

  get interrupt(): Effect.Effect<void> {
    return Effect.suspend(() => Fiber.interruptAll(this.fibers))
  }

  /** Waits until all calls have ended. */
  get end(): Effect.Effect<void> {
    return Effect.andThen(
      this.idle.await,
      Effect.suspend(() => this.defect === undefined ? Effect.void : Effect.failCause(this.defect))
    )
  }
}

/** The fewest ranges that have all of `seqs` and none of `without`. */
export const rangesOf = (
  seqs: ReadonlyArray<number>,
  without: ReadonlySet<number>
): ReadonlyArray<{ readonly from: number; readonly to: number }> => {
  const ranges: Array<{ readonly from: number; to: number }> = []
  const borders = Array.from(without).sort((one, other) => one - other)
  for (const seq of seqs.toSorted((one, other) => one - other)) {
    const last = ranges.at(-1)
    if (last !== undefined && !borders.some((border) => last.to <= border && border < seq)) last.to = seq + 1
    else ranges.push({ from: seq, to: seq + 1 })
  }
  return ranges
}

const none: ReadonlySet<number> = new Set()

interface Failed extends Omit<Answer, "kind"> {
  readonly kind: NewResult["kind"]
}

const failure = (code: string, message: string): Failed => ({
  kind: "failed",
  body: JSON.stringify({ error: { code, message } }),
  inputTokens: 0,
  outputTokens: 0,
  micros: 0
})

const refusedFor = (later: AskLater, random: number): number =>
  refusedMillis.least + random * Math.min(refusedMillis.most, millisOf(later))

const millisOf = ({ retryAfter }: AskLater): number => retryAfter === undefined ? 0 : Duration.toMillis(retryAfter)
