import { afterAll, assert, it } from "@effect/vitest"
import { Arbitrary, Deferred, Effect, Exit, Fiber, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Deduplicator from "../src/Deduplicator.ts"
import { upTo } from "./support/commands.ts"

const capacity = 2
const maxWaiters = 3
const successMillis = 100
const failureMillis = 50
const keys = ["a", "b", "c", "d"] as const

type Key = typeof keys[number]
type Answer = "succeed" | "fail" | "die"

/** What callers and time can do to a deduplicator. `nth` picks one of those that exist. */
type Command =
  | { readonly do: "call" | "claim" | "await" | "invalidate"; readonly key: Key }
  /** Interrupts a waiting caller. */
  | { readonly do: "leave"; readonly nth: number }
  /** Ends a run. */
  | { readonly do: "end"; readonly nth: number; readonly how: Answer }
  /** Settles a lease, or closes its scope. */
  | { readonly do: "settle"; readonly nth: number; readonly how: "complete" | "fail" | "abandon" }
  | { readonly do: "wait"; readonly millis: number }
  | { readonly do: "invalidateOperation" }

// A command listed more often is drawn more often. Times are within, just before and exactly at a time to live.
const commands = (key: Key, nth: number): ReadonlyArray<Command> => [
  // First, so that a failing sequence shrinks to commands that do nothing, around those that matter.
  { do: "wait", millis: 0 },
  { do: "call", key },
  { do: "call", key },
  { do: "call", key },
  { do: "call", key },
  { do: "call", key },
  { do: "call", key: "a" },
  { do: "call", key: "a" },
  { do: "await", key },
  { do: "claim", key },
  { do: "claim", key },
  { do: "leave", nth },
  { do: "leave", nth },
  { do: "end", nth, how: "succeed" },
  { do: "end", nth, how: "succeed" },
  { do: "end", nth, how: "succeed" },
  { do: "end", nth, how: "succeed" },
  { do: "end", nth, how: "succeed" },
  { do: "end", nth, how: "succeed" },
  { do: "end", nth, how: "fail" },
  { do: "end", nth, how: "die" },
  { do: "settle", nth, how: "complete" },
  { do: "settle", nth, how: "fail" },
  { do: "settle", nth, how: "abandon" },
  { do: "settle", nth, how: "abandon" },
  { do: "wait", millis: 1 },
  { do: "wait", millis: failureMillis },
  { do: "wait", millis: successMillis - failureMillis - 1 },
  { do: "wait", millis: successMillis },
  { do: "invalidate", key },
  { do: "invalidateOperation" }
]

const command = Arbitrary.map(
  Arbitrary.schema(Schema.Tuple([upTo(commands("a", 0).length - 1), upTo(keys.length - 1), upTo(9)])),
  ([which, key, nth]) => commands(keys[key]!, nth)[which]!
)

/** How a call ended: with an exit, or with the name of what came instead. */
type End = Exit.Exit<string, string> | "Refused" | "Abandoned" | "Interrupted"

/** A caller in the model. */
interface Caller {
  readonly key: Key
  /** Whether it awaits what a claim found, and has no effect to run. */
  readonly awaits: boolean
  readonly served: Array<Deduplicator.Served>
  end: End | undefined
}

interface ModelFlight {
  readonly key: Key
  /** The caller whose effect runs. `undefined` under a lease. */
  readonly leader: Caller | undefined
  readonly waiters: Array<Caller>
  over: boolean
}

interface ModelResult {
  readonly key: Key
  readonly exit: Exit.Exit<string, string>
  readonly until: number
}

/** The deduplicator as lists that are searched from end to end, without Map, links or Effect. */
class Model {
  now = 0
  /** The flights that can be joined. */
  private current: Array<ModelFlight> = []
  /** The least recently used first. */
  private cached: Array<ModelResult> = []
  readonly flights: Array<ModelFlight> = []
  readonly counts = { led: 0, joined: 0, hits: 0, evicted: 0, refused: 0 }

  get stats() {
    const waiting = this.flights.reduce((sum, { waiters }) => sum + waiters.length, 0)
    return { ...this.counts, flights: this.flights.length, cached: this.cached.length, waiting }
  }

  call(caller: Caller): void {
    const found = this.find(caller.key)
    if (found === undefined) {
      caller.served.push("Led")
      this.open(caller.key, caller)
    } else if ("exit" in found) {
      caller.served.push("Cached")
      caller.end = found.exit
    } else {
      this.join(caller, found)
    }
  }

  /** Returns what the key has, or `undefined` after opening a flight for it. */
  claim(key: Key): ModelFlight | ModelResult | undefined {
    const found = this.find(key)
    if (found === undefined) this.open(key, undefined)
    return found
  }

  join(caller: Caller, flight: ModelFlight): void {
    if (flight.waiters.length === maxWaiters) {
      this.counts.refused++
      caller.end = "Refused"
      return
    }
    this.counts.joined++
    if (!caller.awaits) caller.served.push("Joined")
    flight.waiters.push(caller)
  }

  leave(caller: Caller): void {
    caller.end = "Interrupted"
    for (const flight of this.flights) {
      if (!flight.waiters.includes(caller)) continue
      remove(flight.waiters, caller)
      if (flight.waiters.length === 0 && flight.leader !== undefined) this.finish(flight)
    }
  }

  /** Returns whether the flight was still the current one of its key. */
  end(flight: ModelFlight, exit: Exit.Exit<string, string>): boolean {
    const wasCurrent = this.finish(flight)
    const millis = timeToLive(exit)
    if (wasCurrent && millis > 0) this.store({ key: flight.key, exit, until: this.now + millis })
    for (const waiter of flight.waiters.splice(0)) waiter.end = exit
    return wasCurrent
  }

  abandon(flight: ModelFlight): void {
    this.finish(flight)
    for (const waiter of flight.waiters.splice(0)) {
      if (waiter.awaits) waiter.end = "Abandoned"
      else this.call(waiter)
    }
  }

  invalidate(key: Key | undefined): void {
    const isOther = (entry: ModelFlight | ModelResult) => key !== undefined && entry.key !== key
    this.current = this.current.filter(isOther)
    this.cached = this.cached.filter(isOther)
  }

  private find(key: Key): ModelFlight | ModelResult | undefined {
    const flight = this.current.find((flight) => flight.key === key)
    if (flight !== undefined) return flight
    const entry = this.cached.find((entry) => entry.key === key)
    if (entry === undefined) return undefined
    remove(this.cached, entry)
    if (entry.until <= this.now) return undefined
    this.cached.push(entry)
    this.counts.hits++
    return entry
  }

  private open(key: Key, leader: Caller | undefined): void {
    const flight = { key, leader, waiters: leader === undefined ? [] : [leader], over: false }
    this.counts.led++
    this.flights.push(flight)
    this.current.push(flight)
  }

  private finish(flight: ModelFlight): boolean {
    flight.over = true
    remove(this.flights, flight)
    return remove(this.current, flight)
  }

  private store(entry: ModelResult): void {
    this.cached.push(entry)
    // Expired results go first, at most two from the old end.
    for (let looks = 0; looks < 2; looks++) if (this.cached[0]!.until <= this.now) this.cached.shift()
    if (this.cached.length > capacity) {
      this.cached.shift()
      this.counts.evicted++
    }
  }
}

const remove = <A>(from: Array<A>, item: A): boolean => {
  const index = from.indexOf(item)
  if (index >= 0) from.splice(index, 1)
  return index >= 0
}

const timeToLive = (exit: Exit.Exit<string, string>): number => {
  if (Exit.isSuccess(exit)) return successMillis
  return exit.cause.reasons.every((reason) => reason._tag === "Fail") ? failureMillis : 0
}

const Ask = Deduplicator.operation<string, string>()("ask", { key: (key: Key) => key, timeToLive })

/** A caller of the deduplicator. */
interface Running {
  readonly model: Caller
  readonly fiber: Fiber.Fiber<string, string | Deduplicator.TooManyWaiters | Deduplicator.FlightAbandoned>
  readonly served: Array<Deduplicator.Served>
  readonly gate: Deferred.Deferred<string, string>
}

interface Claimed {
  readonly flight: ModelFlight
  readonly scope: Scope.Closeable
  readonly lease: Deduplicator.Lease<string, string>
}

const endOf = (exit: Running["fiber"] extends Fiber.Fiber<infer A, infer E> ? Exit.Exit<A, E> : never): End => {
  if (Exit.hasInterrupts(exit)) return "Interrupted"
  const error = Exit.isFailure(exit) ? exit.cause.reasons.find((reason) => reason._tag === "Fail")?.error : undefined
  if (error instanceof Deduplicator.TooManyWaiters) return "Refused"
  if (error instanceof Deduplicator.FlightAbandoned) return "Abandoned"
  return exit as Exit.Exit<string, string> // our own errors are excluded above
}

/** How often the sequences reached each situation. `afterAll` asserts that none is missed. */
const visited = new Map<string, number>()
const visit = (what: string): void => void visited.set(what, (visited.get(what) ?? 0) + 1)

it.effect.prop(
  "the deduplicator behaves like the model under any sequence of commands",
  [Arbitrary.array(command, { minLength: 40, maxLength: 100 })],
  ([commands]) =>
    Effect.gen(function*() {
      const deduplicator = yield* Deduplicator.Deduplicator
      const model = new Model()
      const callers: Array<Running> = []
      const claims: Array<Claimed> = []
      // Counters of the runs.
      const runs = { started: 0, interrupted: 0 }

      const start = Effect.fnUntraced(function*(
        key: Key,
        found: Extract<Deduplicator.Claim<string, string>, { _tag: "InProgress" }> | undefined
      ) {
        const gate = yield* Deferred.make<string, string>()
        const served: Array<Deduplicator.Served> = []
        const self = Effect.suspend(() => {
          runs.started++
          return Deferred.await(gate)
        }).pipe(Effect.onInterrupt(() => Effect.sync(() => runs.interrupted++)))
        const call = deduplicator.dedupe(self, Ask(key), { onServed: (how) => served.push(how) })
        const fiber = yield* Effect.forkDetach(found === undefined ? call : found.await, { startImmediately: true })
        const caller: Caller = { key, awaits: found !== undefined, served: [], end: undefined }
        callers.push({ model: caller, fiber, served, gate })
        return caller
      })

      const isCurrent = (command: { readonly key: Key }) => model.flights.findLast(({ key }) => key === command.key)

      const run = Effect.fnUntraced(function*(command: Command) {
        switch (command.do) {
          case "call": {
            const caller = yield* start(command.key, undefined)
            return model.call(caller)
          }
          case "claim": {
            const scope = yield* Scope.make()
            const claimed = yield* Scope.provide(deduplicator.claim(Ask(command.key)), scope)
            const found = model.claim(command.key)
            assert.strictEqual(claimed._tag, found === undefined ? "New" : "exit" in found ? "Cached" : "InProgress")
            if (claimed._tag === "Cached" && found !== undefined && "exit" in found) {
              assert.deepStrictEqual(claimed.exit, found.exit)
            }
            if (claimed._tag === "New") claims.push({ flight: isCurrent(command)!, scope, lease: claimed.lease })
            return
          }
          case "await": {
            const claimed = yield* Effect.scoped(deduplicator.claim(Ask(command.key)))
            const found = model.claim(command.key)
            if (claimed._tag === "New") {
              // The key was free, and the claim's scope is closed.
              return model.abandon(isCurrent(command)!)
            }
            if (claimed._tag !== "InProgress" || found === undefined || "exit" in found) return
            return model.join(yield* start(command.key, claimed), found)
          }
          case "leave": {
            const waiting = callers.filter(({ model }) => model.end === undefined)
            const caller = waiting[command.nth % Math.max(1, waiting.length)]
            if (caller === undefined) return
            model.leave(caller.model)
            return yield* Fiber.interrupt(caller.fiber)
          }
          case "end": {
            const flying = model.flights.filter(({ leader }) => leader !== undefined)
            const flight = flying[command.nth % Math.max(1, flying.length)]
            if (flight === undefined) return
            const { gate } = callers.find(({ model }) => model === flight.leader)!
            const exits = {
              succeed: Exit.succeed(`answer ${runs.started}`),
              fail: Exit.fail("busy"),
              die: Exit.die("bug")
            }
            visit(command.how)
            model.end(flight, exits[command.how])
            return yield* Deferred.done(gate, exits[command.how])
          }
          case "settle": {
            const [claimed] = claims.splice(command.nth % Math.max(1, claims.length), 1)
            if (claimed === undefined) return
            const { flight, lease, scope } = claimed
            if (command.how === "abandon") {
              model.abandon(flight)
              visit("abandoned")
              return yield* Scope.close(scope, Exit.void)
            }
            const exit = command.how === "complete" ? Exit.succeed("from a lease") : Exit.fail("from a lease")
            const settled = yield* command.how === "complete"
              ? lease.complete("from a lease")
              : lease.fail("from a lease")
            assert.strictEqual(settled, model.end(flight, exit), "the lease was current")
            assert.isFalse(yield* lease.complete("again"), "a lease is used once")
            return yield* Scope.close(scope, Exit.void)
          }
          case "wait":
            model.now += command.millis
            return yield* TestClock.adjust(command.millis)
          case "invalidate":
            model.invalidate(command.key)
            return yield* deduplicator.invalidate(Ask(command.key))
          case "invalidateOperation":
            model.invalidate(undefined)
            return yield* deduplicator.invalidateOperation(Ask)
        }
      })

      for (const [index, command] of commands.entries()) {
        yield* run(command)
        // Woken callers resume in later turns of the scheduler.
        for (let turns = 0; turns < 5; turns++) yield* Effect.yieldNow
        const at = `after command ${index}, ${JSON.stringify(command)}`
        const { followed: _, storeErrors: __, undecodable: ___, ...stats } = yield* deduplicator.stats
        assert.deepStrictEqual<unknown>(stats, model.stats, at)
        for (const { fiber, model, served } of callers) {
          const exit = fiber.pollUnsafe()
          assert.deepStrictEqual(exit && endOf(exit), model.end, at)
          assert.deepStrictEqual(served, model.served, at)
        }
        for (const [what, count] of Object.entries(stats)) if (count > 0) visit(what)
      }

      for (const { fiber } of callers) yield* Fiber.interrupt(fiber)
      for (const { scope } of claims) yield* Scope.close(scope, Exit.void)
      assert.deepInclude(yield* deduplicator.stats, { flights: 0, waiting: 0 })
      assert.isAtLeast(runs.started, runs.interrupted)
    }).pipe(Effect.provide(Deduplicator.layer({ capacity, maxWaiters }))),
  { arbitrary: { runs: 200, seed: 20_260_902 }, timeout: 120_000 }
)

afterAll(() => {
  const least = { flights: 5_000, waiting: 5_000, cached: 3_000, hits: 3_000, evicted: 1_000, refused: 500 }
  for (const [what, times] of Object.entries(least)) assert.isAbove(visited.get(what) ?? 0, times, what)
  for (const what of ["succeed", "fail", "die", "abandoned"]) assert.isAbove(visited.get(what) ?? 0, 50, what)
})
