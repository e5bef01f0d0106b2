import * as Batches from "@sluice/batch/Batches"
import { assert } from "@effect/vitest"
import { Effect, Layer, Schedule, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { describeWithBoth, Place } from "../../sql/test/support/databases.ts"
import { requests } from "./support/machine.ts"
import { Processes } from "./support/processes.ts"
import { Provider } from "./support/provider.ts"

const layer = Batches.layer.pipe(Layer.provide(Batches.migrations.layer))

const disposable = <A extends AsyncDisposable>(make: () => Promise<A>) =>
  Effect.acquireRelease(Effect.promise(make), (a) => Effect.promise(() => a[Symbol.asyncDispose]()))

const until = (condition: () => boolean, what: string) =>
  Effect.suspend(() => condition() ? Effect.void : Effect.fail(what)).pipe(
    Effect.retry({ schedule: Schedule.spaced(10), times: 3_000 }),
    Effect.orDie
  )

await describeWithBoth("batches of killed processes", (it) => {
  it.effect("a killed worker loses no answer, and what it was asking is asked again", () =>
    Effect.gen(function*() {
      const { url } = yield* Place
      const batches = yield* Batches.Batches
      const provider = yield* disposable(() => Provider.start({ millis: 300 }))
      const processes = yield* disposable(async () => new Processes())
      const worker = (name: string) =>
        Effect.promise(() => processes.start({ name, database: url, provider: provider.url, inFlight: 50 }))
      const [first] = yield* Effect.all([worker("a"), worker("b")], { concurrency: 2 })
      const id = yield* batches.submit({}, requests(1_500))
      yield* until(() => provider.paid.size > 400, "400 answers")
      first.kill("SIGKILL")
      yield* Stream.runDrain(batches.watch(id, 100))
      const results = yield* Stream.runCollect(batches.results(id))
      assert.strictEqual(new Set(results.map(({ key }) => key)).size, 1_500)
      assert.deepInclude(yield* batches.status(id), { state: "completed", ok: 1_500, failed: 0, marked: 0 })
      assert.strictEqual(provider.paid.size, 1_500)
      assert.isAtMost(provider.asked, 1_500 + 50)
      const sql = yield* SqlClient.SqlClient
      const failed = yield* sql`select id from sluice_batch_queue where state = 'failed'`
      assert.deepStrictEqual(failed, [])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("a request that kills its workers ends as lost, and takes no other with it", () =>
    Effect.gen(function*() {
      const { url } = yield* Place
      const batches = yield* Batches.Batches
      const provider = yield* disposable(() => Provider.start({ millis: 20 }))
      const processes = yield* disposable(async () => new Processes())
      const life = Effect.promise(async () => {
        const child = await processes.start({ name: "p", database: url, provider: provider.url, inFlight: 20 })
        await new Promise((resolve) => child.once("exit", resolve))
      })
      yield* Effect.forkScoped(Effect.forever(life))
      const id = yield* batches.submit(
        {},
        Stream.map(requests(120), (request, n) => n === 50 ? { ...request, body: "poison" } : request)
      )
      yield* Stream.runDrain(batches.watch(id, 100))
      assert.deepInclude(yield* batches.status(id), { ok: 119, failed: 1 })
      const results = yield* Stream.runCollect(batches.results(id))
      assert.deepStrictEqual(results.filter(({ kind }) => kind !== "ok").map(({ key, kind }) => [key, kind]), [
        ["k50", "worker_lost"]
      ])
    }).pipe(Effect.scoped, Effect.provide(layer)))
})
