import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Deferred, Effect, Fiber } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { folder } from "../support/files.ts"
import { addKey, ask, keysIn, logsOf, over, send, snapshot, start } from "../support/gateway.ts"
import type { Fields, Gateway } from "../support/gateway.ts"
import { requests, says } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const json = { "content-type": "application/json" }
const reason = "region moves, INC-2231"

const change = (gateway: Gateway, path: string, fields: Fields, headers?: { readonly [name: string]: string }) =>
  send(gateway, `/sluice/targets/${path}`, {
    headers: { ...json, ...headers ?? { authorization: `Bearer ${gateway.token}` } },
    body: JSON.stringify(fields)
  })

const targetsOf = (gateway: Gateway) => Effect.map(snapshot(gateway), ({ targets = [] }) => targets)

/** Waits until the first target has these fields. */
const shows = (gateway: Gateway, fields: Fields) =>
  Effect.gen(function*() {
    let row: Fields | undefined
    for (let tries = 0; tries < 80; tries++) {
      row = (yield* targetsOf(gateway))[0]
      if (Object.entries(fields).every(([name, value]) => row?.[name] === value)) return
      yield* Effect.sleep("100 millis")
    }
    assert.deepInclude(row, fields)
  })

const codeOf = ({ text }: { readonly text: string }): string => JSON.parse(text).error.code

describe("changes of targets by hand", { timeout: processTimeout }, () => {
  it.live("everything else than a change with a reason and an end by an admin is refused, and changes nothing", () =>
    Effect.gen(function*() {
      const { args, env } = over(yield* LoopbackProvider.make({}))
      const directory = yield* folder
      const admin = yield* addKey(directory, "boss", "--admin")
      const user = yield* addKey(directory, "ann")
      const gateway = yield* start(directory, [...args, "--keys", keysIn(directory)], env)
      const { headers } = yield* send(gateway, "/sluice/session", {
        method: "POST",
        headers: { authorization: `Bearer ${admin}` }
      })
      const cookie = String(headers["set-cookie"]).split(";")[0] ?? ""
      const bearer = { authorization: `Bearer ${admin}`, ...json }
      const good = JSON.stringify({ reason })
      const own = { cookie, origin: gateway.url, ...json }
      const cases: ReadonlyArray<readonly [number, string, { readonly [name: string]: string }, string, string?]> = [
        [401, "invalid_api_key", json, good],
        [401, "invalid_api_key", { authorization: "Bearer wrong", ...json }, good],
        // A browser sends its origin with every POST.
        [401, "invalid_api_key", { cookie, ...json }, good],
        [403, "admin_only", { authorization: `Bearer ${user}`, ...json }, good],
        [403, "other_origin", { ...own, origin: "http://attacker.example" }, good],
        [403, "other_origin", { ...own, origin: "http://127.0.0.1:1" }, good],
        [403, "other_origin", { ...own, origin: "null" }, good],
        [403, "other_origin", { ...bearer, origin: "http://attacker.example" }, good],
        [403, "host_not_allowed", { ...own, host: "attacker.example", origin: "http://attacker.example" }, good],
        [404, "target_not_found", bearer, good, "b/open"],
        [404, "target_not_found", bearer, good, "constructor/open"],
        [404, "not_found", bearer, good, "a/stop"],
        [404, "not_found", bearer, good, "a/open/x"],
        [413, "request_too_large", bearer, JSON.stringify({ reason, more: "x".repeat(5_000) })],
        [413, "request_too_large", { ...bearer, "transfer-encoding": "chunked" }, good],
        [415, "unsupported_media_type", { ...bearer, "content-type": "text/plain" }, good],
        [415, "unsupported_media_type", { ...own, "content-type": "application/x-www-form-urlencoded" }, good],
        ...[
          "",
          "x",
          "null",
          "[]",
          "{}",
          ...[
            { reason: 1 },
            { reason: "" },
            { reason: "   abc   " },
            { reason: "x".repeat(201) },
            { reason: "line\nbreak" },
            { reason: "a bell \u0007" },
            { reason: "right to left \u202e" },
            ...[0, 999, 1.5, -1, 2_592_000_001, "1h"].map((forMs) => ({ reason, forMs }))
          ].map((fields) => JSON.stringify(fields))
        ].map((body) => [422, "invalid_change", bearer, body] as const),
        [422, "invalid_change", bearer, JSON.stringify({ reason, forMs: 3_600_000 }), "a/reset"]
      ]
      for (const [status, code, headers, body, path = "a/open"] of cases) {
        const answer = yield* send(gateway, `/sluice/targets/${path}`, { method: "POST", headers, body })
        assert.deepStrictEqual([answer.status, codeOf(answer)], [status, code], `${JSON.stringify(headers)} ${body}`)
      }
      assert.strictEqual((yield* send(gateway, "/sluice/targets/a/open", { headers: bearer })).status, 404)
      assert.deepInclude(yield* snapshot({ ...gateway, token: admin }), { audit: [] })
      const done = yield* send(gateway, "/sluice/targets/a/open", { headers: own, body: good })
      assert.deepInclude(JSON.parse(done.text), { target: "a", what: "open", reason, forMs: 3_600_000, who: "boss" })
    }))

  it.live("a stopped target gets no calls until it is reset, others see why, and the log has a line", () =>
    Effect.gen(function*() {
      const { args, env } = over(yield* LoopbackProvider.make({}), yield* LoopbackProvider.make({}))
      const gateway = yield* start(yield* folder, args, env)
      const answeredBy = Effect.map(ask(gateway, gateway.token), ({ headers }) => headers["x-sluice-target"])
      assert.strictEqual(yield* answeredBy, "a")
      const bad = `<img src=x onerror=alert(1)> "quoted" 東京`
      assert.strictEqual((yield* change(gateway, "a/open", { reason: `  ${bad}  `, forMs: 60_000 })).status, 200)
      assert.strictEqual(yield* answeredBy, "b")
      const { audit = [], targets = [] } = yield* snapshot(gateway)
      assert.deepInclude(targets[0], { name: "a", state: "forced-open", reason: bad, draining: false, running: 0 })
      const [left] = audit
      assert.deepInclude(left, { target: "a", what: "open", reason: bad, forMs: 60_000, who: "token" })
      assert.closeTo(Number(targets[0]?.["until"]), Number(left?.["at"]) + 60_000, 2_000)

      assert.strictEqual((yield* change(gateway, "a/reset", { reason: "it has moved" })).status, 200)
      assert.strictEqual(yield* answeredBy, "a")
      assert.strictEqual((yield* change(gateway, "a/close", { reason: "its probe is wrong", forMs: null })).status, 200)
      const [row] = yield* targetsOf(gateway)
      assert.deepInclude(row, { state: "forced-closed", reason: "its probe is wrong", until: null })

      gateway.command.process.kill("SIGTERM")
      const { stderr } = yield* Effect.promise(() => gateway.command.ended)
      const lines = logsOf(stderr).filter(({ event }) => event === "changed by hand")
      assert.deepInclude(lines[0], { target: "a", what: "open", reason: bad, forMillis: 60_000, who: "token" })
      assert.deepInclude(lines[1], { target: "a", what: "reset", reason: "it has moved", who: "token" })
      assert.deepInclude(lines[2], { target: "a", what: "close", reason: "its probe is wrong", who: "token" })
      assert.notProperty(lines[2], "forMillis")
      assert.lengthOf(lines, 3)
    }))

  it.live("a drained target ends what runs, a reload keeps it, and it comes back when its time is over", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<{ readonly text: string }>()
      const slow = yield* LoopbackProvider.make({ apiKey: false, answer: () => Deferred.await(gate) })
      const other = yield* LoopbackProvider.make({ apiKey: false })
      const directory = yield* folder
      const write = (rpm: number) =>
        writeFileSync(
          join(directory, "sluice.json"),
          JSON.stringify({ serve: { target: [`a=${slow.url}`, `b=${other.url}`], rpm: [`b=${rpm}`] } })
        )
      write(500)
      const gateway = yield* start(directory, [])
      const running = yield* Effect.forkChild(ask(gateway, gateway.token))
      yield* requests(slow, 1)
      assert.strictEqual((yield* change(gateway, "a/drain", { reason })).status, 200)
      write(600)
      gateway.command.process.kill("SIGHUP")
      yield* says(gateway.command, "reloaded")
      yield* shows(gateway, { state: "forced-open", draining: true, reason, running: 1 })
      assert.strictEqual((yield* ask(gateway, gateway.token)).headers["x-sluice-target"], "b")
      yield* Deferred.succeed(gate, { text: "at last" })
      const { headers, status } = yield* Fiber.join(running)
      assert.deepStrictEqual([status, headers["x-sluice-target"]], [200, "a"])
      yield* shows(gateway, { state: "forced-open", draining: true, running: 0 })
      assert.strictEqual((yield* change(gateway, "a/open", { reason, forMs: 1_000 })).status, 200)
      yield* shows(gateway, { state: "closed", draining: false })
      assert.strictEqual((yield* ask(gateway, gateway.token)).headers["x-sluice-target"], "a")
    }))
})
