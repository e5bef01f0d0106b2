/** What happens between two statements of a batch. */
import * as Batches from "@sluice/batch/Batches"
import * as Files from "@sluice/batch/Files"
import { assert } from "@effect/vitest"
import { Effect, Fiber, Layer, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { describeWithBoth } from "../../sql/test/support/databases.ts"
import * as Internal from "../src/internal/batches.ts"
import * as Feeder from "../src/internal/feeder.ts"
import * as Queue from "../src/internal/queue.ts"
import * as Tables from "../src/internal/tables/batches.ts"
import * as Db from "../src/internal/tables/db.ts"
import * as Results from "../src/internal/tables/results.ts"
import { before } from "./support/before.ts"
import { machine, ok, requests, Scripted } from "./support/machine.ts"

const services = Layer.mergeAll(Batches.layer, Files.layer).pipe(Layer.provide(Batches.migrations.layer))

/** The batches of a process to which something happens before its first statement of this form. */
const slow = (form: RegExp, something: Effect.Effect<unknown, unknown>) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.provideService(Internal.make, SqlClient.SqlClient, before(sql, form, something))
  )

const line = JSON.stringify({ custom_id: "a", method: "POST", url: "/v1/chat/completions", body: { model: "m" } })

const countOf = (db: Db.Db, batch: number) =>
  Effect.map(
    db.sql<{ readonly count: unknown }>`select count(*) as count from sluice_batch_item where batch = ${batch}`,
    (rows) => Number(rows[0]?.count)
  )

/** Requests, then `last` after a while. */
const streamed = (while_: Effect.Effect<unknown, unknown>) =>
  Stream.concat(requests(2_000), Stream.fromEffect(Effect.as(Effect.orDie(while_), { key: "last", body: "last" })))

/** A batch that was cancelled with an answer, a failure and marks. */
const cancelled = (id: string) =>
  Effect.gen(function*() {
    const db = yield* Db.make
    const batches = yield* Batches.Batches
    yield* batches.submit({ id }, requests(10))
    const row = yield* Tables.find(db, id)
    assert.isDefined(row)
    const answer = { batch: row.batch, body: "", inputTokens: 1, outputTokens: 1, micros: 1 }
    yield* Results.add(db, "a", [{ ...answer, seq: 0, kind: "ok" }, { ...answer, seq: 1, kind: "failed" }])
    yield* batches.cancel(id)
    yield* Results.mark(db, { ...row, state: "cancelling" }, "cancelled", { from: 0, limit: 100 })
    yield* Tables.move(db, row.batch, ["cancelling"], "cancelled")
    return { db, batches, row: { ...row, state: "cancelled" as const } }
  })

await describeWithBoth("races of a batch", (it) => {
  it.effect("a file that is deleted while its batch is made is not found, and no batch is made", () =>
    Effect.gen(function*() {
      const files = yield* Files.Files
      const batches = yield* Batches.Batches
      const file = yield* files.upload({ name: "in", purpose: "batch" }, Stream.make(line))
      const hidden = yield* slow(/insert into sluice_batch \(|update sluice_batch_file/, files.remove(file.id))
      const error = yield* Effect.flip(hidden.submit({ id: "deleted-file", file: file.id }, Stream.empty))
      assert.strictEqual(error._tag, "FileNotFound")
      assert.strictEqual((yield* Effect.flip(batches.status("deleted-file")))._tag, "BatchNotFound")
    }).pipe(Effect.provide(services)))

  it.effect("requests that are still submitted to a batch that was cancelled or removed are not stored", () =>
    Effect.gen(function*() {
      const db = yield* Db.make
      const batches = yield* Batches.Batches
      const cancel = Effect.gen(function*() {
        yield* batches.cancel("cancelled-early")
        while ((yield* batches.status("cancelled-early")).endedAt === undefined) yield* Effect.sleep(10)
      })
      const id = yield* batches.submit({ id: "cancelled-early" }, streamed(cancel))
      const row = yield* Tables.find(db, id)
      assert.deepInclude(row, { state: "cancelled", total: 0 })
      assert.strictEqual(yield* countOf(db, row?.batch ?? 0), 2_000)

      let batch = 0
      const remove = Effect.gen(function*() {
        batch = (yield* Tables.find(db, "removed-early"))?.batch ?? 0
        yield* batches.cancel("removed-early")
        while ((yield* batches.status("removed-early")).endedAt === undefined) yield* Effect.sleep(10)
        yield* batches.remove("removed-early")
      })
      const error = yield* Effect.flip(batches.submit({ id: "removed-early" }, streamed(remove)))
      assert.strictEqual(error._tag, "BatchNotFound")
      assert.strictEqual(yield* countOf(db, batch), 0)
    }).pipe(Effect.provide(machine(new Scripted()))))

  it.effect("a batch whose submitter went away expires at its time", () =>
    Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const submitter = yield* Effect.forkChild(
        batches.submit({ id: "left", expires: "300 millis" }, Stream.concat(requests(2_000), Stream.never))
      )
      while ((yield* Effect.option(batches.status("left")))._tag === "None") yield* Effect.sleep(10)
      yield* Fiber.interrupt(submitter)
      assert.deepInclude(yield* batches.status("left"), { state: "validating" })
      yield* Stream.runDrain(batches.watch("left", 20))
      assert.deepInclude(yield* batches.status("left"), { state: "expired", total: 0 })
      yield* batches.remove("left")
    }).pipe(Effect.provide(machine(new Scripted()))))

  it.effect("a retry that another retry overtakes forgets no result of the new run", () =>
    Effect.gen(function*() {
      const { batches, db, row } = yield* cancelled("two-retries")
      const other = yield* slow(/update sluice_batch set run = run/, batches.retry("two-retries", { which: "unasked" }))
      assert.strictEqual((yield* Effect.flip(other.retry("two-retries")))._tag, "BatchRunning")
      assert.isUndefined(yield* Results.forget(db, row, ["ok", "failed"], 100))
      assert.deepInclude(yield* Tables.find(db, "two-retries"), { state: "in_progress", ok: 1, failed: 1, base: 2 })
    }).pipe(Effect.provide(services)))

  it.effect("a batch that is being removed is not started again", () =>
    Effect.gen(function*() {
      const { batches } = yield* cancelled("removed")
      const retry = Effect.flip(batches.retry("removed", { which: "unasked" }))
      const remover = yield* slow(
        /delete from/,
        Effect.map(retry, ({ _tag }) => assert.strictEqual(_tag, "BatchNotFound"))
      )
      yield* remover.remove("removed")
      assert.strictEqual((yield* Effect.flip(batches.status("removed")))._tag, "BatchNotFound")
    }).pipe(Effect.provide(services)))

  it.effect("a batch that a retry starts again is not removed", () =>
    Effect.gen(function*() {
      const { batches } = yield* cancelled("kept")
      const remover = yield* slow(/update sluice_batch set run/, batches.retry("kept", { which: "unasked" }))
      assert.strictEqual((yield* Effect.flip(remover.remove("kept")))._tag, "BatchRunning")
      assert.deepInclude(yield* batches.status("kept"), { state: "in_progress", ok: 1, failed: 1, marked: 0 })
    }).pipe(Effect.provide(services)))

  it.effect("a feeder that was frozen ends and marks no later run", () =>
    Effect.gen(function*() {
      const { batches, db, row } = yield* cancelled("frozen")
      // It read the batch when it had been answered whole.
      yield* db
        .sql`update sluice_batch set ended_at = null, state = 'in_progress', total = 10 where batch = ${row.batch}`
      const retried = Effect.andThen(
        db.sql`update sluice_batch set ended_at = 1, state = 'cancelled' where batch = ${row.batch}`,
        batches.retry("frozen", { which: "unasked" })
      )
      const queue = yield* Queue.make
      const options = { everyMillis: 1_000, window: 0, ticket: 100, graceMillis: 0 }
      const frozen = new Feeder.Feeder(
        options,
        { ...db, sql: before(db.sql, /update sluice_batch set state/, retried) },
        queue
      )
      yield* frozen.round
      assert.deepInclude(yield* Tables.find(db, "frozen"), { state: "in_progress", run: 1, marked: 0 })
      assert.strictEqual(
        yield* Results.mark(db, { ...row, state: "cancelling" }, "cancelled", { from: 0, limit: 9 }),
        0
      )
      assert.deepInclude(yield* Tables.find(db, "frozen"), { state: "in_progress", run: 1, marked: 0 })
    }).pipe(Effect.provide(Layer.mergeAll(services, Queue.layer))))
})

await describeWithBoth("limits of a batch", (it) => {
  it.effect("a retry of a batch that has spent its budget is refused until it gets a larger one", () => {
    const scripted = new Scripted()
    scripted.answer = ({ body }) => Effect.succeed(ok(body, 100))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({ maxCost: { micros: 250, estimate: 100 } }, requests(5))
      yield* Stream.runDrain(batches.watch(id, 20))
      const capped = { state: "capped" as const, ok: 2, marked: 3, micros: 200 }
      assert.deepInclude(yield* batches.status(id), capped)
      for (const maxCost of [undefined, { micros: 299 }]) {
        const error = yield* Effect.flip(batches.retry(id, { which: "unasked", maxCost }))
        assert.strictEqual(error._tag, "BudgetSpent")
        assert.include(error.message, "has spent $0.0002 of its budget of $0.00")
      }
      assert.deepInclude(yield* batches.status(id), capped)
      const invalid = yield* Effect.flip(batches.retry(id, { maxCost: { micros: -1 } }))
      assert.strictEqual(invalid._tag, "InvalidOptions")
      // Nothing has failed, so nothing is refused.
      assert.strictEqual(yield* batches.retry(id), 0)
      assert.strictEqual(yield* batches.retry(id, { which: "unasked", maxCost: { micros: 500 } }), 3)
      yield* Stream.runDrain(batches.watch(id, 20))
      assert.deepInclude(yield* batches.status(id), { state: "completed", ok: 5, micros: 500, maxMicros: 500 })
    }).pipe(Effect.provide(machine(scripted)))
  })

  it.effect("a list after something that is not there is refused", () =>
    Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const files = yield* Files.Files
      assert.strictEqual((yield* Effect.flip(batches.list({ after: "none" })))._tag, "BatchNotFound")
      assert.strictEqual((yield* Effect.flip(batches.list({ after: "\0" })))._tag, "BatchNotFound")
      assert.strictEqual((yield* Effect.flip(files.list({ after: "none" })))._tag, "FileNotFound")
    }).pipe(Effect.provide(services)))

  it.effect("a cancelled batch ends although the clock of the database was set back an hour", () =>
    Effect.gen(function*() {
      const { batches, db, row } = yield* cancelled("clock")
      yield* batches.retry("clock", { which: "unasked" })
      yield* db.sql`insert into sluice_batch_worker (worker, slots, beat_at) values ('busy', 1, ${db.now})`
      yield* batches.cancel("clock")
      yield* db.sql`update sluice_batch set stopping_at = stopping_at + 3600000 where batch = ${row.batch}`
      const queue = yield* Queue.make
      const options = { everyMillis: 1_000, window: 0, ticket: 100, graceMillis: 600_000 }
      const feeder = new Feeder.Feeder(options, db, queue)
      yield* feeder.round
      yield* feeder.round
      assert.deepInclude(yield* batches.status("clock"), { state: "cancelled", marked: 8 })
      yield* db.sql`delete from sluice_batch_worker where worker = 'busy'`
    }).pipe(Effect.provide(Layer.mergeAll(services, Queue.layer))))

  it.effect("a feeder reads a thousand of a great many batches, first those that have to end", () =>
    Effect.gen(function*() {
      const db = yield* Db.make
      const many = Array.from({ length: 1_200 }, (_, n) => ({ n }))
      yield* db.sql`insert into sluice_batch (id, state, total, priority, created_at, expires_at)
        select ${db.isSqlite ? db.sql`'many' || r.n` : db.sql`'many' || r.n::text`}, 'in_progress', 1,
          case when r.n = 1100 then 1 else 0 end, r.n, case when r.n = 1199 then 1 end
        from ${db.rows(many, { n: "bigint" })}`
      const ids = (yield* Tables.live(db)).map(({ id }) => id)
      assert.strictEqual(ids.length, Tables.liveAtOnce)
      assert.include(ids, "many1199")
      assert.include(ids, "many1100")
      assert.include(ids, "many997")
      assert.notInclude(ids, "many998")
    }).pipe(
      Effect.ensuring(
        SqlClient.SqlClient.use((sql) => Effect.orDie(sql`delete from sluice_batch where id like 'many%'`))
      ),
      Effect.provide(services)
    ))

  it.effect("an answer that is too large to store fails its request, and keeps its cost", () => {
    const scripted = new Scripted()
    scripted.answer = ({ body, key }) => Effect.sync(() => ok(key === "k0" ? "\u0001".repeat(2 ** 26 + 1) : body, 7))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({}, requests(3))
      const results = yield* Stream.runCollect(batches.results(id, { order: "input", follow: true }))
      assert.deepStrictEqual(results.map(({ kind, micros }) => [kind, micros]), [["failed", 7], ["ok", 7], ["ok", 7]])
      assert.include(results[0]?.body, "answer_too_large")
    }).pipe(Effect.provide(machine(scripted)))
  })
})
