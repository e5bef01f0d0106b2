import { assert, describe, it } from "@effect/vitest"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Effect, Layer } from "effect"
import { join } from "node:path"
import type { Ended } from "../support/command.ts"
import * as Process from "../support/command.ts"
import { folder } from "../support/files.ts"
import { processTimeout } from "../support/timeouts.ts"

/** A file with an open circuit and two that are closed. */
const fleet = Effect.gen(function*() {
  const url = `sqlite:${join(yield* folder, "fleet.sqlite")}`
  const stores = Layer.provide(SqlStores.layerMigrate(), SqlDatabase.layer({ url }))
  const breakers = Effect.gen(function*() {
    const breaker = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(1), openFor: "1 hour" })
    yield* Effect.exit(breaker.guard(Effect.fail("503"), { key: "gateway/main" }))
    for (const key of ["gateway/azure", "nightly/azure"]) yield* breaker.guard(Effect.void, { key })
  })
  yield* Effect.provide(Effect.scoped(breakers), stores)
  const run = (...args: ReadonlyArray<string>) =>
    Effect.promise(() => Process.run(["circuits", ...args], { SLUICE_STORE: url, NO_COLOR: "1" }))
  return { url, run }
})

const done = ({ code, stderr, stdout }: Ended): string => {
  assert.strictEqual(code, 0, stderr)
  assert.strictEqual(stderr, "")
  return stdout
}

const reason = ["--reason", "region moves, INC-2231"]

describe("sluice circuits", { timeout: processTimeout }, () => {
  it.live("list shows what each circuit does, and each change with who made it, when and why", () =>
    Effect.gen(function*() {
      const { run } = yield* fleet
      const before = done(yield* run("list"))
      assert.match(
        before,
        /^gateway\/azure  takes calls\ngateway\/main   takes no calls for \S+, asked again in (?:59m \d\ds|1h 00m)\n/
      )
      assert.notInclude(before, "Done by hand")
      assert.strictEqual(done(yield* run("open", "main", ...reason)), "gateway/main takes no calls for 1h 00m.\n")
      done(yield* run("close", "gateway/azure", "--for", "none", ...reason))
      done(yield* run("reset", "main", "--reason", "it has moved"))
      const after = done(yield* run("list"))
      assert.match(after, /^gateway\/azure  held closed, all calls, without an end: region moves, INC-2231$/m)
      assert.match(after, /^gateway\/main +takes calls$/m)
      const [, changes = ""] = after.split("\nDone by hand\n")
      assert.match(
        changes,
        new RegExp(
          String.raw`^\d\d:\d\d  gateway/main +left to its circuit by \S+@\S+: it has moved\n` +
            String.raw`\d\d:\d\d  gateway/azure +held closed without an end by \S+@\S+: region moves, INC-2231\n` +
            String.raw`\d\d:\d\d  gateway/main +held open for 1h 00m by \S+@\S+: region moves, INC-2231\n$`
        )
      )
    }))

  it.live("--json prints a line for each circuit, with its last change by hand", () =>
    Effect.gen(function*() {
      const { run } = yield* fleet
      done(yield* run("open", "gateway/azure", "--for", "15m", ...reason))
      const rows = done(yield* run("list", "--json")).trim().split("\n").map((line) => JSON.parse(line))
      assert.deepStrictEqual(rows.map(({ circuit, state }) => [circuit, state]), [
        ["gateway/azure", "forced-open"],
        ["gateway/main", "open"],
        ["nightly/azure", "closed"]
      ])
      const [azure, main] = rows
      assert.strictEqual(azure.until - azure.since, 900_000)
      assert.deepInclude(azure.changed, { what: "open", reason: reason[1], until: azure.changed.at + 900_000 })
      assert.deepInclude(main, { openings: 1, because: { calls: 1, failures: 1, slow: 0 } })
      assert.notProperty(main, "changed")
    }))

  it.live("watch prints a line for each circuit and then for each change when it is piped, and ends by a signal", () =>
    Effect.gen(function*() {
      const { run, url } = yield* fleet
      const watch = Process.start(["circuits", "watch"], { SLUICE_STORE: url })
      yield* Effect.addFinalizer(() => Effect.sync(() => watch.process.kill("SIGKILL")))
      yield* Effect.promise(() => watch.says("nightly/azure"))
      done(yield* run("open", "main", ...reason))
      yield* Effect.promise(() => watch.says("held open"))
      watch.process.kill("SIGINT")
      const lines = done(yield* Effect.promise(() => watch.ended)).trimEnd().split("\n")
      assert.lengthOf(lines, 4)
      for (const line of lines) assert.match(line, /^\d{4}-\d\d-\d\dT[\d:.]+Z  \S+  /)
      assert.match(lines[3] ?? "", /  gateway\/main  held open, no calls, until .*: region moves, INC-2231$/)
    }))

  it.live("wrong uses are refused in one line and change nothing", () =>
    Effect.gen(function*() {
      const { run } = yield* fleet
      const cases: ReadonlyArray<readonly [args: ReadonlyArray<string>, says: string]> = [
        [["opne", "main", ...reason], "did you mean open?"],
        [["open", ...reason], "open needs a name"],
        [["open", "main"], "open needs --reason TEXT"],
        [["open", "main", "--reason", "abc"], "--reason must have 4 to 200 characters"],
        [["open", "main", "--reason", "a bell \u0007"], "--reason must have"],
        [["open", "main", "--for", "40d", ...reason], "--for is \"40d\"; it must be a duration"],
        [["open", "gateway/mian", ...reason], "did you mean gateway/main?"],
        [["open", "elsewhere", ...reason], "no circuit is named elsewhere"],
        [["open", "azure", ...reason], "gateway/azure or nightly/azure"],
        [["reset", "main", "--for", "1h", ...reason], "reset takes no --for"],
        [["list", "main"], "list takes no name"],
        [["watch", ...reason], "watch takes no --reason"],
        [["list", "--store", "sqlite:nowhere.sqlite"], "there is no file nowhere.sqlite"],
        [["list", "--store", "redis://127.0.0.1:1"], "the store in redis://127.0.0.1:1 does not answer"],
        [["list", "--store", "postgres://a:canary@127.0.0.1:1/b"], "has a password, which other users can see"],
        [["list", "--store", "mysql://a/b"], "redis://, rediss://, postgres://, postgresql:// or sqlite:"]
      ]
      yield* Effect.forEach(
        cases,
        ([args, says]) => Effect.map(run(...args), (ended) => Process.refused(ended, says)),
        { concurrency: 4 }
      )
      assert.notInclude(done(yield* run("list")), "Done by hand")
    }))

  it.live("a circuit that no call has used can be held by its whole name, if that is meant", () =>
    Effect.gen(function*() {
      const { run } = yield* fleet
      done(yield* run("open", "gateway/new", "--unused", ...reason))
      assert.include(done(yield* run("list")), "gateway/new    held open, no calls, until")
    }))
})
