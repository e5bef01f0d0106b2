import { assert, describe, it } from "@effect/vitest"
import * as Quota from "@sluice/core/Quota"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Effect, Layer } from "effect"
import { join } from "node:path"
import type { Ended } from "../support/command.ts"
import * as Process from "../support/command.ts"
import { folder } from "../support/files.ts"
import { processTimeout } from "../support/timeouts.ts"

const options: Quota.QuotaOptions = {
  limits: [Quota.requestsPerMinute(500), Quota.perDay("money", Quota.usd(20))],
  burst: 0,
  slice: false
}

/** A file with the use of a quota, and a process that uses it. */
const fleet = Effect.gen(function*() {
  const url = `sqlite:${join(yield* folder, "fleet.sqlite")}`
  const stores = yield* Layer.build(Layer.provide(SqlStores.layerMigrate(), SqlDatabase.layer({ url })))
  const quota = yield* Effect.provide(Quota.make(options), stores)
  const call = Effect.void.pipe(
    quota.withQuota({ key: "main/gpt-5", amounts: { money: Quota.usd(0.25) }, usage: () => ({}) })
  )
  // The store is told of the last call after the call.
  yield* Effect.repeat(call, { times: 11 })
  yield* Effect.sleep("300 millis")
  const run = (...args: ReadonlyArray<string>) =>
    Effect.promise(() => Process.run(["quotas", ...args], { SLUICE_STORE: url, NO_COLOR: "1" }))
  const limits = Effect.map(quota.snapshot("main/gpt-5"), ({ levels }) => levels.map(({ limit }) => limit))
  return { call, limits, run, url }
})

const done = ({ code, stderr, stdout }: Ended): string => {
  assert.strictEqual(code, 0, stderr)
  return stdout
}

const reason = ["--reason", "another team needs the account"]

describe("sluice quotas", { timeout: processTimeout }, () => {
  it.live("set lowers a limit of a process that runs and raises it to its own at most, list shows it with its reason, and none ends it", () =>
    Effect.gen(function*() {
      const { call, limits, run } = yield* fleet
      assert.strictEqual(
        done(yield* run("list")),
        "main/gpt-5  money/day     $3.00 used\nmain/gpt-5  requests/min  12 used\n"
      )
      assert.strictEqual(
        done(yield* run("set", "gpt-5", "requests/min=50", ...reason)),
        "main/gpt-5 has at most 50 requests/min for 1h 00m.\n"
      )
      done(yield* run("set", "main/gpt-5", "money/day=5", "--for", "2h", ...reason))
      yield* call
      assert.deepStrictEqual(yield* limits, [50, 5_000_000])
      const after = done(yield* run("list"))
      assert.match(after, /^main\/gpt-5  requests\/min  13 used, by hand at most 50 until .*\d\d:\d\d$/m)
      assert.match(
        after,
        /\nDone by hand\n\d\d:\d\d  main\/gpt-5  money\/day at most \$5\.00 for 2h 00m by \S+@\S+: another team needs the account\n/
      )
      const [money, requests] = done(yield* run("list", "--json")).trim().split("\n").map((line) => JSON.parse(line))
      assert.deepInclude(money, { quota: "main/gpt-5", dimension: "money", windowMillis: 86_400_000, used: 3.25 })
      assert.strictEqual(money.byHand.limit, 5)
      assert.deepInclude(requests, { dimension: "requests", used: 13 })

      for (const [asked, holds] of [[80, 80], [600, 500], [60, 60]]) {
        done(yield* run("set", "main/gpt-5", `requests/min=${asked}`, ...reason))
        yield* call
        assert.deepStrictEqual(yield* limits, [holds, 5_000_000])
      }

      const shorter = yield* run("set", "main/gpt-5", "money/day=4", "--for", "1h", ...reason)
      assert.include(done(shorter), "at most $4.00 money/day for 1h 5")
      assert.include(shorter.stderr, "End it with money/day=none")
      for (const name of ["requests/min", "money/day"]) {
        done(yield* run("set", "main/gpt-5", `${name}=none`, "--reason", "they are done"))
      }
      yield* call
      assert.deepStrictEqual(yield* limits, [500, 20_000_000])
      assert.notInclude(done(yield* run("list")), "by hand at most")
    }))

  it.live("wrong uses are refused in one line and change nothing", () =>
    Effect.gen(function*() {
      const { run } = yield* fleet
      const cases: ReadonlyArray<readonly [args: ReadonlyArray<string>, says: string]> = [
        [["sett", "gpt-5", "requests/min=5", ...reason], "did you mean set?"],
        [["set", "gpt-5", ...reason], "LIMIT must be a limit and a number"],
        ...["requests/min", "requests/year=5", "requests/min=0", "requests/min=-5", "money/day=x", "=5"].map((limit) =>
          [["set", "gpt-5", limit, ...reason], "LIMIT must be a limit and a number"] as const
        ),
        [["set", "gpt-5", "requests/min=5"], "set needs --reason TEXT"],
        [["set", "gpt-5", "requests/min=5", "--reason", "abc"], "--reason must have"],
        [["set", "gpt-5", "requests/min=5", "--for", "3d", ...reason], "--for is"],
        [["set", "gpt-5", "requests/min=none", "--for", "1h", ...reason], "LIMIT=none takes no --for"],
        [["set", "gpt-4", "requests/min=5", ...reason], "no quota is named gpt-4"],
        [["set", "gpt-5", "tokens/min=5", ...reason], "main/gpt-5 has no tokens/min; it has money/day, requests/min"],
        [["list", "gpt-5"], "list takes no name"],
        [["list", ...reason], "list takes no --reason"]
      ]
      yield* Effect.forEach(
        cases,
        ([args, says]) => Effect.map(run(...args), (ended) => Process.refused(ended, says)),
        { concurrency: 4 }
      )
      assert.notInclude(done(yield* run("list")), "by hand")
    }))
})
