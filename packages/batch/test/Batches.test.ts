import * as Asker from "@sluice/batch/Asker"
import * as Batches from "@sluice/batch/Batches"
import * as Feeder from "@sluice/batch/Feeder"
import * as Worker from "@sluice/batch/Worker"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { assert } from "@effect/vitest"
import { Context, Deferred, Duration, Effect, Exit, Fiber, Layer, Logger, Scope, Stream, Tracer } from "effect"
import { describeWithBoth, describeWithPostgres } from "../../sql/test/support/databases.ts"
import * as Db from "../src/internal/tables/db.ts"
import { machine, ok, requests, Scripted } from "./support/machine.ts"

const whole = (id: string, follow = true) =>
  Batches.Batches.use((batches) => Stream.runCollect(batches.results(id, { follow })))

const unusable: ReadonlyArray<readonly [Batches.SubmitOptions, ReadonlyArray<string>]> = [
  [{ id: "" }, ["id"]],
  [{ id: "a b" }, ["id"]],
  [{ id: "a".repeat(65) }, ["id"]],
  [{ name: "a\0" }, ["name"]],
  [{ owner: "\ud800", source: "\0" }, ["source", "owner"]],
  [{ priority: 0.5 }, ["priority"]],
  [{ priority: 2 ** 31 }, ["priority"]],
  [{ weight: 0 }, ["weight"]],
  [{ weight: 1.5 }, ["weight"]],
  [{ weight: 1_001 }, ["weight"]],
  [{ maxCost: { micros: -1 } }, ["maxCost.micros"]],
  [{ maxCost: { micros: 1, estimate: NaN } }, ["maxCost.estimate"]],
  [{ expires: Infinity }, ["expires"]],
  [{ expires: "-1 second" }, ["expires"]]
]

await describeWithBoth("Batches", (it) => {
  it.effect("options that the database cannot store are refused by name, and no batch is made", () =>
    Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const before = yield* batches.list()
      for (const [options, named] of unusable) {
        const error = yield* Effect.flip(batches.submit(options, requests(1)))
        assert.strictEqual(error._tag, "InvalidOptions")
        if (error._tag === "InvalidOptions") assert.deepStrictEqual(error.issues.map(({ option }) => option), named)
      }
      assert.deepStrictEqual(yield* batches.list(), before)
      const id = "A-z_0123456789".padEnd(64, "x")
      assert.strictEqual(yield* batches.submit({ id, name: "ü\u0001", priority: -1 }, requests(1)), id)
      assert.strictEqual((yield* whole(id)).length, 1)
    }).pipe(Effect.provide(machine(new Scripted()))))

  it.effect("a page, an age and a pause that make no sense are refused by name", () =>
    Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const cases: ReadonlyArray<readonly [Effect.Effect<unknown, { readonly _tag: string }>, string]> = [
        [batches.list({ limit: 0 }), "limit"],
        [batches.list({ limit: 1.5 }), "limit"],
        [batches.list({ limit: NaN }), "limit"],
        [batches.list({ endedWithin: -1 }), "endedWithin"],
        [batches.list({ endedWithin: Infinity }), "endedWithin"],
        [Stream.runDrain(batches.watch("none", 0)), "every"]
      ]
      for (const [effect, option] of cases) {
        const error = yield* Effect.flip(effect)
        assert.match(String(error), new RegExp(`InvalidOptions: Batches: ${option} `))
      }
    }).pipe(Effect.provide(machine(new Scripted()))))

  it.effect("a batch has one result for each request", () => {
    const scripted = new Scripted()
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({ name: "first" }, requests(1_234))
      const results = yield* whole(id)
      assert.strictEqual(results.length, 1_234)
      assert.strictEqual(new Set(results.map(({ key }) => key)).size, 1_234)
      assert.isTrue(results.every(({ body, kind, seq }) => kind === "ok" && body === `request ${seq}`))
      assert.strictEqual(scripted.asked.length, 1_234)
      const status = yield* batches.status(id)
      assert.deepInclude(status, {
        state: "completed",
        total: 1_234,
        ok: 1_234,
        failed: 0,
        marked: 0,
        inputTokens: 3_702
      })
    }).pipe(Effect.provide(machine(scripted)))
  })

  it.effect("an answer that is none fails its request, and no other", () => {
    const scripted = new Scripted()
    // What an asker in JavaScript can return.
    const answers: ReadonlyArray<unknown> = [
      undefined,
      { ...ok("x"), kind: undefined },
      { ...ok("x"), body: undefined },
      { ...ok("x"), micros: 5n }
    ]
    scripted.answer = ({ body, key }) =>
      Effect.succeed(Number(key.slice(1)) in answers ? answers[Number(key.slice(1))] as Asker.Answer : ok(body))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({}, requests(6))
      const results = yield* Stream.runCollect(batches.results(id, { order: "input", follow: true }))
      assert.deepStrictEqual(results.map(({ kind }) => kind), ["failed", "failed", "failed", "failed", "ok", "ok"])
      assert.include(results[0]?.body, "internal_error")
    }).pipe(Effect.provide(machine(scripted)), Effect.provide(Logger.layer([])))
  })

  it.effect("calls have spans, and the statements between them have none", () => {
    const spans: Array<string> = []
    const tracer = Tracer.make({
      span: (options) => {
        spans.push(options.name)
        return new Tracer.NativeSpan(options)
      }
    })
    const scripted = new Scripted()
    scripted.answer = ({ body }) => Effect.withSpan(Effect.succeed(ok(body)), "a call")
    return Effect.gen(function*() {
      spans.length = 0
      const batches = yield* Batches.Batches
      const submitted = batches.submit({}, requests(3))
      const id = yield* Effect.withTracerEnabled(submitted, false)
      yield* Effect.withTracerEnabled(whole(id), false)
      yield* Effect.sleep(500)
      assert.deepStrictEqual(spans, ["a call", "a call", "a call"])
    }).pipe(Effect.provide(machine(scripted)), Effect.provide(Layer.succeed(Tracer.Tracer, tracer)))
  })

  it.effect("a worker that cannot say that it lives warns of it, and not at each beat", () => {
    const logged: Array<unknown> = []
    const log = Logger.layer([Logger.make(({ message }) => void logged.push(...[message].flat()))])
    return Effect.gen(function*() {
      const { sql } = yield* Db.make
      yield* sql`alter table sluice_batch_worker rename to sluice_batch_worker_away`
      yield* Effect.sleep(1_500)
      yield* sql`alter table sluice_batch_worker_away rename to sluice_batch_worker`
      const warnings = logged.filter((message) =>
        String(message).startsWith("The worker could not say that it lives (")
      )
      assert.strictEqual(warnings.length, 1)
    }).pipe(Effect.provide(machine(new Scripted())), Effect.provide(log))
  })

  it.effect("a worker's name that the database cannot store is refused", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Layer.build(machine(new Scripted(), { name: "a\0b" })))
      assert.include(String(exit), "must have no NUL")
    }).pipe(Effect.scoped))

  it.effect("results in input order have no gap", () => {
    const scripted = new Scripted()
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({}, requests(700))
      const results = yield* Stream.runCollect(batches.results(id, { order: "input", follow: true }))
      assert.deepStrictEqual(results.map(({ seq }) => seq), Array.from({ length: 700 }, (_, n) => n))
      const rest = yield* Stream.runCollect(batches.results(id, { order: "input", after: results[649]?.cursor }))
      assert.deepStrictEqual(rest.map(({ seq }) => seq), Array.from({ length: 50 }, (_, n) => 650 + n))
      const [first] = yield* Stream.runCollect(batches.results(id))
      const wrong = [
        { order: "input", after: first?.cursor },
        { order: "completion", after: results[0]?.cursor },
        { after: "x" },
        { after: "" }
      ] as const
      for (const options of wrong) {
        const error = yield* Effect.flip(Stream.runDrain(batches.results(id, { ...options, follow: true })))
        assert.match(
          error.message,
          /^Batches: after is .*; must be the cursor of a result in (input|completion) order$/
        )
      }
    }).pipe(Effect.provide(machine(scripted)))
  })

  it.effect("a request that has to wait is asked again in another round, and given up after the last", () => {
    const scripted = new Scripted()
    scripted.answer = ({ body, key }) =>
      key === "k3"
        ? Effect.fail(new Asker.AskLater({ reason: "rate limit", isCall: true, micros: 7 }))
        : Effect.succeed(ok(body, 10))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({}, requests(10))
      const results = yield* whole(id)
      assert.deepStrictEqual(results.filter(({ kind }) => kind !== "ok").map(({ key, kind }) => ({ key, kind })), [
        { key: "k3", kind: "rounds_exhausted" }
      ])
      assert.strictEqual(scripted.asked.filter(({ key }) => key === "k3").length, 2)
      assert.strictEqual((yield* batches.status(id)).micros, 9 * 10 + 2 * 7)
    }).pipe(Effect.provide(machine(scripted, { maxRounds: 2 })))
  })

  it.effect("a retry asks with a new idempotency key, which a request keeps that is lost with its worker", () => {
    const [first, second] = [new Scripted(), new Scripted()]
    /** As of a provider that repeats what it answered to a key. */
    const kept = new Map<string, Asker.Answer>()
    first.answer = ({ body, idempotencyKey, key }) => {
      const answer = kept.get(idempotencyKey) ??
        { ...ok(body), kind: key === "k3" && kept.size < 10 ? "failed" as const : "ok" as const }
      kept.set(idempotencyKey, answer)
      return Effect.succeed(answer)
    }
    return Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(machine(first, { drain: "0 millis" }), scope)
      const batches = Context.get(context, Batches.Batches)
      const id = yield* batches.submit({}, requests(10))
      yield* Stream.runDrain(batches.watch(id, 20))
      assert.deepInclude(yield* batches.status(id), { ok: 9, failed: 1 })
      second.answer = first.answer
      first.answer = () => Effect.never
      assert.strictEqual(yield* batches.retry(id), 1)
      while (first.asked.length < 11) yield* Effect.sleep(10)
      yield* Scope.close(scope, Exit.void)
      const results = yield* Effect.provide(whole(id), machine(second))
      assert.isTrue(results.every(({ kind }) => kind === "ok"))
      const keys = [...first.asked, ...second.asked].filter(({ key }) => key === "k3").map((asked) =>
        asked.idempotencyKey
      )
      assert.deepStrictEqual(keys, [`${id}/3`, `${id}/3/1`, `${id}/3/1`])
    })
  })

  it.effect("a retry of what was not asked changes no idempotency key, since its calls may have been paid", () => {
    const scripted = new Scripted()
    scripted.answer = () => Effect.never
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({}, requests(10))
      while (scripted.asked.length < 10) yield* Effect.sleep(10)
      yield* batches.cancel(id, { inFlight: "interrupt" })
      yield* Stream.runDrain(batches.watch(id, 20))
      scripted.answer = ({ body }) => Effect.succeed(ok(body))
      assert.strictEqual(yield* batches.retry(id, { which: "unasked" }), 10)
      yield* Stream.runDrain(batches.watch(id, 20))
      assert.deepInclude(yield* batches.status(id), { state: "completed", ok: 10 })
      assert.lengthOf(scripted.asked, 20)
      assert.lengthOf(new Set(scripted.asked.map(({ idempotencyKey }) => idempotencyKey)), 10)
    }).pipe(Effect.provide(machine(scripted)))
  })

  it.effect("a cancelled batch keeps paid answers, marks the rest, and can be asked again", () => {
    const scripted = new Scripted()
    scripted.answer = ({ body }) => Effect.as(Effect.sleep(30), ok(body))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({}, requests(3_000))
      while ((yield* batches.status(id)).ok < 100) yield* Effect.sleep(10)
      yield* batches.cancel(id)
      const results = yield* whole(id)
      const status = yield* batches.status(id)
      assert.strictEqual(status.state, "cancelled")
      assert.strictEqual(status.ok + status.marked, 3_000)
      assert.strictEqual(status.ok, scripted.asked.length)
      assert.strictEqual(new Map(results.map((result) => [result.seq, result])).size, 3_000)
      assert.strictEqual(yield* batches.retry(id, { which: "unasked" }), status.marked)
      yield* Stream.runDrain(batches.watch(id, 50))
      assert.deepInclude(yield* batches.status(id), { state: "completed", ok: 3_000, marked: 0 })
      assert.strictEqual(scripted.asked.length, 3_000)
    }).pipe(Effect.provide(machine(scripted)))
  })

  it.effect("a cap stops a batch before it costs more", () => {
    const scripted = new Scripted()
    scripted.answer = ({ body }) => Effect.as(Effect.sleep(5), ok(body, 100))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({ maxCost: { micros: 20_050 } }, requests(1_000))
      yield* Stream.runDrain(batches.watch(id, 50))
      assert.deepInclude(yield* batches.status(id), { state: "capped", micros: 20_000, ok: 200, marked: 800 })
    }).pipe(Effect.provide(machine(scripted)))
  })

  it.effect("failed attempts that are charged are not repeated once they have spent the budget", () => {
    const scripted = new Scripted()
    scripted.answer = () => Effect.fail(new Asker.AskLater({ reason: "broken", isCall: true, micros: 1 }))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({ maxCost: { micros: 10, estimate: 1 } }, requests(10))
      yield* Stream.runDrain(batches.watch(id, 50))
      assert.deepInclude(yield* batches.status(id), { state: "capped", micros: 10, marked: 10 })
      assert.lengthOf(scripted.asked, 10)
    }).pipe(Effect.provide(machine(scripted, { maxRounds: 2 })))
  })

  it.effect("no call begins once the budget is spent, also of requests that workers hold by then", () => {
    const scripted = new Scripted()
    scripted.answer = ({ body, key }) =>
      key === "k0"
        ? Effect.succeed(ok(body, 0))
        : Effect.fail(new Asker.AskLater({ reason: "broken", isCall: true, micros: 4 }))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      // The first answer is free, so all requests are handed out.
      const id = yield* batches.submit({ maxCost: { micros: 10 } }, requests(640))
      yield* Stream.runDrain(batches.watch(id, 50))
      assert.deepInclude(yield* batches.status(id), { state: "capped", micros: 12, ok: 1, marked: 639 })
      assert.lengthOf(scripted.asked, 4)
    }).pipe(Effect.provide(machine(scripted, { inFlight: 1 })))
  })

  it.effect("a batch whose costs are unknown begins with one request, which costs the whole budget here", () => {
    const scripted = new Scripted()
    scripted.answer = ({ body }) => Effect.as(Effect.sleep(30), ok(body, 1_000))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({ maxCost: { micros: 1_000 } }, requests(300))
      yield* Stream.runDrain(batches.watch(id, 50))
      assert.deepInclude(yield* batches.status(id), { state: "capped", micros: 1_000, ok: 1, marked: 299 })
      assert.lengthOf(scripted.asked, 1)
    }).pipe(Effect.provide(machine(scripted)))
  })

  it.effect("a budget does not hold back a batch whose answers are free, or whose requests fail", () => {
    const scripted = new Scripted()
    const failed = { ...ok("no", 0), kind: "failed" as const }
    scripted.answer = ({ body, key }) => Effect.succeed(/^k[0-6]$/.test(key) ? failed : ok(body, 0))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({ maxCost: { micros: 1 } }, requests(1_000))
      yield* Stream.runDrain(batches.watch(id, 50))
      assert.deepInclude(yield* batches.status(id), { state: "completed", failed: 7, ok: 993 })
    }).pipe(Effect.provide(machine(scripted)))
  })

  it.effect("a small batch does not wait for a large one", () => {
    const scripted = new Scripted()
    scripted.answer = ({ body }) => Effect.as(Effect.sleep(20), ok(body))
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const large = yield* batches.submit({}, requests(20_000))
      yield* Effect.sleep(200)
      const small = yield* batches.submit({}, requests(50))
      yield* Stream.runDrain(batches.watch(small, 50))
      assert.isBelow((yield* batches.status(large)).ok, 5_000)
      yield* batches.cancel(large, { inFlight: "interrupt" })
      yield* Stream.runDrain(batches.watch(large, 50))
      yield* batches.remove(large)
    }).pipe(Effect.provide(machine(scripted)))
  })

  it.effect("a worker takes no second ticket while the first one has more requests than it may ask at once", () => {
    const scripted = new Scripted()
    scripted.answer = () => Effect.never
    return Effect.gen(function*() {
      const db = yield* Db.make
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({}, requests(640))
      while (scripted.asked.length < 4) yield* Effect.sleep(10)
      // Time for a second one, and to say so.
      yield* Effect.sleep(2_000)
      const held = yield* db.sql`
        select held from sluice_batch_progress p join sluice_batch b on b.batch = p.batch where b.id = ${id}`
      assert.deepStrictEqual(held.map(({ held }) => Number(held)), [10])
      yield* batches.cancel(id, { inFlight: "interrupt" })
      yield* Stream.runDrain(batches.watch(id, 50))
    }).pipe(Effect.provide(machine(scripted, { inFlight: 4, drain: "0 millis" })))
  })

  it.effect("calls wait while the asker says that they make no sense", () => {
    const scripted = new Scripted()
    scripted.waiting = { for: "circuit of main is open", until: 5 }
    return Effect.gen(function*() {
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({}, requests(100))
      while ((yield* batches.status(id)).waiting?.until !== 5) yield* Effect.sleep(50)
      assert.deepStrictEqual((yield* batches.status(id)).waiting, { for: "circuit of main is open", until: 5 })
      assert.strictEqual(scripted.asked.length, 0)
      scripted.waiting = undefined
      yield* Stream.runDrain(batches.watch(id, 50))
      assert.strictEqual(scripted.asked.length, 100)
    }).pipe(Effect.provide(machine(scripted)))
  })

  it.effect("a drain that is cut short ends at once, and another worker asks what was running", () => {
    const scripted = new Scripted()
    scripted.answer = () => Effect.never
    return Effect.gen(function*() {
      const stop = yield* Deferred.make<void>()
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(
        machine(scripted, { drain: "1 hour", stopNow: Deferred.await(stop) }),
        scope
      )
      const id = yield* Context.get(context, Batches.Batches).submit({}, requests(10))
      while (scripted.asked.length < 1) yield* Effect.sleep(10)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* Effect.sleep(50)
      assert.isUndefined(closing.pollUnsafe())
      yield* Deferred.succeed(stop, undefined)
      yield* Fiber.join(closing).pipe(Effect.timeout("20 seconds"))
      scripted.answer = ({ body }) => Effect.succeed(ok(body))
      const results = yield* Effect.provide(whole(id), machine(scripted))
      assert.deepStrictEqual(results.map(({ kind }) => kind), Array.from({ length: 10 }, () => "ok"))
    })
  })

  it.effect("an idle worker that is told twice to stop ends at once", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(machine(new Scripted(), { drain: "1 hour", stopNow: Effect.void }), scope)
      yield* Effect.sleep(500)
      const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
      // It would wait five seconds for takes that nothing ends.
      assert.isBelow(Duration.toMillis(duration), 4_000)
    }))

  /**
   * A worker that has begun as many calls as it may, and is told to stop without a limit of time. `other` belongs to another worker, which
   * waits until then.
   */
  const stopping = (first: Scripted, other: Scripted, count: number, stopNow: Effect.Effect<void> = Effect.never) =>
    Effect.gen(function*() {
      other.waiting = { for: "the other worker", until: undefined }
      const batches = Context.get(yield* Layer.build(machine(other)), Batches.Batches)
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(machine(first, { inFlight: 4, drain: "1 hour", stopNow }), scope)
      const id = yield* batches.submit({}, requests(count))
      while (first.asked.length < 4) yield* Effect.sleep(10)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* Effect.yieldNow
      other.waiting = undefined
      const answered = (ok: number) =>
        Effect.repeat(Effect.delay(batches.status(id), 20), { until: (status) => status.ok >= ok })
      return { answered, closing }
    })

  it.effect("a worker that stops begins no call, and another one asks the rest of its tickets while its calls still run", () => {
    const [first, second] = [new Scripted(), new Scripted()]
    return Effect.gen(function*() {
      const release = yield* Deferred.make<void>()
      first.answer = ({ body }) => Effect.as(Deferred.await(release), ok(body))
      const { answered, closing } = yield* stopping(first, second, 640)
      yield* answered(636)
      assert.isUndefined(closing.pollUnsafe())
      yield* Deferred.succeed(release, undefined)
      yield* Fiber.join(closing)
      yield* answered(640)
      assert.deepStrictEqual([first.asked.length, second.asked.length], [4, 636])
      assert.lengthOf(new Set([...first.asked, ...second.asked].map(({ key }) => key)), 640)
    }).pipe(Effect.scoped, Effect.timeout("40 seconds"))
  })

  it.effect("calls that are cut off after the rest of their ticket went to another worker are asked once more", () => {
    const [first, second] = [new Scripted(), new Scripted()]
    return Effect.gen(function*() {
      const [stop, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      // One that waits between those that run.
      first.answer = ({ key }) =>
        key === "k1"
          ? Effect.fail(new Asker.AskLater({ reason: "quota", isCall: false, retryAfter: Duration.hours(1) }))
          : Effect.never
      second.answer = ({ body, key }) =>
        key === "k1" ? Effect.as(Deferred.await(release), ok(body)) : Effect.succeed(ok(body))
      const { answered, closing } = yield* stopping(first, second, 640, Deferred.await(stop))
      yield* answered(636)
      yield* Deferred.succeed(stop, undefined)
      yield* Fiber.join(closing)
      yield* answered(639)
      yield* Deferred.succeed(release, undefined)
      yield* answered(640)
      assert.deepStrictEqual([first.asked.length, second.asked.length], [4, 640])
      assert.lengthOf(new Set(second.asked.map(({ key }) => key)), 640)
    }).pipe(Effect.scoped, Effect.timeout("40 seconds"))
  })

  it.effect("a worker that stops does not wait for requests that wait before they are tried again", () => {
    const [first, second] = [new Scripted(), new Scripted()]
    first.answer = () =>
      Effect.fail(new Asker.AskLater({ reason: "quota", isCall: false, retryAfter: Duration.hours(1) }))
    return Effect.gen(function*() {
      const { answered, closing } = yield* stopping(first, second, 10)
      yield* Fiber.join(closing)
      yield* answered(10)
    }).pipe(Effect.scoped, Effect.timeout("40 seconds"))
  })

  it.effect("a worker that stops does not wait for requests that wait within the asker", () => {
    const [first, second] = [new Scripted(), new Scripted()]
    return Effect.gen(function*() {
      const stop = yield* Deferred.make<void>()
      first.answer = () =>
        Effect.andThen(Deferred.await(stop), Effect.fail(new Asker.AskLater({ reason: "stopped", isCall: false })))
      first.stop = Deferred.succeed(stop, undefined)
      const { answered, closing } = yield* stopping(first, second, 10)
      yield* Fiber.join(closing)
      yield* answered(10)
    }).pipe(Effect.scoped, Effect.timeout("40 seconds"))
  })

  it.effect("a worker or a feeder without the tables fails before it starts", () => {
    const layers = [
      Layer.provide(Worker.layer({ inFlight: 1 }), new Scripted().layer),
      Feeder.layer(),
      Feeder.layerCluster()
    ]
    return Effect.forEach(layers, (layer) =>
      Effect.map(
        Effect.flip(Effect.scoped(Layer.build(Layer.provide(layer, SqlDatabase.layer({ url: "sqlite::memory:" }))))),
        ({ _tag }) => assert.strictEqual(_tag, "TablesOutdated")
      ))
  })
})

await describeWithPostgres("Batches in a slow database", (it) => {
  it.effect("a worker that has left is not said to live", () =>
    Effect.gen(function*() {
      const { sql } = yield* Db.make
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(machine(new Scripted()), scope)
      // Its beats are twice a second.
      yield* sql`create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(1.5); return null; end'`
      yield* sql`create trigger slow after delete on sluice_batch_worker for each row execute function slow()`
      const workers = sql`select worker from sluice_batch_worker`
      yield* Effect.repeat(workers, { until: ({ length }) => length === 1 })
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* workers, [])
      yield* sql`drop function slow() cascade`
    }))

  it.effect("a ticket that is read for a worker that waits by then goes to another one", () => {
    const [first, second] = [new Scripted(), new Scripted()]
    first.waiting = second.waiting = { for: "the test", until: undefined }
    return Effect.gen(function*() {
      const { sql } = yield* Db.make
      yield* Layer.build(machine(first))
      const batches = Context.get(yield* Layer.build(machine(second)), Batches.Batches)
      const id = yield* batches.submit({}, requests(1))
      const show = (shift: string) =>
        sql`update sluice_batch_queue set visible_at = now() + ${sql.literal(`interval '${shift}'`)} returning 1`
      while ((yield* show("1 hour")).length === 0) yield* Effect.sleep(10)
      first.waiting = undefined
      yield* Effect.sleep(1_000)
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`lock table sluice_batch_queue in access exclusive mode`
        // The first worker asks for a ticket, and gives up before it gets one.
        yield* Effect.sleep(1_000)
        yield* show("-1 hour")
        first.waiting = second.waiting
        yield* Effect.sleep(1_500)
      }))
      yield* Effect.sleep(500)
      second.waiting = undefined
      yield* Effect.repeat(Effect.delay(batches.status(id), 20), { until: ({ ok }) => ok === 1 })
      assert.deepStrictEqual([first.asked.length, second.asked.length], [0, 1])
    }).pipe(Effect.scoped, Effect.timeout("20 seconds"))
  })
})
