import { assert, describe, it } from "@effect/vitest"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Effect, Layer, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir, userInfo } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { type Runs, startProcess } from "../../../../test/support/faults/process.ts"
import { describeFaults, recoveredIsUsedAgain, type Rig } from "../../../../test/support/faults/suite.ts"
import { files, type State, states, titleOf } from "../../../../test/support/faults/table.ts"
import type { Ends } from "../fixtures/state.ts"
import * as FileFaults from "../support/fileFaults.ts"

const { killed, readOnlyFile, full, ...faultsOfAll } = files

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "sluice-sqlite-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

const migrate = (file: string) =>
  SqlStores.migrate().pipe(Effect.provide(SqlDatabase.layer({ url: file }), { local: true }), Effect.orDie)

const storesOf = (file: string, options: { readonly busyTimeout?: "200 millis" } = {}) =>
  SqlStores.layer().pipe(Layer.provide(SqlDatabase.layer({ url: file, ...options })))

/** Holds the file locked for at least the time, and for as long as the test needs. */
const locks = (file: string, atLeastMillis: number) => {
  let release = () => Promise.resolve()
  let free = 0
  return {
    begin: Effect.promise(async () => {
      release = await FileFaults.lock(file)
      free = performance.now() + atLeastMillis
    }),
    end: Effect.andThen(
      Effect.suspend(() => Effect.sleep(Math.max(0, free - performance.now()))),
      Effect.promise(() => release())
    )
  }
}

const rigOf = (fault: keyof typeof faultsOfAll) =>
  Effect.gen(function*() {
    const file = join(yield* folder, "store.db")
    yield* migrate(file)
    const nothing = Effect.void
    const rig = (begin: Effect.Effect<unknown>, end: Effect.Effect<unknown> = nothing, more?: Partial<Rig>): Rig => ({
      stores: storesOf(file),
      begin: Effect.asVoid(begin),
      end: Effect.asVoid(end),
      ...more
    })
    const remove = Effect.sync(() => FileFaults.remove(file))
    switch (fault) {
      case "locked": {
        const { begin, end } = locks(file, 5_000)
        return rig(begin, end)
      }
      case "busy": {
        const { begin, end } = locks(file, 0)
        return rig(begin, end, { stores: storesOf(file, { busyTimeout: "200 millis" }) })
      }
      case "deleted":
        return rig(remove, migrate(file))
      case "corrupt":
        return rig(Effect.sync(() => FileFaults.corrupt(file)), Effect.andThen(remove, migrate(file)))
      case "flushed":
        return rig(
          SqlClient.SqlClient.use((sql) =>
            Effect.flatMap(
              sql<
                { name: string }
              >`SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'sluice\\_%' ESCAPE '\\'
                AND name NOT LIKE '%migrations%'`,
              (tables) => Effect.forEach(tables, ({ name }) => sql`DELETE FROM ${sql(name)}`)
            )
          ).pipe(Effect.provide(SqlDatabase.layer({ url: file }), { local: true }), Effect.orDie)
        )
      case "clockForward":
      case "clockBack": {
        let hours = 0
        const set = Effect.sync(() => {
          hours = fault === "clockForward" ? 1 : -1
        })
        return rig(set, nothing, { hoursOff: () => hours })
      }
    }
  })

describeFaults("a file of SQLite", faultsOfAll, rigOf)

const noMount = "no right to mount a small file system"
const mounted = await FileFaults.smallDisk(tmpdir())
await mounted?.remove()

if (mounted === undefined) {
  process.stderr.write(`a full disk under a file of SQLite: skipped, ${noMount}\n`)
  it.skip(`a full disk under a file of SQLite: ${noMount}`, () => {})
} else {
  describeFaults("a file of SQLite", { full }, () =>
    Effect.gen(function*() {
      const disk = yield* Effect.acquireRelease(
        Effect.promise(async () => (await FileFaults.smallDisk(tmpdir())) ?? assert.fail(noMount)),
        (disk) => Effect.promise(disk.remove)
      )
      const file = join(disk.folder, "store.db")
      yield* migrate(file)
      return { stores: storesOf(file), begin: Effect.sync(disk.fill), end: Effect.sync(disk.free) }
    }))
}

const fixture = fileURLToPath(new URL("../fixtures/state.ts", import.meta.url))

/** Runs the fixture to its end. Root is bound by the modes of files only without this capability. */
const runFixture = (file: string, what: "dies" | "starts") =>
  Effect.promise(async () => {
    const command = [process.execPath, "--conditions=@sluice/source", fixture, file, what]
    const bound = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    const [program = "", ...args] = userInfo().uid === 0 ? [...bound, ...command] : command
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] })
    let output = ""
    child.stdout.on("data", (data) => (output += String(data)))
    const [code, signal] = await once(child, "close") as [number | null, string | null]
    return { code, signal, output }
  })

/** A test for each state, on one run. */
const describeStates = <A>(
  fault: typeof killed | typeof readOnlyFile,
  run: Effect.Effect<A, unknown, Scope.Scope>,
  cells: { readonly [state in State]: (found: A) => void }
) =>
  describe.concurrent(`a file of SQLite ${fault.fault}`, () => {
    let running: Promise<A> | undefined
    for (const state of states) {
      it.live(titleOf(fault, state), () =>
        Effect.map(Effect.promise(() => running ??= Effect.runPromise(Effect.scoped(run))), cells[state]))
    }
  })

const soon = <A>(effect: Effect.Effect<A, unknown>, expected: A) =>
  Effect.repeat(Effect.delay(effect, "50 millis"), { until: (found) => found === expected, times: 400 })

describeStates(
  killed,
  Effect.gen(function*() {
    const file = join(yield* folder, "store.db")
    yield* migrate(file)
    const runs: Runs = new Map()
    const one = yield* startProcess(storesOf(file), runs)
    const { signal } = yield* runFixture(file, "dies")
    const [down, spent] = [yield* one.succeed("down"), yield* one.spent]
    return { signal, down, spent, answer: yield* one.ask("killed"), runs: runs.get("killed") }
  }),
  {
    circuits: ({ down, signal }) => assert.deepStrictEqual([signal, down], ["SIGKILL", "CircuitOpen"]),
    quotas: ({ signal, spent }) => assert.deepStrictEqual([signal, spent], ["SIGKILL", 30]),
    flights: ({ answer, runs, signal }) =>
      assert.deepStrictEqual([signal, answer, runs], ["SIGKILL", "the answer to killed", 1])
  }
)

describeStates(
  readOnlyFile,
  Effect.gen(function*() {
    const place = yield* folder
    const file = join(place, "store.db")
    yield* migrate(file)
    const runs: Runs = new Map()
    const both = [yield* startProcess(storesOf(file), runs), yield* startProcess(storesOf(file), runs)] as const
    const [one, two] = both
    yield* Effect.repeat(one.fail("down"), { until: (end) => end !== "failed" })
    yield* one.spend(30)
    yield* one.ask("before")
    yield* soon(two.succeed("down"), "CircuitOpen")
    const modes = (ofFile: number, ofFolder: number) =>
      Effect.sync(() => {
        for (const end of ["", "-wal", "-shm"]) if (existsSync(file + end)) chmodSync(file + end, ofFile)
        chmodSync(place, ofFolder)
      })
    yield* Effect.acquireRelease(modes(0o400, 0o500), () => modes(0o600, 0o700))
    const ask = Effect.forEach(both, ({ ask }) => ask("during"), { concurrency: "unbounded" })
    yield* ask
    const running = {
      ends: yield* Effect.forEach(both, ({ spend, succeed }) => Effect.zip(succeed("up"), spend(1))),
      new: yield* Effect.andThen(
        Effect.repeat(one.fail("new"), { until: (end) => end !== "failed" }),
        soon(two.succeed("new"), "CircuitOpen")
      ),
      spent: yield* soon(one.spent, 32),
      runs: runs.get("during"),
      warnings: both.flatMap(({ warnings }) => warnings(""))
    }
    const { code, output } = yield* runFixture(file, "starts")
    assert.strictEqual(code, 0)
    return { running, started: JSON.parse(output) as Ends }
  }),
  {
    circuits: ({ running, started }) => {
      assert.deepStrictEqual(running.ends.map(([end]) => end), ["answered", "answered"])
      assert.strictEqual(running.new, "CircuitOpen")
      assert.deepStrictEqual(running.warnings, [])
      const { own, up, warnings } = started
      assert.deepStrictEqual([up, own], ["answered", ["failed", "failed", "CircuitOpen"]])
      assert.lengthOf(warnings.filter((text) => text.includes("circuit breaker long")), 1)
    },
    quotas: ({ running, started }) => {
      assert.deepStrictEqual(running.ends.map(([, end]) => end), ["answered", "answered"])
      assert.strictEqual(running.spent, 32)
      assert.deepStrictEqual([started.rates, started.spend], ["answered", "StoreDown"])
    },
    flights: ({ running, started }) => {
      assert.strictEqual(running.runs, 1)
      assert.deepStrictEqual([started.before, started.ran], ["the answer to before", 1])
    }
  }
)

it.live("a recovered shared circuit is used again by every process within its own retryAfter", () =>
  Effect.gen(function*() {
    const file = join(yield* folder, "store.db")
    yield* migrate(file)
    yield* recoveredIsUsedAgain(storesOf(file))
  }).pipe(Effect.scoped))
