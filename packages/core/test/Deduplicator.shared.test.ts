import * as Deduplicator from "@sluice/core/Deduplicator"
import * as FlightStore from "@sluice/core/FlightStore"
import { StoreError } from "@sluice/core/CircuitBreakerStore"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"

type Store = FlightStore.FlightStore["Service"]

const Summary = Deduplicator.operation<string, "refused">()("summary", {
  key: (input: { readonly text: string; readonly tenant?: string }) => input.text,
  tenant: ({ tenant = "none" }) => tenant,
  success: Schema.String,
  error: Schema.Literal("refused")
})

const Hourly = Deduplicator.operation<string>()("hourly", {
  key: (text: string) => text,
  success: Schema.String,
  timeToLive: "1 hour"
})

/** A deduplicator, as each process has one. */
const processOn = (store: Store, options?: Deduplicator.DeduplicatorOptions) =>
  Effect.provideService(Deduplicator.make({ shared: true, ...options }), FlightStore.FlightStore, store)

/** Calls that take a second and are counted. */
const counted = (millis = 1_000) => {
  const calls = { started: 0, ended: 0 }
  const call = Effect.suspend(() => {
    const nth = ++calls.started
    return Effect.as(Effect.delay(Effect.sync(() => calls.ended++), millis), `answer ${nth}`)
  })
  return { calls, call }
}

const forkNow = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

/** Lets requests to the store pass, which take no time. */
const settle = TestClock.adjust(1)

const down: Effect.Effect<never, StoreError> = Effect.fail(new StoreError({ operation: "claim", description: "down" }))

const quiet = Effect.provide(Logger.layer([]))

describe("a deduplicator that shares flights with other processes", () => {
  it.effect("two processes make one call, and both get its result", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const [a, b] = [yield* processOn(store), yield* processOn(store)]
      const { call, calls } = counted()
      const served: Array<string> = []
      const run = (name: string, { dedupe }: typeof a) =>
        forkNow(dedupe(call, Summary({ text: "x" }), { onServed: (how) => served.push(`${name} ${how}`) }))
      const fibers = [yield* run("a", a), yield* run("b", b), yield* run("b", b)]
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* Effect.forEach(fibers, Fiber.join), ["answer 1", "answer 1", "answer 1"])
      assert.strictEqual(calls.started, 1)
      assert.deepStrictEqual(served, ["a Led", "b Led", "b Joined", "b Joined"])
      const { followed, joined, led } = yield* b.stats
      assert.deepStrictEqual({ followed, joined, led }, { followed: 1, joined: 1, led: 1 })
    }))

  it.effect("a typed failure with a codec is shared like a success", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const [a, b] = [yield* processOn(store), yield* processOn(store)]
      let calls = 0
      const refuse = Effect.suspend(() => {
        calls++
        return Effect.fail("refused" as const)
      })
      const call = Effect.delay(refuse, "1 second")
      const key = Summary({ text: "x" })
      const first = yield* forkNow(Effect.exit(a.dedupe(call, key)))
      const second = yield* forkNow(Effect.exit(b.dedupe(call, key)))
      yield* TestClock.adjust("5 seconds")
      const refused = Exit.fail("refused" as const)
      assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second)], [refused, refused])
      assert.strictEqual(calls, 1)
    }))

  it.effect("tenants never share, and operations without a codec stay in their process", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const [a, b] = [yield* processOn(store), yield* processOn(store)]
      const { call, calls } = counted()
      const Local = Deduplicator.operation<string>()("local", { key: (text: string) => text })
      yield* forkNow(a.dedupe(call, Summary({ text: "x", tenant: "1" })))
      yield* forkNow(b.dedupe(call, Summary({ text: "x", tenant: "2" })))
      yield* forkNow(a.dedupe(call, Local("x")))
      yield* forkNow(b.dedupe(call, Local("x")))
      yield* settle
      assert.strictEqual(calls.started, 4)
    }))

  it.effect("if the last caller of the leading process leaves, another process makes the call at once", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const [a, b, c] = [yield* processOn(store), yield* processOn(store), yield* processOn(store)]
      const { call, calls } = counted()
      const key = Summary({ text: "x" })
      const leader = yield* forkNow(a.dedupe(call, key))
      const followers = [yield* forkNow(b.dedupe(call, key)), yield* forkNow(c.dedupe(call, key))]
      yield* TestClock.adjust(500)
      yield* Fiber.interrupt(leader)
      yield* TestClock.adjust(1_100)
      const results = followers.map((fiber) => fiber.pollUnsafe())
      assert.deepStrictEqual(results, [Exit.succeed("answer 2"), Exit.succeed("answer 2")])
      assert.deepStrictEqual(calls, { started: 2, ended: 1 })
    }))

  it.effect("a caller that leaves while its process claims leaves no lease behind", () =>
    Effect.gen(function*() {
      const memory = yield* FlightStore.makeMemory()
      // The claim is granted, and its reply takes 100 ms.
      const slow: Store = { ...memory, claim: (request) => Effect.tap(memory.claim(request), () => Effect.sleep(100)) }
      const [a, b] = [yield* processOn(slow), yield* processOn(memory)]
      const { call, calls } = counted()
      const caller = yield* forkNow(a.dedupe(call, Summary({ text: "x" })))
      yield* TestClock.adjust(50)
      yield* Fiber.interrupt(caller)
      yield* settle
      const other = yield* forkNow(b.dedupe(call, Summary({ text: "x" })))
      yield* TestClock.adjust(1_100)
      assert.deepStrictEqual(other.pollUnsafe(), Exit.succeed("answer 1"))
      assert.strictEqual(calls.started, 1)
    }))

  it.effect("a process that dies is followed until its lease lapses, and then one other makes the call", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const claims: Array<FlightStore.ClaimRequest> = []
      const dying: Store = { ...store, renew: () => Effect.never, complete: () => Effect.never }
      const dead = yield* processOn(dying)
      const recording: Store = {
        ...store,
        claim: (request) => Effect.suspend(() => (claims.push(request), store.claim(request)))
      }
      const [a, b] = [yield* processOn(recording), yield* processOn(recording)]
      const { call, calls } = counted()
      const key = Summary({ text: "x" })
      yield* forkNow(dead.dedupe(Effect.never, key))
      const followers = [yield* forkNow(a.dedupe(call, key)), yield* forkNow(b.dedupe(call, key))]
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(calls.started, 0)
      yield* TestClock.adjust("2100 millis")
      const results = followers.map((fiber) => fiber.pollUnsafe())
      assert.deepStrictEqual(results, [Exit.succeed("answer 1"), Exit.succeed("answer 1")])
      assert.strictEqual(calls.started, 1)
      assert.isAtMost(claims.length, 30)
    }))

  it.effect("a call that takes longer than the lease keeps it", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const [a, b] = [yield* processOn(store, { lease: 1_000 }), yield* processOn(store, { lease: 1_000 })]
      const { call, calls } = counted(60_000)
      const first = yield* forkNow(a.dedupe(call, Summary({ text: "x" })))
      const second = yield* forkNow(b.dedupe(call, Summary({ text: "x" })))
      yield* TestClock.adjust("61 seconds")
      assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second)], ["answer 1", "answer 1"])
      assert.strictEqual(calls.started, 1)
    }))

  it.effect("a leader that has lost its lease answers its own callers, and changes nothing in the store", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const paused: Store = { ...store, renew: () => Effect.never }
      const [a, b] = [yield* processOn(paused), yield* processOn(store)]
      const key = Hourly("x")
      const late = yield* forkNow(a.dedupe(Effect.delay(Effect.succeed("late"), "30 seconds"), key))
      const next = yield* forkNow(b.dedupe(Effect.delay(Effect.succeed("right"), "1 second"), key))
      yield* TestClock.adjust("40 seconds")
      assert.deepStrictEqual([yield* Fiber.join(late), yield* Fiber.join(next)], ["late", "right"])
      const c = yield* processOn(store)
      assert.strictEqual(yield* c.dedupe(Effect.die("not run"), key), "right")
    }).pipe(quiet))

  it.effect("a lost reply of a claim or a completion makes no second call", () =>
    Effect.gen(function*() {
      const memory = yield* FlightStore.makeMemory()
      const lost = new Set<string>()
      const losing = <A>(id: string, verb: Effect.Effect<A, StoreError>) =>
        Effect.flatMap(verb, (answer) => lost.has(id) ? Effect.succeed(answer) : (lost.add(id), down))
      const store: Store = {
        ...memory,
        claim: (request) => losing(`claim ${request.id}`, memory.claim(request)),
        complete: (request) => losing(`complete ${request.id}`, memory.complete(request))
      }
      const [a, b] = [yield* processOn(store), yield* processOn(store)]
      const { call, calls } = counted()
      const key = Summary({ text: "x" })
      const fibers = [yield* forkNow(a.dedupe(call, key)), yield* forkNow(b.dedupe(call, key))]
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* Effect.forEach(fibers, Fiber.join), ["answer 1", "answer 1"])
      assert.strictEqual(calls.started, 1)
      assert.strictEqual((yield* a.stats).storeErrors, 0)
    }))

  it.effect("a cached result serves other processes for the rest of its time, and no longer", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const [a, b] = [yield* processOn(store), yield* processOn(store)]
      let calls = 0
      const call = Effect.sync(() => `answer ${++calls}`)
      const served: Array<string> = []
      const ask = ({ dedupe }: typeof a) => dedupe(call, Hourly("x"), { onServed: (how) => served.push(how) })
      assert.strictEqual(yield* ask(a), "answer 1")
      yield* TestClock.adjust("59 minutes")
      assert.deepStrictEqual([yield* ask(b), yield* ask(b)], ["answer 1", "answer 1"])
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual(yield* ask(b), "answer 2")
      assert.deepStrictEqual(served, ["Led", "Led", "Cached", "Cached", "Led"])
    }))

  it.effect("without a time to live a call after the flight is made anew, in every process", () =>
    Effect.gen(function*() {
      const memory = yield* FlightStore.makeMemory()
      const slow: Store = { ...memory, complete: (request) => Effect.delay(memory.complete(request), 300) }
      const [a, b] = [yield* processOn(slow), yield* processOn(memory)]
      const { call, calls } = counted(10)
      const key = Summary({ text: "x" })
      const first = yield* forkNow(Effect.andThen(a.dedupe(call, key), a.dedupe(call, key)))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(first), "answer 2")
      const second = yield* forkNow(b.dedupe(call, key))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(second), "answer 3")
      assert.strictEqual(calls.started, 3)
    }))

  const unshared = [
    { what: "is too large", call: Effect.succeed("x".repeat(100)), maxResultBytes: 100 },
    { what: "is too large in bytes", call: Effect.succeed("é".repeat(40)), maxResultBytes: 100 },
    { what: "is a defect", call: Effect.die("a defect"), maxResultBytes: 100 },
    // Not the type of the key: as an effect of JavaScript can fail.
    { what: "is a failure without a codec", call: Effect.fail("other" as "refused"), maxResultBytes: 100 }
  ] as const

  for (const { call, maxResultBytes, what } of unshared) {
    it.effect(`a result that ${what} stays in its process, and each follower runs its own call at once`, () =>
      Effect.gen(function*() {
        const memory = yield* FlightStore.makeMemory()
        const stored = new Set<string>()
        const store: Store = {
          ...memory,
          complete: (request) => Effect.suspend(() => (stored.add(request.result), memory.complete(request)))
        }
        const processes = yield* Effect.forEach([1, 2, 3], () => processOn(store, { maxResultBytes }))
        let calls = 0
        const one = Effect.delay(Effect.andThen(Effect.sync(() => calls++), call), "1 second")
        const fibers = yield* Effect.forEach(
          processes,
          ({ dedupe }) => forkNow(Effect.exit(dedupe(one, Summary({ text: "x" }))))
        )
        yield* TestClock.adjust("2500 millis")
        const expected = yield* Effect.exit(call)
        for (const fiber of fibers) assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed(expected))
        assert.strictEqual(calls, 3)
        assert.deepStrictEqual([...stored], [""])
      }))
  }

  it.effect("a result that cannot be read costs another call, and is counted", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const one = yield* processOn(store)
      for (const result of ["not JSON", "{}", "[".repeat(100_000), "\"a string\"", `"${"x".repeat(2 ** 20)}"`]) {
        const text = result.slice(0, 20)
        const key = Hourly(text)
        const flight = { key: key.id, operation: "", tenant: "", id: text }
        yield* store.claim({ ...flight, leaseMillis: 1_000 })
        yield* store.complete({ ...flight, result, freshMillis: 1_000, keepMillis: 1_000 })
        assert.strictEqual(yield* one.dedupe(Effect.succeed("called"), key), "called")
      }
      assert.strictEqual((yield* one.stats).undecodable, 5)
    }))

  it.effect("while the store is down every call is made, one warning is logged, and sharing resumes after it", () =>
    Effect.gen(function*() {
      const memory = yield* FlightStore.makeMemory()
      let isDown = true
      let requests = 0
      const store: Store = {
        ...memory,
        claim: (request) => Effect.suspend(() => (requests++, isDown ? down : memory.claim(request))),
        release: (request) => Effect.suspend(() => isDown ? down : memory.release(request))
      }
      const logged: Array<unknown> = []
      const logger = Logger.layer([Logger.make(({ message }) => void logged.push(message))])
      const [a, b] = yield* Effect.provide(Effect.all([processOn(store), processOn(store)]), logger)
      const { call, calls } = counted(10)
      for (let nth = 0; nth < 20; nth++) {
        const fiber = yield* forkNow(a.dedupe(call, Summary({ text: `${nth}` })))
        yield* TestClock.adjust(10)
        assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed(`answer ${nth + 1}`))
      }
      assert.strictEqual(calls.started, 20)
      assert.strictEqual(requests, 2)
      assert.isAbove((yield* a.stats).storeErrors, 0)
      assert.strictEqual(logged.length, 1)
      assert.match(String(logged[0]), /the store of flights does not answer/)
      isDown = false
      yield* TestClock.adjust("1 second")
      const key = Summary({ text: "shared again" })
      const fibers = [yield* forkNow(a.dedupe(call, key)), yield* forkNow(b.dedupe(call, key))]
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(yield* Effect.forEach(fibers, Fiber.join), ["answer 21", "answer 21"])
    }))

  it.effect("a store that never answers delays a call by a second, and no answer", () =>
    Effect.gen(function*() {
      const memory = yield* FlightStore.makeMemory()
      const hanging: Store = { ...memory, claim: () => Effect.never, release: () => Effect.never }
      const a = yield* processOn(hanging)
      const fiber = yield* forkNow(a.dedupe(Effect.succeed("called"), Summary({ text: "x" })))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed("called"))
      const silent: Store = { ...memory, complete: () => Effect.never }
      const b = yield* processOn(silent)
      assert.strictEqual(yield* b.dedupe(Effect.succeed("called"), Summary({ text: "y" })), "called")
      // The request that hangs is waited for when a deduplicator closes, for a second.
      yield* TestClock.adjust("1 second")
    }).pipe(quiet))

  it.effect("a store that cannot be interrupted delays a call by a second too", () =>
    Effect.gen(function*() {
      const memory = yield* FlightStore.makeMemory()
      const stuck: Store = { ...memory, claim: () => Effect.uninterruptible(Effect.never) }
      const a = yield* processOn(stuck)
      const fiber = yield* forkNow(a.dedupe(Effect.succeed("called"), Summary({ text: "x" })))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed("called"))
      yield* TestClock.adjust("1 second")
    }).pipe(quiet))

  it.effect("a follower whose store goes down makes its own call", () =>
    Effect.gen(function*() {
      const memory = yield* FlightStore.makeMemory()
      let isDown = false
      const store: Store = {
        ...memory,
        claim: (request) => Effect.suspend(() => isDown ? down : memory.claim(request))
      }
      const [a, b] = [yield* processOn(memory), yield* processOn(store)]
      const key = Summary({ text: "x" })
      yield* forkNow(a.dedupe(Effect.never, key))
      const follower = yield* forkNow(b.dedupe(Effect.succeed("own"), key))
      yield* TestClock.adjust(100)
      assert.isUndefined(follower.pollUnsafe())
      isDown = true
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(follower.pollUnsafe(), Exit.succeed("own"))
    }).pipe(quiet))

  it.effect("notifications that fail are subscribed to again, less and less often", () =>
    Effect.gen(function*() {
      const memory = yield* FlightStore.makeMemory()
      let subscriptions = 0
      const works = Stream.suspend(() => memory.finished ?? Stream.never)
      const finished = Stream.suspend(() => ++subscriptions <= 10 ? Stream.fromEffect(down) : works)
      const store: Store = { ...memory, finished }
      const [a, b] = [yield* processOn(memory), yield* processOn(store)]
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(subscriptions, 6)
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(subscriptions, 11)
      const { call } = counted(1_250)
      yield* forkNow(a.dedupe(call, Summary({ text: "x" })))
      const follower = yield* forkNow(b.dedupe(call, Summary({ text: "x" })))
      // It would ask again after two seconds.
      yield* TestClock.adjust(1_260)
      assert.deepStrictEqual(follower.pollUnsafe(), Exit.succeed("answer 1"))
    }))

  it.effect("a store without notifications is asked again every quarter of a second", () =>
    Effect.gen(function*() {
      const store: Store = { ...yield* FlightStore.makeMemory(), finished: undefined }
      const [a, b] = [yield* processOn(store), yield* processOn(store)]
      const { call } = counted(300)
      yield* forkNow(a.dedupe(call, Summary({ text: "x" })))
      const follower = yield* forkNow(b.dedupe(call, Summary({ text: "x" })))
      yield* TestClock.adjust(400)
      assert.isUndefined(follower.pollUnsafe())
      yield* TestClock.adjust(150)
      assert.deepStrictEqual(follower.pollUnsafe(), Exit.succeed("answer 1"))
    }))

  it.effect("invalidate and invalidateOperation also delete from the store, and void the flight that runs", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const [a, b, c] = [yield* processOn(store), yield* processOn(store), yield* processOn(store)]
      let calls = 0
      const call = Effect.sync(() => `answer ${++calls}`)
      yield* a.dedupe(call, Hourly("x"))
      yield* a.invalidate(Hourly("x"))
      assert.strictEqual(yield* b.dedupe(call, Hourly("x")), "answer 2")
      yield* b.invalidateOperation(Hourly)
      assert.strictEqual(yield* c.dedupe(call, Hourly("x")), "answer 3")
      const running = yield* forkNow(a.dedupe(Effect.delay(Effect.succeed("outdated"), "1 second"), Hourly("y")))
      yield* settle
      yield* b.invalidate(Hourly("y"))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(running), "outdated")
      assert.strictEqual(yield* b.dedupe(call, Hourly("y")), "answer 4")
    }))

  it.effect("purgeTenant deletes the results of one tenant from the store, and fails if the store is down", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const a = yield* processOn(store, { timeToLive: "1 hour" })
      const ask = (tenant: string) => a.dedupe(Effect.succeed(tenant), Summary({ text: "x", tenant }))
      yield* Effect.forEach(["1", "2"], ask)
      assert.deepStrictEqual([yield* a.purgeTenant("1"), yield* a.purgeTenant("1")], [1, 0])
      const b = yield* processOn(store)
      assert.strictEqual(yield* b.dedupe(Effect.succeed("new"), Summary({ text: "x", tenant: "1" })), "new")
      assert.strictEqual(yield* b.dedupe(Effect.succeed("new"), Summary({ text: "x", tenant: "2" })), "2")
      const c = yield* processOn({ ...store, purge: () => down })
      assert.strictEqual((yield* Effect.flip(c.purgeTenant("1")))._tag, "StoreError")
    }).pipe(quiet))

  it.effect("a store gets hashes of the operation, the tenant and the input, and no text of them", () =>
    Effect.gen(function*() {
      const memory = yield* FlightStore.makeMemory()
      const sent: Array<unknown> = []
      const store: Store = {
        ...memory,
        claim: (request) => Effect.suspend(() => (sent.push(request), memory.claim(request))),
        complete: (request) => Effect.suspend(() => (sent.push(request), memory.complete(request))),
        purge: (request) => Effect.suspend(() => (sent.push(request), memory.purge(request)))
      }
      const a = yield* processOn(store)
      yield* a.dedupe(Effect.succeed("answer"), Summary({ text: "canary input", tenant: "canary tenant" }))
      yield* a.purgeTenant("canary tenant")
      yield* settle
      assert.strictEqual(sent.length, 3)
      assert.notMatch(JSON.stringify(sent), /canary|summary/)
    }))

  it.effect("a stream is not shared with other processes", () =>
    Effect.gen(function*() {
      const store = yield* FlightStore.makeMemory()
      const [a, b] = [yield* processOn(store), yield* processOn(store)]
      const { call, calls } = counted()
      for (const { dedupeStream } of [a, b]) {
        yield* forkNow(Stream.runDrain(dedupeStream(Stream.fromEffect(call), Summary({ text: "x" }))))
      }
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(calls.started, 2)
    }))

  it.effect("a deduplicator that closes releases its lease, and waits for the store", () =>
    Effect.gen(function*() {
      const memory = yield* FlightStore.makeMemory()
      const slow: Store = { ...memory, release: (request) => Effect.delay(memory.release(request), 100) }
      const key = Summary({ text: "x" })
      const process = yield* forkNow(Effect.scoped(Effect.gen(function*() {
        const { dedupe } = yield* processOn(slow)
        yield* forkNow(dedupe(Effect.never, key))
        yield* Effect.sleep("1 second")
      })))
      yield* TestClock.adjust("1050 millis")
      assert.isUndefined(process.pollUnsafe())
      yield* TestClock.adjust("100 millis")
      yield* Fiber.join(process)
      const b = yield* processOn(memory)
      assert.strictEqual(yield* b.dedupe(Effect.succeed("called"), key), "called")
    }))

  it.effect("to share without a store is an invalid option, and a store alone shares nothing", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Deduplicator.make({ shared: true }))
      assert.match(error.message, /shared.*needs a FlightStore in the context/)
      const policy = yield* Effect.flip(
        Sluice.make({ name: "gpt", deduplicator: { shared: true } }).pipe(
          Effect.provide(Sluice.layerStoresMemory)
        )
      )
      assert.match(policy.message, /shared.*needs a FlightStore/)
      const store = yield* FlightStore.makeMemory()
      const [a, b] = [yield* processOn(store, { shared: false }), yield* processOn(store, { shared: false })]
      const { call, calls } = counted()
      for (const { dedupe } of [a, b]) yield* forkNow(dedupe(call, Summary({ text: "x" })))
      yield* settle
      assert.strictEqual(calls.started, 2)
    }))

  it.effect("policies of two processes share calls, and each report says how the call was served", () =>
    Effect.gen(function*() {
      const stores = Layer.mergeAll(Sluice.layerStoresMemory, FlightStore.layerMemory)
      const context = yield* Layer.build(stores)
      const policy = Effect.provide(
        Sluice.make({ name: "gpt", deduplicator: { shared: true }, backpressure: { capacity: 1 } }),
        context
      )
      const [a, b] = [yield* policy, yield* policy]
      const { call, calls } = counted()
      const dedupe = Summary({ text: "x" })
      const fibers = yield* Effect.forEach(
        [a, b],
        (policy) => forkNow(Sluice.withReport(policy.protect(call, { dedupe })))
      )
      yield* TestClock.adjust("3 seconds")
      const reports = yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(
        reports.map(([exit, { attempts, served }]) => [exit, served, attempts]),
        [[Exit.succeed("answer 1"), "Led", 1], [Exit.succeed("answer 1"), "Joined", 0]]
      )
      assert.strictEqual(calls.started, 1)
      assert.match(a.describe.join("\n"), /shared with other processes/)
    }))
})
