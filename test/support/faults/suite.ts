/** The tests of the table of faults, for any store. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, type Exit, Schedule, type Scope, Struct } from "effect"
import { vi } from "vitest"
import { type HoursOff, type Process, type Runs, startProcess, type Stores } from "./process.ts"
import { type Fault, type Row, type State, states, titleOf } from "./table.ts"

// The cells mostly wait. Vitest's 5 would run fewer than two faults at a time.
vi.setConfig({ maxConcurrency: 12, testTimeout: 180_000 })

/** A server or a file with a fault that has not begun. */
export interface Rig {
  readonly stores: Stores
  /** Of all processes. Default: their clocks are right. */
  readonly hoursOff?: HoursOff
  readonly begin: Effect.Effect<void>
  readonly end: Effect.Effect<void>
}

interface Phases {
  readonly before: Effect.Effect<void, unknown>
  readonly during: Effect.Effect<void, unknown>
  readonly after: Effect.Effect<void, unknown>
}

/** Fails no call for longer than this: the longest timeout of a store, on a busy machine. */
const callTime = "4 seconds"
/** For 20 s. A store that works is used again after a try each second, behind answers that are 5 s late. */
const recoveryTries = 400

const isOutage = (fault: Fault) => !["flushed", "clockForward", "clockBack", "processClocks"].includes(fault)
const losesData = (fault: Fault) => ["restartedEmpty", "flushed", "deleted", "corrupt"].includes(fault)
const isAboutClocks = (fault: Fault) => ["clockForward", "clockBack", "processClocks"].includes(fault)

/** Tries until the assertions hold. */
const soon = <E>(check: Effect.Effect<void, E>) =>
  Effect.suspend(() => check).pipe(
    Effect.catchDefect(Effect.fail),
    Effect.retry(Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(recoveryTries)]))
  )

const is = (call: Effect.Effect<string>, expected: string) =>
  Effect.flatMap(Effect.timeout(call, callTime), (answer) => Effect.sync(() => assert.strictEqual(answer, expected)))

const each = (processes: ReadonlyArray<Process>, use: (process: Process) => Effect.Effect<void, unknown>) =>
  Effect.forEach(processes, use, { discard: true, concurrency: "unbounded" })

const warnsOnce = (fault: Fault, processes: ReadonlyArray<Process>, of: string) =>
  Effect.sync(() => {
    for (const { warnings } of processes) {
      assert.strictEqual(warnings(of).length, isOutage(fault) ? 1 : 0, warnings(of).join("\n"))
    }
  })

interface Cell {
  readonly fault: Fault
  readonly one: Process
  readonly two: Process
  /** Starts another process. */
  readonly another: Effect.Effect<Process, unknown, Scope.Scope>
  readonly runs: Runs
}

/** Fails until the circuit is open. Two failures open it, unless an outage begins or ends between them. */
const open = (process: Process, key: string) =>
  Effect.gen(function*() {
    let failures = 0
    while ((yield* Effect.timeout(process.fail(key), callTime)) === "failed") failures++
    assert.isAtLeast(failures, 2)
    assert.isAtMost(failures, 4)
    yield* is(process.succeed(key), "CircuitOpen")
  })

const circuits = ({ another, fault, one, two }: Cell): Phases => {
  const both = [one, two]
  const areUsed = each(both, ({ succeed }) => is(succeed("up"), "answered"))
  return {
    before: Effect.gen(function*() {
      yield* areUsed
      yield* open(one, "down")
      yield* soon(is(two.succeed("down"), "CircuitOpen"))
      if (isAboutClocks(fault)) {
        yield* is(one.failShort("short"), "failed")
        yield* is(one.failShort("short"), "failed")
      }
    }),
    during: Effect.gen(function*() {
      for (let nth = 0; nth < 5; nth++) yield* areUsed
      if (isOutage(fault)) {
        yield* each(both, ({ succeed }) => is(succeed("down"), "CircuitOpen"))
        if (fault === "replyLost") yield* is(one.fail("counted"), "failed")
        // Each process protects its dependency by itself.
        yield* open(two, "new")
        // At least two more tries of the store.
        for (let nth = 0; nth < 2; nth++) {
          yield* Effect.sleep("1100 millis")
          yield* areUsed
        }
      }
      if (isAboutClocks(fault)) {
        // A second, and what a busy machine adds. An hour would be too long.
        yield* each(
          both,
          ({ succeedShort }) => Effect.timeout(soon(is(succeedShort("short"), "answered")), "5 seconds")
        )
        if (fault === "clockForward") yield* soon(is(two.succeed("down"), "answered"))
        else yield* each([...both, yield* another], ({ succeed }) => is(succeed("down"), "CircuitOpen"))
      }
    }).pipe(Effect.scoped),
    after: Effect.gen(function*() {
      if (isOutage(fault)) {
        yield* each(
          both,
          ({ news, succeed }) =>
            soon(Effect.andThen(is(succeed("up"), "answered"), Effect.sync(() => assert.lengthOf(news("long"), 1))))
        )
      }
      if (!isAboutClocks(fault)) {
        const expected = losesData(fault) ? "Closed" : "Open"
        const late = yield* another
        yield* each(
          [...both, late],
          ({ state }) => soon(Effect.map(state("down"), ({ _tag }) => assert.strictEqual(_tag, expected)))
        )
        if (fault === "replyLost") {
          assert.isAtMost((yield* late.state("counted")).evidence.failures, 1)
        }
        yield* open(one, "after")
        yield* each([two, late], ({ succeed }) => soon(is(succeed("after"), "CircuitOpen")))
      }
      yield* warnsOnce(fault, both, "circuit breaker long")
    }).pipe(Effect.scoped)
  }
}

const quotas = ({ another, fault, one, two }: Cell): Phases => {
  const both = [one, two]
  return {
    before: Effect.gen(function*() {
      yield* each(both, ({ callRates }) => is(callRates, "answered"))
      yield* is(one.spend(30), "answered")
      yield* is(two.spend(20), "answered")
      yield* soon(Effect.map(one.spent, (spent) => assert.strictEqual(spent, 50)))
      if (isAboutClocks(fault)) { for (const { callWindow } of both) yield* is(callWindow, "answered") }
    }),
    during: Effect.gen(function*() {
      const areUsed = each(both, ({ callRates }) => is(callRates, "answered"))
      yield* areUsed
      if (isOutage(fault)) {
        yield* each(both, ({ spend }) => is(spend(1), "StoreDown"))
        for (let nth = 0; nth < 5; nth++) yield* areUsed
        yield* Effect.sleep("2200 millis")
        yield* each(both, ({ spend }) => is(spend(1), "StoreDown"))
      }
      // The window has two places. They are free again after 2 s, and not after an hour.
      if (isAboutClocks(fault)) yield* is(two.callWindow, "answered")
    }),
    after: Effect.gen(function*() {
      yield* each(both, ({ spend }) => soon(is(spend(1), "answered")))
      const late = yield* another
      const expected = losesData(fault) ? 2 : 52
      yield* soon(Effect.map(late.spent, (spent) => assert.strictEqual(spent, expected)))
      // The sum of all processes refuses the rest.
      yield* soon(is(late.spend(100 - expected), "answered"))
      yield* each(both, ({ callRates }) => is(callRates, "answered"))
      yield* warnsOnce(fault, both, "quota of money")
    }).pipe(Effect.scoped)
  }
}

const flights = ({ another, fault, one, runs, two }: Cell): Phases => {
  const both = [one, two]
  const ask = (processes: ReadonlyArray<Process>, text: string) =>
    Effect.forEach(
      processes,
      (process) => Effect.timeout(Effect.map(process.ask(text), (answer) => assert.include(answer, text)), callTime),
      { discard: true, concurrency: "unbounded" }
    )
  const ran = (text: string, times: number) => Effect.sync(() => assert.strictEqual(runs.get(text), times, text))
  return {
    before: Effect.andThen(ask(both, "before"), ran("before", 1)),
    during: Effect.gen(function*() {
      yield* ask(both, "during")
      yield* ran("during", isOutage(fault) ? 2 : 1)
    }),
    after: Effect.gen(function*() {
      let nth = 0
      yield* soon(Effect.suspend(() => {
        const text = `after ${nth++}`
        return Effect.andThen(ask(both, text), ran(text, 1))
      }))
      yield* ask([yield* another], "before")
      // A replica of Postgres has no results: their table is not logged.
      if (fault === "failover") assert.isAtMost(runs.get("before") ?? 0, 2)
      else yield* ran("before", losesData(fault) || fault === "clockForward" ? 2 : 1)
      yield* warnsOnce(fault, both, "deduplicator answers")
    }).pipe(Effect.scoped)
  }
}

const cells = { circuits, quotas, flights }

/** Runs the cells of a fault together, on one server. */
const runFault = (fault: Fault, rigOf: Effect.Effect<Rig, unknown, Scope.Scope>) =>
  Effect.gen(function*() {
    const { begin, end, hoursOff = () => 0, stores } = yield* rigOf
    const runs: Runs = new Map()
    const start = (hours: number) => startProcess(stores, runs, () => hoursOff() + hours)
    const off = fault === "processClocks" ? 1 : 0
    const [one, two] = [yield* start(off), yield* start(-off)]
    const cell: Cell = { fault, one, two, another: start(0), runs }
    const results = new Map<State, Exit.Exit<void, unknown>>()
    const run = (phase: keyof Phases) =>
      Effect.forEach(states, (state) =>
        Effect.suspend(() =>
          results.get(state)?._tag === "Failure"
            ? Effect.void
            : Effect.map(Effect.exit(phases[state][phase]), (exit) => void results.set(state, exit))
        ), { discard: true, concurrency: "unbounded" })
    const phases = { circuits: cells.circuits(cell), quotas: cells.quotas(cell), flights: cells.flights(cell) }
    yield* run("before")
    yield* begin
    yield* run("during")
    yield* end
    yield* run("after")
    return results
  }).pipe(Effect.scoped)

/** The stores have timeouts of a second, which a machine that is too busy exceeds by itself. Then another try on a new server decides. */
const inThreeTries = (...[fault, rigOf]: Parameters<typeof runFault>) =>
  Effect.gen(function*() {
    for (let tries = 1;; tries++) {
      const exits = yield* runFault(fault, rigOf)
      if (tries === 3 || [...exits.values()].every(({ _tag }) => _tag === "Success")) return exits
    }
  })

/**
 * Each process has refused a call of a circuit, and knows for how long. The circuit recovers in one of them. No cached snapshot is read
 * again in this time, except for `retryAfter`.
 */
export const recoveredIsUsedAgain = (stores: Stores) =>
  Effect.gen(function*() {
    const processes = yield* Effect.forEach([1, 2, 3, 4], () => startProcess(stores, new Map()))
    const [one, ...others] = processes
    assert.isDefined(one)
    yield* is(one.failShort("recovers"), "failed")
    yield* is(one.failShort("recovers"), "failed")
    const waits = yield* Effect.forEach(others, ({ refusedFor }) => refusedFor("recovers"), {
      concurrency: "unbounded"
    })
    yield* soon(is(one.succeedShort("recovers"), "answered"))
    yield* Effect.forEach(others, ({ refusedFor }, index) =>
      Effect.gen(function*() {
        let wait = waits[index]
        assert.isDefined(wait)
        // Its probe slot may be taken, by a process that is as far. That is another refusal, with its own `retryAfter`.
        for (let nth = 0; wait !== undefined; nth++) {
          assert.isBelow(nth, 3)
          assert.isBelow(Duration.toMillis(wait), 5_000)
          yield* Effect.sleep(wait)
          wait = yield* refusedFor("recovers")
        }
      }), { discard: true, concurrency: "unbounded" })
  }).pipe(Effect.scoped)

/** A test for each cell of the table. */
export const describeFaults = <Name extends Fault>(
  store: string,
  table: { readonly [fault in Name]: Row },
  rigOf: (fault: Name) => Effect.Effect<Rig, unknown, Scope.Scope>
): void => {
  for (const fault of Struct.keys(table)) {
    const row = table[fault]
    describe.concurrent(`${store} ${row.fault}`, () => {
      let running: Promise<ReadonlyMap<State, Exit.Exit<void, unknown>>> | undefined
      for (const state of states) {
        it.live(titleOf(row, state), () =>
          Effect.gen(function*() {
            const exits = yield* Effect.promise(() => running ??= Effect.runPromise(inThreeTries(fault, rigOf(fault))))
            yield* exits.get(state) ?? Effect.die(new Error("the cell did not run"))
          }))
      }
    })
  }
}
