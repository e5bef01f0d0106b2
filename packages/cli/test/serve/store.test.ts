import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Effect, Schedule, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { randomUUID } from "node:crypto"
import * as Redis from "../../../redis/test/support/server.ts"
import * as Postgres from "../../../sql/test/support/server.ts"
import * as Audit from "../../src/fleet/Audit.ts"
import { refused, run } from "../support/command.ts"
import { folder } from "../support/files.ts"
import { addKey, ask, type Gateway, keys, logsOf, over, send, snapshot, start } from "../support/gateway.ts"
import { requests } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

/** A database for the state of gateways. */
interface Kind {
  readonly name: string
  /** The URL of a part that nothing else uses. */
  readonly own: Effect.Effect<string, never, Scope.Scope>
  /** A server that a test may stop. */
  readonly server: Effect.Effect<{ readonly url: string; readonly stop: () => void }, never, Scope.Scope>
  /** Where no server answers. */
  readonly nowhere: string
  readonly isThere: boolean
}

const started = (start: () => Promise<Redis.Server | undefined>) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const server = await start()
      assert.isDefined(server, "no program of a server on the PATH")
      return server!
    }),
    (server) => Effect.sync(() => server.stop())
  )

const isThere = async (find: () => Promise<Redis.Server | undefined>): Promise<boolean> => {
  const server = await find()
  server?.stop()
  return server !== undefined || process.env["CI"] === "true"
}

const redis: Kind = {
  name: "Redis",
  own: Effect.map(started(Redis.startServer), ({ url }) => url),
  server: started(Redis.startServer),
  nowhere: "redis://:canary-secret@127.0.0.1:1",
  isThere: await isThere(Redis.findServer)
}

const migrate = (url: string) =>
  Effect.andThen(SqlStores.migrate(), Audit.migrations.migrate).pipe(
    Effect.provide(SqlDatabase.layer({ url })),
    Effect.orDie,
    Effect.asVoid
  )

const postgres: Kind = {
  name: "Postgres",
  own: Effect.gen(function*() {
    const server = yield* started(Postgres.findServer)
    const schema = `sluice_test_${randomUUID().replaceAll("-", "")}`
    const run = (statement: string) =>
      SqlClient.SqlClient.use((sql) => sql.unsafe(statement)).pipe(
        Effect.provide(SqlDatabase.layer({ url: server.url })),
        Effect.orDie
      )
    yield* Effect.acquireRelease(run(`CREATE SCHEMA ${schema}`), () => run(`DROP SCHEMA ${schema} CASCADE`))
    const url = new URL(server.url)
    url.searchParams.set("options", `-csearch_path=${schema}`)
    yield* migrate(url.href)
    return url.href
  }),
  server: Effect.tap(started(Postgres.startServer), ({ url }) => migrate(url)),
  nowhere: "postgres://a:canary-secret@127.0.0.1:1/b",
  isThere: await isThere(Postgres.findServer)
}

const statusOf = (answer: { readonly status: number }) => answer.status

const errorOf = ({ text }: { readonly text: string }): { readonly code: string; readonly message: string } =>
  JSON.parse(text).error

for (const { isThere, name, nowhere, own, server } of [redis, postgres]) {
  describe.skipIf(!isThere)(`gateways that share ${name}`, { timeout: processTimeout }, () => {
    it.live("a key has its rate once, and a removed key is soon refused by each", () =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({})
        const url = yield* own
        const directory = yield* folder
        const key = yield* addKey(directory, "ann", "--rpm", "6")
        const bob = yield* addKey(directory, "bob")
        const { args, env } = over(provider)
        const gateways = yield* Effect.all([1, 2].map(() => start(directory, [...args, "--store", url], env)), {
          concurrency: 2
        })
        const [first, second] = gateways as [Gateway, Gateway]
        const turns = [first, second, first, second, first, second]
        assert.deepStrictEqual(
          (yield* Effect.forEach(turns, (gateway) => ask(gateway, key))).map(statusOf),
          Array(6).fill(200)
        )
        for (const gateway of gateways) {
          const seventh = yield* ask(gateway, key)
          assert.strictEqual(seventh.status, 429)
          assert.include(errorOf(seventh).message, "requests a minute")
          const wait = Number(seventh.headers["retry-after"])
          assert.isTrue(wait > 50 && wait <= 60, String(wait))
        }
        assert.strictEqual((yield* provider.journal).length, 6)

        yield* keys(directory, "remove", "bob")
        yield* Effect.forEach(gateways, (gateway) =>
          Effect.repeat(ask(gateway, bob), {
            until: ({ status }) => status === 401,
            schedule: Schedule.spaced(20)
          })).pipe(
            // It takes half a second, on a machine without other work.
            Effect.timeout("60 seconds")
          )
      }))

    it.live("a key has its rate once for calls that come at the same moment", () =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({})
        const url = yield* own
        const directory = yield* folder
        const key = yield* addKey(directory, "ann", "--rpm", "10", "--max-cost-per-day", "5")
        const { args, env } = over(provider)
        const shared = [...args, "--price", "1,1", "--store", url]
        const gateways = yield* Effect.all([start(directory, shared, env), start(directory, shared, env)], {
          concurrency: 2
        })
        const answers = yield* Effect.forEach(
          Array.from({ length: 40 }, (_, call) => gateways[call % 2] as Gateway),
          (gateway) => ask(gateway, key, { max_tokens: 10 }),
          { concurrency: 40 }
        )
        assert.strictEqual(
          answers.filter(({ status }) => status === 200).length,
          10
        )
        assert.strictEqual(answers.filter(({ status }) => status === 429).length, 30)
      }))

    it.live("a target that is stopped at one gateway gets no calls of another, until it is reset at any", () =>
      Effect.gen(function*() {
        const url = yield* own
        const { args, env } = over(yield* LoopbackProvider.make({}), yield* LoopbackProvider.make({}))
        const directory = yield* folder
        const gateways = yield* Effect.all([1, 2].map(() => start(directory, [...args, "--store", url], env)), {
          concurrency: 2
        })
        const [first, second] = gateways as [Gateway, Gateway]
        const change = (gateway: Gateway, what: string) =>
          send(gateway, `/sluice/targets/a/${what}`, {
            headers: { authorization: `Bearer ${gateway.token}`, "content-type": "application/json" },
            body: JSON.stringify({ reason: "region moves" })
          })
        const answered = (target: string) =>
          Effect.repeat(ask(second, second.token), {
            until: ({ headers }) => headers["x-sluice-target"] === target,
            schedule: Schedule.spaced(20)
          }).pipe(Effect.timeout("60 seconds"))
        yield* answered("a")
        assert.strictEqual((yield* change(first, "open")).status, 200)
        yield* answered("b")
        assert.strictEqual((yield* change(second, "reset")).status, 200)
        yield* answered("a")
      }))

    it.live("the page of each gateway has the changes of a command, and the list of the command those of a page, where targets have their names", () =>
      Effect.gen(function*() {
        const url = yield* own
        const { args, env } = over(yield* LoopbackProvider.make({}), yield* LoopbackProvider.make({}))
        const directory = yield* folder
        const gateways = yield* Effect.all(
          [1, 2].map(() => start(directory, [...args, "--rpm", "600", "--store", url], env)),
          {
            concurrency: 2
          }
        )
        const [first, second] = gateways as [Gateway, Gateway]
        yield* ask(first, first.token)
        const circuits = (...words: ReadonlyArray<string>) =>
          Effect.promise(() => run(["circuits", ...words], { SLUICE_STORE: url }))
        // The outcome of the call may not be in the store yet.
        yield* Effect.repeat(circuits("open", "a", "--reason", "region moves"), { until: ({ code }) => code === 0 })
          .pipe(
            Effect.timeout("60 seconds")
          )
        for (const gateway of gateways) {
          const { audit: [change] = [], targets: [target] = [] } = yield* Effect.repeat(snapshot(gateway), {
            until: ({ audit, targets }) => audit?.length === 1 && targets?.[0]?.["state"] === "forced-open",
            schedule: Schedule.spaced(100)
          }).pipe(Effect.timeout("60 seconds"))
          assert.deepInclude(target, { name: "a", reason: "region moves" })
          assert.deepInclude(change, { target: "a", what: "open", reason: "region moves", forMs: 3_600_000 })
          assert.match(String(change?.["who"]), /.@./)
        }
        const reset = yield* send(second, "/sluice/targets/a/reset", {
          headers: { authorization: `Bearer ${second.token}`, "content-type": "application/json" },
          body: JSON.stringify({ reason: "it has moved" })
        })
        assert.strictEqual(reset.status, 200)
        const { stdout } = yield* circuits("list")
        assert.match(stdout, /^gateway\/a  takes calls$/m)
        assert.match(stdout, /^\d\d:\d\d  gateway\/a  left to its circuit by token: it has moved$/m)
        // The model of a target without `#MODEL` is not known.
        const quotas = (...words: ReadonlyArray<string>) =>
          Effect.promise(() => run(["quotas", "list", ...words], { SLUICE_STORE: url }))
        const [shown, json] = yield* Effect.all([quotas(), quotas("--json")], { concurrency: 2 })
        assert.match(shown.stdout, /^a  requests\/min  [\d,]+ used$/m)
        assert.deepInclude(JSON.parse(json.stdout), { quota: "a", dimension: "requests" })
        // A change of its own is known before the store tells of it.
        assert.lengthOf((yield* snapshot(second))["audit"] ?? [], 2)
      }))

    it.live("the calls of a killed gateway count until their windows pass, and no longer", () =>
      Effect.gen(function*() {
        const turns = ({ n }: Turn.Request) => n <= 2 ? Turn.hang() : Turn.answer("yes")
        const provider = yield* LoopbackProvider.make({ turns })
        const url = yield* own
        const directory = yield* folder
        const ann = yield* addKey(directory, "ann", "--tpm", "2000")
        const bob = yield* addKey(directory, "bob", "--max-cost-per-day", "0.002")
        const { args, env } = over(provider)
        const shared = [...args, "--price", "1,1", "--store", url]
        const call = { max_tokens: 1_000 }
        const first = yield* start(directory, shared, env)
        yield* Effect.forEach([ann, bob], (key) => Effect.forkChild(Effect.exit(ask(first, key, call))))
        yield* requests(provider, 2)
        first.command.process.kill("SIGKILL")
        yield* Effect.promise(() => first.command.ended)

        const second = yield* start(directory, shared, env)
        const tokens = yield* ask(second, ann, call)
        assert.include(errorOf(tokens).message, "tokens a minute")
        assert.isAtMost(Number(tokens.headers["retry-after"]), 60)
        const money = yield* ask(second, bob, call)
        assert.include(errorOf(money).message, "cost in 24 hours")
        assert.strictEqual((yield* ask(second, bob, { max_tokens: 900 })).status, 200)
      }))

    it.live("without its store a gateway goes on by its part of the rates, and refuses what costs", () =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({})
        const database = yield* server
        const directory = yield* folder
        const ann = yield* addKey(directory, "ann", "--rpm", "4")
        const bob = yield* addKey(directory, "bob", "--max-cost-per-day", "5")
        const cleo = yield* addKey(directory, "cleo")
        const boss = yield* addKey(directory, "boss", "--admin")
        const { args, env } = over(provider)
        const gateway = yield* start(
          directory,
          [...args, "--price", "1,1", "--store", database.url, "--processes", "2"],
          env
        )
        assert.strictEqual((yield* ask(gateway, bob, { max_tokens: 10 })).status, 200)
        database.stop()
        // The server may take a moment to end.
        const costly = yield* Effect.repeat(ask(gateway, bob, { max_tokens: 10 }), {
          until: ({ status }) => status !== 200,
          times: 200
        })
        assert.deepStrictEqual(
          [costly.status, errorOf(costly).code, costly.headers["retry-after"]],
          [503, "store_down", "2"]
        )
        const calls = yield* Effect.forEach([1, 2, 3], () => ask(gateway, ann))
        assert.deepStrictEqual(calls.map(statusOf), [200, 200, 429])
        assert.strictEqual((yield* ask(gateway, cleo)).status, 200)
        const change = yield* send(gateway, "/sluice/targets/a/open", {
          headers: { authorization: `Bearer ${boss}`, "content-type": "application/json" },
          body: JSON.stringify({ reason: "region moves" })
        })
        assert.deepStrictEqual([change.status, errorOf(change).code], [503, "store_down"])
        yield* Effect.repeat(snapshot({ ...gateway, token: boss }), {
          until: ({ targets = [] }) => targets[0]?.["isKnown"] === false,
          schedule: Schedule.spaced(100)
        }).pipe(Effect.timeout("60 seconds"))
        gateway.command.process.kill("SIGTERM")
        const { code, stderr } = yield* Effect.promise(() => gateway.command.ended)
        assert.strictEqual(code, 0)
        assert.isTrue(
          logsOf(stderr).some(({ event }) => String(event).includes("the store of the quota does not answer")),
          stderr
        )
      }))

    it.live("a gateway starts without its store, and its URL with the password is in no log", () =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({})
        const directory = yield* folder
        const { args, env } = over(provider)
        const gateway = yield* start(directory, args, { ...env, SLUICE_STORE: nowhere })
        assert.strictEqual((yield* ask(gateway, gateway.token)).status, 200)
        gateway.command.process.kill("SIGTERM")
        const { code, stderr, stdout } = yield* Effect.promise(() => gateway.command.ended)
        assert.strictEqual(code, 0)
        const warnings = logsOf(stderr).filter(({ level }) => level === "warn")
        assert.isAbove(warnings.length, 0, stderr)
        for (const { event } of warnings) assert.notInclude(String(event), "client error")
        assert.notInclude(stderr + stdout, "canary-secret")
      }))
  })
}

describe("the URL of a store", { timeout: processTimeout }, () => {
  it("a URL with a password on the command line is refused, and the message has no password", async () => {
    const target = ["--target", "a=http://127.0.0.1:1"]
    const written = await run(["serve", ...target, "--store", "redis://:canary-secret@127.0.0.1:1"])
    refused(written, "--store has a password, which other users can see; write ${NAME} of a variable")
    assert.notInclude(written.stderr, "canary-secret")
    refused(
      await run(["serve", ...target, "--store", "redis://:${REDIS_PASSWORD}@127.0.0.1:1"]),
      "needs REDIS_PASSWORD"
    )
    const other = await run(["serve", ...target, "--store", "mongodb://a:canary-secret@b"])
    refused(other, "it must be a URL that begins with redis://")
    assert.notInclude(other.stderr, "canary-secret")
  })
})
