/** What the tables have to keep to, whatever happens at once. */
import * as Batches from "@sluice/batch/Batches"
import * as Feeder from "@sluice/batch/Feeder"
import * as Worker from "@sluice/batch/Worker"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { assert } from "@effect/vitest"
import { Deferred, type Duration, Effect, Layer, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { describeWithBoth, describeWithPostgres, Place } from "../../sql/test/support/databases.ts"
import type { Kind } from "../src/Batch.ts"
import * as Engine from "../src/internal/engine.ts"
import * as Internal from "../src/internal/feeder.ts"
import * as Queue from "../src/internal/queue.ts"
import * as Tables from "../src/internal/tables/batches.ts"
import * as Db from "../src/internal/tables/db.ts"
import * as Results from "../src/internal/tables/results.ts"
import * as Workers from "../src/internal/tables/workers.ts"
import { machine, ok, requests, Scripted } from "./support/machine.ts"

const service = Batches.layer.pipe(Layer.provide(Batches.migrations.layer))

const withService = <A, E>(
  use: (batches: Batches.Batches["Service"]) => Effect.Effect<A, E, SqlClient.SqlClient | Place>
) => Effect.provide(Batches.Batches.use(use), service)

/** Submits a batch, and returns its row. No other batch lives. */
const submitted = (id: string, count: number) =>
  withService((batches) =>
    Effect.gen(function*() {
      yield* SqlClient.SqlClient.use((sql) => sql`update sluice_batch set state = 'completed', ended_at = 1`)
      yield* batches.submit({ id }, requests(count))
      const row = yield* Tables.find(yield* Db.make, id)
      assert.isDefined(row)
      return row
    })
  )

/** The beat of a worker that holds nothing. */
const alive = Effect.flatMap(
  Db.make,
  (db) => Workers.beat(db, { worker: "alive", slots: 1, waiting: undefined, held: [] })
)

const result = (batch: number, seq: number, kind: Kind, micros = 10) => ({
  batch,
  seq,
  kind,
  body: `${kind} ${seq}`,
  inputTokens: 1,
  outputTokens: 2,
  micros
})

await describeWithBoth("tables of a batch", (it) => {
  it.effect("the first result stays, and only a paid answer replaces a mark", () =>
    Effect.gen(function*() {
      const { batch } = yield* submitted("first", 100)
      const db = yield* Db.make
      yield* Results.add(db, "a", [
        result(batch, 0, "ok"),
        result(batch, 1, "failed"),
        result(batch, 2, "cancelled", 0)
      ])
      yield* Results.add(db, "b", [
        result(batch, 0, "ok", 99),
        result(batch, 1, "ok"),
        result(batch, 2, "failed"),
        result(batch, 3, "cancelled", 0),
        // A frozen worker can have asked the same.
        result(batch, 4, "failed", 7),
        result(batch, 4, "ok", 8)
      ])
      yield* Results.add(db, "a", [result(batch, 3, "ok", 50)])
      const row = yield* Tables.find(db, "first")
      assert.deepInclude(row, { ok: 3, failed: 1, marked: 1, micros: 10 + 10 + 8 + 50, maxMicros: 50 })
      const page = yield* Results.page(db, { batch, items: batch, state: "in_progress" }, "input", undefined, {
        rows: 10,
        bytes: 1_000
      })
      assert.deepStrictEqual(page.map(({ kind }) => kind), ["ok", "failed", "cancelled", "ok", "ok"])
    }))

  it.effect("a text or number that the database cannot store holds up no result", () =>
    Effect.gen(function*() {
      const { batch } = yield* submitted("texts", 100)
      const db = yield* Db.make
      const odd = { ...result(batch, 1, "ok"), body: "a\0b\ud800c", inputTokens: NaN, outputTokens: 1e12, micros: 1.6 }
      yield* Results.add(db, "a", [result(batch, 0, "ok"), odd, { ...result(batch, 2, "ok"), micros: -3 }])
      const page = yield* Results.page(db, { batch, items: batch, state: "in_progress" }, "input", undefined, {
        rows: 10,
        bytes: 1_000
      })
      assert.deepStrictEqual(page.map(({ body, inputTokens, micros }) => [body, inputTokens, micros]), [
        ["ok 0", 1, 10],
        ["a\ufffdb\ufffdc", 0, 2],
        ["ok 2", 1, 0]
      ])
    }))

  it.effect("an answer that comes after its batch was removed is not stored", () =>
    withService((batches) =>
      Effect.gen(function*() {
        const db = yield* Db.make
        const { batch: kept } = yield* submitted("kept", 10)
        const { batch: removed } = yield* submitted("removed", 10)
        yield* batches.cancel("removed")
        yield* db.sql`update sluice_batch set state = 'cancelled', ended_at = 1 where batch = ${removed}`
        yield* batches.remove("removed")
        yield* Results.add(db, "a", [result(kept, 0, "ok"), result(removed, 0, "ok"), result(removed, 1, "failed")])
        const rows = yield* db.sql`select batch from sluice_batch_result where batch in (${kept}, ${removed})
          union all select batch from sluice_batch_progress where batch in (${kept}, ${removed})`
        assert.deepStrictEqual(rows.map(({ batch }) => Number(batch)), [kept, kept])
      })
    ))

  it.effect("costs that no request has are cut, so that the sum of a batch can be read", () =>
    withService((batches) =>
      Effect.gen(function*() {
        const { batch } = yield* submitted("dear", 1_100)
        const db = yield* Db.make
        const dear = Array.from({ length: 1_100 }, (_, seq) => result(batch, seq, "ok", Infinity))
        yield* Results.add(db, "a", dear)
        yield* Results.spend(db, "a", batch, Number.MAX_SAFE_INTEGER)
        assert.deepInclude(yield* batches.status("dear"), { ok: 1_100, micros: 1_101 * 1e12 })
      })
    ))

  it.effect("a cancel ends a batch that no worker runs, and leaves one to a worker that lives", () =>
    withService((batches) =>
      Effect.gen(function*() {
        const db = yield* Db.make
        const { batch } = yield* submitted("left", 10)
        yield* Results.add(db, "a", [result(batch, 4, "ok")])
        yield* alive
        assert.deepInclude(yield* batches.cancel("left"), { state: "cancelling", marked: 0, waiting: undefined })
        yield* Workers.leave(db, "alive")
        assert.deepInclude(yield* batches.status("left"), { waiting: { for: "no worker runs", until: undefined } })
        assert.deepInclude(yield* batches.cancel("left"), { state: "cancelled", ok: 1, marked: 9, waiting: undefined })
        yield* submitted("whole", 12_000)
        assert.deepInclude(yield* batches.cancel("whole"), { state: "cancelled", ok: 0, marked: 12_000 })
        assert.strictEqual(yield* batches.retry("whole", { which: "unasked" }), 12_000)
      })
    ))

  it.effect("a repeated cancel starts no new wait, and does not take back an interruption", () =>
    withService((batches) =>
      Effect.gen(function*() {
        const { batch } = yield* submitted("cancelled-twice", 10)
        yield* alive
        const { stoppingAt } = yield* batches.cancel("cancelled-twice", { inFlight: "interrupt" })
        yield* Effect.sleep(5)
        assert.strictEqual((yield* batches.cancel("cancelled-twice")).stoppingAt, stoppingAt)
        const row = yield* Tables.find(yield* Db.make, "cancelled-twice")
        assert.deepInclude(row, { batch, interrupts: true })
      })
    ))

  it.effect("a request that the database cannot store is refused by its place", () =>
    withService((batches) =>
      Effect.gen(function*() {
        for (
          const [key, body, why] of [
            ["k\0", "", "InvalidKey"],
            ["k\ud800", "", "InvalidKey"],
            ["", "", "InvalidKey"],
            ["k", "a\0", "InvalidBody"],
            ["k", "\udfff", "InvalidBody"],
            ["k", "x".repeat(2 ** 20 + 1), "TooLarge"]
          ] as const
        ) {
          const error = yield* Effect.flip(batches.submit({}, Stream.make({ key: "first", body: "" }, { key, body })))
          assert.deepInclude(error, { _tag: "InvalidRequest", seq: 1, why })
        }
      })
    ))

  it.effect("a doubled key is refused by its place, also in a transaction of the caller", () =>
    withService((batches) =>
      Effect.gen(function*() {
        const { sql } = yield* Db.make
        // In two statements.
        const doubled = Stream.concat(requests(2_000), Stream.make({ key: "k5", body: "again" }))
        const submit = batches.submit({ id: "doubled" }, doubled)
        for (const submitting of [submit, sql.withTransaction(submit)]) {
          const error = yield* Effect.flip(submitting)
          assert.deepInclude(error, { _tag: "InvalidRequest", seq: 2_000, why: "DuplicateKey" })
        }
      })
    ))

  it.effect("batches are listed by the time since their end, on the clock of the database", () =>
    withService((batches) =>
      Effect.gen(function*() {
        const { now, sql } = yield* Db.make
        for (const id of ["young", "old"]) yield* batches.submit({ id, owner: "ages" }, requests(1))
        yield* sql`update sluice_batch set ended_at = ${now} where id = 'young'`
        yield* sql`update sluice_batch set ended_at = ${now} - 601000 where id = 'old'`
        const within = (endedWithin: Duration.Input) =>
          Effect.map(batches.list({ owner: "ages", endedWithin }), (found) => found.map(({ id }) => id))
        assert.deepStrictEqual(yield* within("10 minutes"), ["young"])
        assert.deepStrictEqual((yield* within("1 hour")).toSorted(), ["old", "young"])
      })
    ))

  it.effect("a page of results ends where its texts are large", () =>
    Effect.gen(function*() {
      // Pages of a batch in progress wait for transactions of other tests.
      const row = { ...yield* submitted("pages", 100), state: "completed" as const }
      const db = yield* Db.make
      const large = (seq: number) => ({ ...result(row.batch, seq, "ok"), body: "x".repeat(1_000) })
      yield* Results.add(db, "a", Array.from({ length: 100 }, (_, seq) => large(seq)))
      for (const order of ["input", "completion"] as const) {
        const page = yield* Results.page(db, row, order, undefined, { rows: 60, bytes: 2_500 })
        assert.deepStrictEqual(page.map(({ seq }) => seq), [0, 1, 2])
        const next = yield* Results.page(db, row, order, page[2]?.cursor, { rows: 2, bytes: 1_000_000 })
        assert.deepStrictEqual(next.map(({ seq }) => seq), [3, 4])
        // One that is larger than a page is a page.
        assert.strictEqual((yield* Results.page(db, row, order, next[1]?.cursor, { rows: 9, bytes: 1 })).length, 1)
      }
    }))

  it.effect("a reader in completion order misses no result of eight concurrent writers", () =>
    Effect.gen(function*() {
      const count = 4_000
      const { batch } = yield* submitted("cursors", count)
      const db = yield* Db.make
      const write = (writer: number) =>
        Effect.forEach(
          Array.from({ length: count / 80 }, (_, n) => (n * 8 + writer) * 10),
          (from) => {
            const rows = Array.from({ length: 10 }, (_, n) => result(batch, from + n, "ok"))
            // Transactions that overlap, and do not end in the order in which they began.
            return db.isSqlite
              ? Results.add(db, `w${writer}`, rows)
              : db.sql.withTransaction(Effect.andThen(Results.add(db, `w${writer}`, rows), Effect.sleep(from * 7 % 13)))
          },
          { discard: true }
        )
      const writing = Effect.forEach(Array.from({ length: 8 }, (_, n) => n), write, { concurrency: 8, discard: true })
      const reading = withService((batches) =>
        Stream.runCollect(Stream.take(batches.results("cursors", { follow: true }), count))
      )
      const [results] = yield* Effect.all([reading, writing], { concurrency: 2 })
      assert.strictEqual(new Set(results.map(({ seq }) => seq)).size, count)
    }))

  it.effect("feeders that run at once offer each ticket once, also one that was frozen in between", () =>
    Effect.gen(function*() {
      const { batch } = yield* submitted("feeders", 6_400)
      const db = yield* Db.make
      const feeder = Effect.map(
        Queue.make,
        (queue) => new Internal.Feeder({ everyMillis: 1_000, window: 3_000, ticket: 100, graceMillis: 0 }, db, queue)
      )
      const rounds = Effect.flatMap(feeder, ({ round }) => Effect.forEach([1, 2, 3], () => round, { discard: true }))
      yield* Effect.all([rounds, rounds, rounds], { concurrency: 3 })
      const tickets = yield* db.sql<{ readonly id: string }>`
        select id from sluice_batch_queue where id like ${`${batch}.0/%`} order by sequence`
      assert.deepStrictEqual(
        tickets.map(({ id }) => id),
        Array.from({ length: 30 }, (_, n) => `${batch}.0/${n * 100}-${n * 100 + 100}/0`)
      )
      const row = yield* Tables.find(db, "feeders")
      assert.deepInclude(row, { fed: 3_000, handed: 3_000 })
      // What a feeder saw before it was frozen no longer holds.
      assert.isFalse(yield* Tables.feed(db, { batch, run: 0, before: 2_900, fed: 3_000, handed: 3_000 }))
      assert.isFalse(yield* Tables.feed(db, { batch, run: 1, before: 3_000, fed: 3_100, handed: 3_100 }))
    }).pipe(Effect.provide(Queue.layer)))

  it.effect("marking goes on where it stopped, and marks what has no result", () =>
    Effect.gen(function*() {
      const row = yield* submitted("marks", 100)
      const db = yield* Db.make
      yield* Results.add(db, "a", [3, 4, 30, 99].map((seq) => result(row.batch, seq, "ok")))
      const places: Array<number> = []
      for (let from = 0; from !== 0 || places.length === 0;) {
        from = yield* Results.mark(db, row, "expired", { from, limit: 40 })
        places.push(from)
      }
      assert.deepStrictEqual(places, [43, 83, 0])
      assert.deepInclude(yield* Tables.find(db, "marks"), { ok: 4, marked: 96 })
    }))
})

await describeWithBoth("runs of a batch", (it) => {
  it.effect("a retry asks what failed and nothing else, and results of the run before do not count for it", () => {
    const scripted = new Scripted()
    let isBroken = true
    scripted.answer = ({ body, key }) =>
      Effect.succeed(isBroken && Number(key.slice(1)) % 3 === 0 ? { ...ok(body), kind: "failed" } : ok(body, 5))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({}, requests(1_000))
      yield* Stream.runDrain(batches.watch(id, 20))
      assert.deepInclude(yield* batches.status(id), { state: "completed", ok: 666, failed: 334 })
      isBroken = false
      scripted.asked.length = 0
      assert.strictEqual(yield* batches.retry(id), 334)
      yield* Stream.runDrain(batches.watch(id, 20))
      assert.deepInclude(yield* batches.status(id), { state: "completed", ok: 1_000, failed: 0 })
      assert.strictEqual(scripted.asked.length, 334)
      assert.strictEqual(yield* batches.retry(id), 0)
      assert.deepInclude(yield* batches.status(id), { state: "completed" })
    }).pipe(Effect.provide(machine(scripted)))
  })

  it.effect("a retry is answered while a call of the run before still runs", () => {
    const scripted = new Scripted()
    let isFirst = true
    scripted.answer = ({ body, key }) => {
      if (key !== "k7" || !isFirst) return Effect.succeed(ok(body))
      isFirst = false
      return Effect.never
    }
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({}, requests(64))
      while ((yield* batches.status(id)).ok < 63) yield* Effect.sleep(10)
      yield* batches.cancel(id)
      yield* Stream.runDrain(batches.watch(id, 20))
      assert.deepInclude(yield* batches.status(id), { state: "cancelled", ok: 63, marked: 1 })
      yield* batches.retry(id, { which: "unasked" })
      yield* Stream.runDrain(batches.watch(id, 20))
      assert.deepInclude(yield* batches.status(id), { state: "completed", ok: 64 })
    }).pipe(Effect.provide(machine(scripted, { drain: 0, feeder: { every: "20 millis", grace: "100 millis" } })))
  })

  it.effect("a cancel with interrupt ends calls that run, and no call begins after it", () => {
    const scripted = new Scripted()
    let ended = 0
    scripted.answer = () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => ended += 1))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({}, requests(1_000))
      while (scripted.asked.length < 50) yield* Effect.sleep(10)
      yield* batches.cancel(id, { inFlight: "interrupt" })
      yield* Stream.runDrain(batches.watch(id, 20))
      assert.deepInclude(yield* batches.status(id), { state: "cancelled", ok: 0, marked: 1_000 })
      assert.strictEqual(ended, 50)
      assert.strictEqual(scripted.asked.length, 50)
    }).pipe(Effect.provide(machine(scripted)))
  })
})

await describeWithPostgres("workers in two time zones", (it) => {
  it.effect("take no ticket that another one holds", () => {
    const scripted = new Scripted()
    scripted.answer = ({ body }) => Effect.as(Effect.sleep(1_000), ok(body))
    return Effect.gen(function*() {
      const { url } = yield* Place
      const workerIn = (zone: string) => {
        const zoned = new URL(url)
        zoned.searchParams.set("options", `${zoned.searchParams.get("options")} -cTimeZone=${zone}`)
        return Layer.fresh(
          Worker.layer({ inFlight: 20 }).pipe(
            Layer.provide(scripted.layer),
            Layer.provide(SqlDatabase.layer({ url: zoned.href }))
          )
        )
      }
      const machines = Layer.mergeAll(workerIn("UTC"), workerIn("Asia/Tokyo"), Feeder.layer())
      const working = Effect.gen(function*() {
        const batches = yield* Batches.Batches
        const id = yield* batches.submit({}, requests(100))
        yield* Stream.runDrain(batches.watch(id, 50))
        assert.deepInclude(yield* batches.status(id), { state: "completed", ok: 100 })
      })
      yield* Effect.provide(working, Layer.provideMerge(machines, service))
      assert.strictEqual(scripted.asked.length, 100)
    })
  })
})

await describeWithPostgres("processes of the cluster", (it) => {
  it.effect("are forgotten after a day of silence", () =>
    withService(() =>
      Effect.gen(function*() {
        const db = yield* Db.make
        for (const hours of [1, 23, 25]) {
          yield* db.sql`insert into sluice_batch_runners (address, runner, last_heartbeat)
            values (${`${hours} hours`}, '', now() - ${`${hours} hours`}::interval)`
        }
        yield* Engine.forgetDead(db)
        const left = yield* db.sql`select address from sluice_batch_runners order by machine_id`
        assert.deepStrictEqual(left.map(({ address }) => address), ["1 hours", "23 hours"])
      })
    ))
})

await describeWithPostgres("results of a batch", (it) => {
  it.effect("are all read after its end, also while a transaction runs that is older than they are", () => {
    const scripted = new Scripted()
    return Effect.gen(function*() {
      const { sql } = yield* Db.make
      const batches = yield* Batches.Batches
      const [begun, done] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const older = sql.withTransaction(
        sql`select pg_current_xact_id()::text`.pipe(
          Effect.andThen(Deferred.succeed(begun, undefined)),
          Effect.andThen(Deferred.await(done))
        )
      )
      yield* Effect.forkScoped(older)
      yield* Deferred.await(begun)
      const id = yield* batches.submit({}, requests(300))
      const following = yield* Stream.runCollect(batches.results(id, { follow: true }))
      assert.strictEqual(following.length, 300)
      assert.strictEqual((yield* Stream.runCollect(batches.results(id))).length, 300)
      yield* Deferred.succeed(done, undefined)
    }).pipe(Effect.scoped, Effect.provide(machine(scripted)))
  })
})
