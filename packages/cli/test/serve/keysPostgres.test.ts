import { assert } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Fiber, Schedule } from "effect"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { describeWithPostgres, Place } from "../../../sql/test/support/databases.ts"
import { startServer } from "../../../sql/test/support/server.ts"
import * as Process from "../support/command.ts"
import { folder } from "../support/files.ts"
import { ask, type Gateway, logsOf, over, start } from "../support/gateway.ts"
import { says } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const until = (gateway: Gateway, token: string, wanted: number) =>
  Effect.repeat(ask(gateway, token), { until: ({ status }) => status === wanted, schedule: Schedule.spaced(20) }).pipe(
    Effect.timeout("60 seconds")
  )

const migrated = (url: string) =>
  Effect.map(
    Effect.promise(() => Process.run(["migrate", "${SLUICE_KEYS}"], { SLUICE_KEYS: url })),
    ({ code, stdout }) => {
      assert.strictEqual(code, 0)
      assert.match(stdout, /^keys: made 0001_keys$/m)
    }
  )

await describeWithPostgres("the keys of gateways in Postgres", (it) => {
  it.effect("sluice keys adds and removes them for all gateways", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({})
      const { url } = yield* Place
      const directory = yield* folder
      const own = { SLUICE_KEYS: url }
      const keys = (...args: ReadonlyArray<string>) =>
        Effect.promise(() => Process.run(["keys", ...args], own, directory))
      Process.refused(yield* keys("list"), ": the tables are missing. Run `sluice migrate URL`")
      yield* migrated(url)
      const added = yield* keys("add", "ann", "--models", "m*")
      assert.include(added.stderr, `Added the key of ann to postgres://`)
      const ann = added.stdout.trim()
      const { args, env } = over(provider)
      const gateways = yield* Effect.all(
        [1, 2].map(() => start(directory, args, { ...env, ...own })),
        { concurrency: 2 }
      )
      for (const gateway of gateways) assert.strictEqual((yield* ask(gateway, ann)).status, 200)
      const bob = (yield* keys("add", "bob", "--max-cost-per-day", "5")).stdout.trim()
      for (const gateway of gateways) yield* until(gateway, bob, 403)
      yield* keys("remove", "ann")
      for (const gateway of gateways) yield* until(gateway, ann, 401)
      const { stdout } = yield* keys("list")
      assert.match(stdout, /\nbob +\d{4}-\d\d-\d\d +- +- +\$0 of \$5\.00 +all\n$/)
      assert.isFalse(existsSync(join(directory, "sluice-keys.sqlite")))
    }), processTimeout)

  it.effect("a gateway keeps its keys while the server is down, and says so once", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({})
      const server = yield* Effect.acquireRelease(
        Effect.promise(() => startServer()),
        (server) => Effect.sync(() => server?.stop())
      )
      assert.isDefined(server, "no Postgres in /usr/lib/postgresql")
      const directory = yield* folder
      const own = { SLUICE_KEYS: server!.url }
      yield* migrated(server!.url)
      const ann = (yield* Effect.promise(() => Process.run(["keys", "add", "ann"], own, directory))).stdout.trim()
      const { args, env } = over(provider)
      const gateway = yield* start(directory, args, { ...env, ...own })
      const loss = yield* Effect.forkChild(says(gateway.command, `"event":"keys"`), { startImmediately: true })
      server!.stop()
      yield* Fiber.join(loss)
      for (let calls = 0; calls < 4; calls++) {
        assert.strictEqual((yield* ask(gateway, ann)).status, 200)
        yield* Effect.sleep("250 millis")
      }
      gateway.command.process.kill("SIGTERM")
      const { code, stderr } = yield* Effect.promise(() => gateway.command.ended)
      assert.strictEqual(code, 0, stderr)
      assert.isTrue(logsOf(stderr).some(({ event }) => String(event).includes("set --store")), stderr)
      const told = logsOf(stderr).filter(({ event }) => event === "keys")
      assert.strictEqual(told.length, 1, stderr)
      assert.include(String(told[0]?.["why"]), "cannot use the keys in postgres://127.0.0.1")
    }), processTimeout)

  it.effect("a gateway does not start without the server of its keys", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.promise(() =>
        Process.run(["serve", "--target", "a=http://127.0.0.1:1"], { SLUICE_KEYS: "postgres://a:canary@127.0.0.1:1/b" })
      )
      Process.refused(refused, "cannot use the keys in postgres://127.0.0.1:1/b: no server answers there")
      const written = yield* Effect.promise(() => Process.run(["keys", "list", "--keys", "postgres://a:canary@b/c"]))
      Process.refused(written, "--keys has a password, which other users can see; write ${NAME} of a variable")
      const migrated = yield* Effect.promise(() => Process.run(["migrate", "postgres://a:canary@b/c"]))
      Process.refused(migrated, "URL has a password, which other users can see")
      for (const { stderr } of [refused, written, migrated]) assert.notInclude(stderr, "canary")
    }), processTimeout)
})
