/** Submitting, reading and ending batches. */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as SecureRandom from "effect/crypto/SecureRandom"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import {
  BatchNotFound,
  BatchRunning,
  type BatchStoreError,
  BudgetSpent,
  FileNotFound,
  InvalidRequest,
  isEnded,
  type Kind,
  type Request,
  type Result,
  type Status,
  type Waiting
} from "../Batch.ts"
import type { Batches, ListOptions, ResultsOptions, RetryOptions, SubmitOptions } from "../Batches.ts"
import { findFile, problemsOf } from "./files.ts"
import { affordableOf } from "./plan.ts"
import { store } from "./store.ts"
import { isStorable } from "./text.ts"
import * as Tables from "./tables/batches.ts"
import * as Db from "./tables/db.ts"
import * as FileTables from "./tables/files.ts"
import * as Items from "./tables/items.ts"
import * as Results from "./tables/results.ts"
import * as Workers from "./tables/workers.ts"

const resultsAtOnce = { rows: 200, bytes: 8 * 2 ** 20 }
const followMillis = 500

const failed: ReadonlyArray<Kind> = ["failed", "worker_lost", "rounds_exhausted"]

export const make = Effect.gen(function*() {
  const db = yield* Db.make

  const find = (id: string) =>
    Effect.flatMap(
      // PostgreSQL fails for a text that it cannot store.
      isStorable(id) ? store("read a batch", Tables.find(db, id)) : Effect.undefined,
      (batch) => batch === undefined ? Effect.fail(new BatchNotFound({ id })) : Effect.succeed(batch)
    )

  /** The workers are asked for only if a batch may wait for them. */
  const workersFor = (batches: ReadonlyArray<Tables.Row>) =>
    batches.some(({ state }) => state !== "validating" && !isEnded(state))
      ? store("read the workers", Workers.live(db))
      : Effect.succeed([])

  const status = (id: string) =>
    Effect.flatMap(find(id), (batch) => Effect.map(workersFor([batch]), (workers) => toStatus(batch, workers)))

  /** Ends a cancelled batch if no worker lives: none holds a request of it, and no feeder may run either. */
  const endWithoutWorkers = (id: string) =>
    Effect.gen(function*() {
      const batch = yield* find(id)
      if (batch.state !== "cancelling" || (yield* workersFor([batch])).length > 0) return
      let from = 0
      while (Tables.answeredOf(batch) < batch.total) {
        from = yield* store(
          "end a batch",
          Results.mark(db, batch, "cancelled", { from, limit: Results.markedAtOnce(db) })
        )
        if (from === 0) break
      }
      yield* store("end a batch", Tables.move(db, batch.batch, ["cancelling"], "cancelled", { run: batch.run }))
    })

  const submit = <E, R>(
    options: SubmitOptions,
    requests: Stream.Stream<Request, E, R>
  ): Effect.Effect<string, InvalidOptions | InvalidRequest | BatchNotFound | FileNotFound | BatchStoreError | E, R> =>
    Effect.gen(function*() {
      const { attempt, expiresMillis, id: newId } = yield* readOptions(options)
      const file = options.file === undefined ? undefined : yield* findFile(db, options.file)
      const create = (items: number | undefined, awaitsFirst: boolean) =>
        Tables.create(db, {
          id: newId,
          items,
          owner: options.owner,
          name: options.name,
          endpoint: options.endpoint,
          source: options.source,
          priority: options.priority ?? 0,
          weight: options.weight ?? 1,
          capMicros: options.maxCost?.micros,
          estimateMicros: options.maxCost?.estimate ?? 0,
          expiresMillis,
          metadata: options.metadata ?? {},
          awaitsFirst
        })
      const createOf = ({ file, id }: FileTables.FileRow) =>
        db.sql.withTransaction(Effect.gen(function*() {
          // The file may have been deleted since it was read. With a batch it stays. Other creates of the file wait here.
          if (!(yield* FileTables.keep(db, file))) return yield* new FileNotFound({ id })
          const { endpoint, metadata = {}, owner } = options
          const repeated = attempt === undefined
            ? undefined
            : yield* Tables.findRepeated(db, { items: -file, endpoint, metadata, owner }, attempt === 0)
          if (repeated === undefined) yield* create(-file, attempt !== undefined && attempt > 0)
          return repeated ?? newId
        }))
      const isNew = file === undefined && (yield* store("add a batch", create(undefined, false)))
      const id = file === undefined ? newId : yield* store("add a batch", createOf(file))
      const batch = yield* find(id)
      // It was submitted whole before, or is another one with this id.
      if (batch.state !== "validating" || (file !== undefined && batch.items !== -file.file)) return id
      const problems = file === undefined ? [] : problemsOf(file, options.endpoint)
      if (problems.length > 0) {
        const error = JSON.stringify(problems)
        yield* store("end a batch", Tables.move(db, batch.batch, ["validating"], "failed", { error }))
        return id
      }
      if (file === undefined) yield* addAll(db, batch, !isNew, requests)
      const counted = yield* store("count requests", Items.count(db, batch.items))
      const isStarted = yield* store("start a batch", Tables.start(db, batch.batch, counted))
      // It was cancelled, has expired or was removed meanwhile.
      if (!isStarted) yield* find(id)
      return id
    })

  const results = (
    id: string,
    options: ResultsOptions = {}
  ): Stream.Stream<Result, BatchNotFound | BatchStoreError | InvalidOptions> => {
    const { follow = false, order = "completion" } = options
    return Stream.unwrap(Effect.map(Effect.andThen(checkCursor(order, options.after), find(id)), (batch) => {
      // Read before each page: a batch that had ended before a page has no results after it.
      const page = (after: string | undefined) =>
        Effect.gen(function*() {
          const { state } = yield* find(id)
          const rows = yield* store("read results", Results.page(db, { ...batch, state }, order, after, resultsAtOnce))
          const next = order === "input" ? withoutGap(rows, after) : rows
          const last = next.at(-1)?.cursor ?? after
          // A page is cut where its texts are large, so only an empty one is the last.
          const isOver = next.length === 0 && (!follow || isEnded(state))
          if (!isOver && next.length === 0) yield* Effect.sleep(followMillis)
          return [next.filter((result) => !Results.isErased(result)), isOver ? undefined : { after: last }] as const
        })
      return paginate(page, options.after)
    }))
  }

  return {
    submit,
    status,
    results,
    watch: (id: string, every: Duration.Input = "1 second") => {
      const reader = new OptionsReader("Batches")
      const pause = reader.duration("every", every, 1)
      const first = Effect.andThen(reader.check(undefined), status(id))
      const further = Effect.andThen(Effect.sleep(pause), status(id))
      return paginateOne(first, further, ({ state }) => isEnded(state))
    },
    cancel: (id: string, cancel: { readonly inFlight?: "finish" | "interrupt" | undefined } = {}) =>
      Effect.flatMap(find(id), ({ batch }) =>
        store(
          "cancel a batch",
          Tables.move(db, batch, ["validating", "in_progress", "cancelling"], "cancelling", {
            interrupts: cancel.inFlight === "interrupt"
          })
        )).pipe(Effect.andThen(endWithoutWorkers(id)), Effect.andThen(status(id))),
    retry: (id: string, options: RetryOptions = {}) =>
      Effect.gen(function*() {
        const { maxCost, which } = yield* readRetryOptions(options)
        const batch = yield* find(id)
        if (!isEnded(batch.state) || batch.state === "failed") {
          return yield* new BatchRunning({ id, state: batch.state })
        }
        if (batch.run === Tables.removedRun) return yield* new BatchNotFound({ id })
        // Also what an interrupted retry left without a result.
        const left = (which === "failed" ? batch.failed : batch.marked) + batch.total - Tables.answeredOf(batch)
        const capMicros = maxCost?.micros ?? batch.capMicros
        const estimateMicros = maxCost?.estimate ?? batch.estimateMicros
        if (left > 0 && affordableOf({ ...batch, capMicros, estimateMicros }, 0) <= 0) {
          return yield* new BudgetSpent({ id, micros: batch.micros, maxMicros: capMicros ?? 0 })
        }
        let forgotten = 0
        while (true) {
          const gone = yield* store(
            "forget results",
            Results.forget(db, batch, which === "failed" ? failed : Results.marks, Db.deletedAtOnce)
          )
          // Another retry started it.
          if (gone === undefined) return yield* new BatchRunning({ id, state: (yield* find(id)).state })
          if (gone === 0) break
          forgotten += gone
        }
        yield* store("start a batch", Tables.again(db, batch, maxCost))
        return forgotten
      }),
    list: (options: ListOptions = {}) =>
      Effect.gen(function*() {
        const { after, endedAfter, limit, owner } = yield* readListOptions(db, options)
        if (after !== undefined) yield* find(after)
        const { sql } = db
        const conditions = [
          sql`1 = 1`,
          ...(owner === undefined ? [] : [sql`b.owner = ${owner}`]),
          ...(endedAfter === undefined ? [] : [sql`(b.ended_at is null or b.ended_at > ${endedAfter})`]),
          ...(after === undefined
            ? []
            : [sql`(b.created_at, b.batch) < (select created_at, batch from sluice_batch where id = ${after})`])
        ]
        const batches = yield* store(
          "list batches",
          Tables.select(db, sql`where ${sql.and(conditions)} order by b.created_at desc, b.batch desc limit ${limit}`)
        )
        const workers = yield* workersFor(batches)
        return batches.map((batch) => toStatus(batch, workers))
      }),
    remove: (id: string) =>
      Effect.gen(function*() {
        const batch = yield* find(id)
        if (!isEnded(batch.state)) return yield* new BatchRunning({ id, state: batch.state })
        const isRemoved = yield* store("remove a batch", Tables.remove(db, batch.batch, Db.deletedAtOnce))
        // A retry started it meanwhile.
        if (!isRemoved) return yield* new BatchRunning({ id, state: (yield* find(id)).state })
      })
  } satisfies Batches["Service"]
})

const known: { readonly [K in keyof SubmitOptions]-?: true } = {
  id: true,
  name: true,
  priority: true,
  weight: true,
  maxCost: true,
  expires: true,
  endpoint: true,
  source: true,
  file: true,
  owner: true,
  metadata: true,
  attempt: true
}

/** The range of an integer in PostgreSQL. */
const maxPriority = 2 ** 31 - 1

/** A batch of the least weight beside one of the most still has a ticket in flight on a large machine. */
const maxWeight = 1_000

/** Checks what the database would refuse without saying why. */
const readOptions = (input: SubmitOptions) => {
  const reader = new OptionsReader("Batches")
  const { attempt, endpoint, expires, file, id, maxCost, name, owner, priority = 0, source, weight = 1 } = reader
    .object(
      "options",
      input,
      known
    )
  if (id !== undefined && !/^[\w-]{1,64}$/.test(id)) {
    reader.refuse("id", id, "must be 1 to 64 letters, digits, _ and -")
  }
  for (const [option, text] of Object.entries({ name, endpoint, source, file, owner })) {
    if (text !== undefined && !isStorable(text)) {
      reader.refuse(option, text, "must have no NUL and no half of a surrogate pair")
    }
  }
  reader.integer("priority", priority, -maxPriority, maxPriority)
  reader.integer("weight", weight, 1, maxWeight)
  if (attempt !== undefined) {
    reader.integer("attempt", attempt, 0)
    if (file === undefined || id !== undefined) reader.refuse("attempt", attempt, "needs a file and no id")
  }
  readMaxCost(reader, maxCost)
  return reader.check({
    attempt,
    id: id ?? `batch_${SecureRandom.uuidV4Unsafe().replaceAll("-", "")}`,
    expiresMillis: expires === undefined ? undefined : reader.millis("expires", expires, 0, maxExpiresMillis)
  })
}

const readMaxCost = (reader: OptionsReader, maxCost: SubmitOptions["maxCost"]): void => {
  if (maxCost === undefined) return
  reader.integer("maxCost.micros", maxCost.micros, 0)
  reader.integer("maxCost.estimate", maxCost.estimate ?? 0, 0)
}

const knownOfRetry: { readonly [K in keyof RetryOptions]-?: true } = { which: true, maxCost: true }

const readRetryOptions = (input: RetryOptions) => {
  const reader = new OptionsReader("Batches")
  const { maxCost, which = "failed" } = reader.object("options", input, knownOfRetry)
  if (which !== "failed" && which !== "unasked") reader.refuse("which", which, "must be failed or unasked")
  readMaxCost(reader, maxCost)
  return reader.check({ maxCost, which })
}

const knownOfList: { readonly [K in keyof ListOptions]-?: true } = {
  owner: true,
  endedWithin: true,
  after: true,
  limit: true
}

const readListOptions = ({ now, sql }: Db.Db, input: ListOptions) => {
  const reader = new OptionsReader("Batches")
  const { after, endedWithin, limit = 100, owner } = reader.object("options", input, knownOfList)
  reader.integer("limit", limit, 1)
  const endedMillis = endedWithin === undefined
    ? undefined
    : Math.round(reader.millis("endedWithin", endedWithin, 0, maxExpiresMillis))
  // On the clock of the database.
  const endedAfter = endedMillis === undefined ? undefined : sql`${now} - ${sql.literal(String(endedMillis))}`
  return reader.check({ after, endedAfter, limit, owner })
}

/** Ten years. */
const maxExpiresMillis = 315_360_000_000

/** Stores the requests of a stream in groups. Ends early if the batch is cancelled, expires or is removed. */
const addAll = <E, R>(
  db: Db.Db,
  batch: Tables.Row,
  isAgain: boolean,
  requests: Stream.Stream<Request, E, R>
): Effect.Effect<void, InvalidRequest | BatchStoreError | E, R> => {
  let seq = 0
  let bytes = 0
  let group: Array<Items.Item> = []
  /** Returns whether the batch still takes requests. */
  const flush = Effect.suspend(() => {
    const items = group
    group = []
    bytes = 0
    return items.length === 0 ? Effect.succeed(true) : addGroup(db, batch, isAgain, items)
  })
  return Stream.runForEachWhile(
    requests,
    ({ body, key }) =>
      Effect.suspend((): Effect.Effect<boolean, InvalidRequest | BatchStoreError> => {
        const size = Buffer.byteLength(body)
        if (size > Items.maxRequestBytes) return Effect.fail(new InvalidRequest({ seq, why: "TooLarge" }))
        if (key === "" || key.length > Items.maxKeyLength || !isStorable(key)) {
          return Effect.fail(new InvalidRequest({ seq, why: "InvalidKey" }))
        }
        if (!isStorable(body)) return Effect.fail(new InvalidRequest({ seq, why: "InvalidBody" }))
        group.push({ seq, key, request: body })
        seq += 1
        bytes += size
        return group.length >= Items.atOnce.rows || bytes >= Items.atOnce.bytes
          ? flush
          : Effect.succeed(true)
      })
  ).pipe(Effect.andThen(flush), Effect.asVoid)
}

const addGroup = (
  db: Db.Db,
  row: Tables.Row,
  isAgain: boolean,
  items: ReadonlyArray<Items.Item>
): Effect.Effect<boolean, InvalidRequest | BatchStoreError> => {
  const { batch } = row
  const refuse = (why: InvalidRequest["why"]) => (seq: number | undefined) =>
    seq === undefined ? Effect.succeed(true) : Effect.fail(new InvalidRequest({ seq, why }))
  const keys = new Set<string | null>()
  const doubled = items.find(({ key }) => keys.has(key) || !keys.add(key))
  if (doubled !== undefined) return refuse("DuplicateKey")(doubled.seq)
  // In a transaction of the caller, the next statement needs what is left of it.
  const add = db.sql.withTransaction(
    Effect.tap(Tables.keep(db, row), (isKept) => isKept ? Items.add(db, batch, items) : Effect.void)
  ).pipe(
    Effect.catchIf(
      Items.isConflict,
      (error) =>
        Effect.flatMap(
          Items.taken(db, batch, items),
          (taken): Effect.Effect<never, InvalidRequest | SqlError> =>
            taken === undefined
              ? Effect.fail(error)
              : Effect.fail(new InvalidRequest({ seq: taken, why: "DuplicateKey" }))
        )
    )
  )
  const changed = isAgain ? Effect.flatMap(Items.changed(db, batch, items), refuse("Changed")) : Effect.succeed(true)
  return store("add requests", Effect.flatMap(add, (isKept) => isKept ? changed : Effect.succeed(false)))
}

/** A cursor of the other order would skip results, or end them. */
const checkCursor = (
  order: "input" | "completion",
  after: string | undefined
): Effect.Effect<unknown, InvalidOptions> => {
  const reader = new OptionsReader("Batches")
  if (after !== undefined && !cursors[order].test(after)) {
    reader.refuse("after", after, `must be the cursor of a result in ${order} order`)
  }
  return reader.check(undefined)
}

const cursors = { input: /^\d{1,15}$/, completion: /^\d{1,20}:\d{1,15}$/ }

/** Results in input order, up to the first request without one. */
const withoutGap = (rows: ReadonlyArray<Result>, after: string | undefined): ReadonlyArray<Result> => {
  const first = after === undefined ? 0 : Number(after) + 1
  const gap = rows.findIndex(({ seq }, index) => seq !== first + index)
  return gap < 0 ? rows : rows.slice(0, gap)
}

const paginate = <A, E>(
  page: (after: string | undefined) => Effect.Effect<
    readonly [ReadonlyArray<A>, { readonly after: string | undefined } | undefined],
    E
  >,
  after: string | undefined
): Stream.Stream<A, E> =>
  Stream.flattenIterable(
    Stream.unfold<{ readonly after: string | undefined } | undefined, ReadonlyArray<A>, E, never>(
      { after },
      (state) => state === undefined ? Effect.undefined : page(state.after)
    )
  )

/** `first`, then `further` until one is the last. */
const paginateOne = <A, E>(
  first: Effect.Effect<A, E>,
  further: Effect.Effect<A, E>,
  isLast: (value: A) => boolean
): Stream.Stream<A, E> =>
  Stream.unfold<Effect.Effect<A, E> | undefined, A, E, never>(
    first,
    (next) =>
      next === undefined
        ? Effect.undefined
        : Effect.map(next, (value) => [value, isLast(value) ? undefined : further] as const)
  )

/** Why a batch makes no progress. */
const waitingOf = (batch: Tables.Row, workers: ReadonlyArray<Workers.LiveWorker>): Waiting | undefined => {
  if (batch.state === "validating" || isEnded(batch.state)) return undefined
  if (workers.length === 0) return { for: "no worker runs", until: undefined }
  if (batch.state !== "in_progress") return undefined
  const waiting = workers.flatMap(({ waiting }) => waiting ?? [])
  if (waiting.length === workers.length) return waiting[0]
  return batch.handed === 0 && batch.now - (batch.startedAt ?? batch.now) > 2_000
    ? { for: "other batches go first", until: undefined }
    : undefined
}

const toStatus = (batch: Tables.Row, workers: ReadonlyArray<Workers.LiveWorker>): Status => {
  const left = batch.total - Tables.answeredOf(batch)
  const rate = isEnded(batch.state) ? undefined : batch.rate
  return {
    id: batch.id,
    owner: batch.owner,
    name: batch.name,
    state: batch.state,
    total: batch.total,
    ok: batch.ok,
    failed: batch.failed,
    marked: batch.marked,
    inputTokens: batch.inputTokens,
    outputTokens: batch.outputTokens,
    micros: batch.micros,
    maxMicros: batch.capMicros,
    priority: batch.priority,
    weight: batch.weight,
    createdAt: batch.createdAt,
    startedAt: batch.startedAt,
    expiresAt: batch.expiresAt,
    stoppingAt: batch.stoppingAt,
    endedAt: batch.endedAt,
    rate,
    etaMillis: rate === undefined || rate === 0 ? undefined : left * 1_000 / rate,
    waiting: waitingOf(batch, workers),
    endpoint: batch.endpoint,
    source: batch.source,
    metadata: batch.metadata,
    error: batch.error
  }
}
