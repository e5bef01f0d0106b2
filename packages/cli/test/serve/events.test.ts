import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Effect, Fiber, Redacted } from "effect"
import type { Gateway } from "../support/gateway.ts"
import { folder } from "../support/files.ts"
import { addKey, ask, keys, keysIn, over, send, start } from "../support/gateway.ts"
import { processTimeout } from "../support/timeouts.ts"
import { until } from "../support/witness.ts"

interface Event {
  readonly name: string
  readonly text: string
  // What the gateway sends is read here, not checked.
  readonly data: ReturnType<typeof JSON.parse>
}

/** Reads events until one satisfies the condition, and returns all. */
const eventsUntil = (
  { url }: Gateway,
  headers: { readonly [name: string]: string },
  isLast: (event: Event) => boolean,
  query = ""
) =>
  Effect.promise(async (signal) => {
    const response = await fetch(`${url}/sluice/events${query}`, { headers, signal })
    assert.strictEqual(response.status, 200)
    assert.strictEqual(response.headers.get("content-type"), "text/event-stream")
    const events: Array<Event> = []
    let text = ""
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk).toString()
      const whole = text.split("\n\n")
      text = whole.pop() ?? ""
      for (const one of whole) {
        const [, name = "", json = ""] = /^event: (\w+)\ndata: (.*)$/.exec(one) ?? []
        if (name === "") continue
        const event = { name, text: json, data: JSON.parse(json) }
        events.push(event)
        if (isLast(event)) return events
      }
    }
    return events
  })

describe("the events of the live page", { timeout: processTimeout }, () => {
  it.live("a page gets a snapshot, then calls, circuits, reasons and keys, and an end", () =>
    Effect.gen(function*() {
      const a = yield* LoopbackProvider.make({ turns: Array.from({ length: 30 }, () => Turn.status(503)) })
      const { args, env } = over(a, yield* LoopbackProvider.make({}))
      const gateway = yield* start(yield* folder, [...args, "--rpm", "b=600"], env)
      const bearer = { authorization: `Bearer ${gateway.token}` }
      for (let calls = 0; calls < 8; calls++) yield* ask(gateway, gateway.token)
      yield* ask(gateway, "wrong")

      const events = yield* eventsUntil(
        gateway,
        bearer,
        ({ name, data }) => name === "delta" && data.columns?.length > 0
      )
      const [first] = events
      assert.strictEqual(first?.name, "snapshot")
      assert.lengthOf(first?.data.calls, 8)
      assert.deepInclude(first?.data.calls[7], {
        status: "answered",
        operation: "chat",
        key: "token",
        targets: ["a", "b"]
      })
      assert.deepInclude(first?.data.head, { calls: 8, ended: 8, answered: 8, inFlight: 0 })
      assert.include(["open", "probe"], first?.data.targets[0].state)
      assert.strictEqual(first?.data.targets[0].error.why, "HTTP 503")
      assert.deepInclude(first?.data.targets[1], { name: "b", state: "closed" })
      assert.deepInclude(first?.data.targets[1].quota[0], { of: "requests/min", limit: 600 })
      assert.deepInclude(first?.data.keys[0], { name: "token", calls: 8 })
      // The column of the calls ends after five seconds.
      const columns = events.flatMap(({ data }) => data.columns ?? [])
      const why = columns.map(({ why }) => why)
      assert.isTrue(why.some((counts) => counts["failed HTTP 503"] > 0), JSON.stringify(why))
      assert.isTrue(why.some((counts) => counts["refused invalid_api_key"] === 1), JSON.stringify(why))

      let isOpen = false
      const ending = eventsUntil(gateway, bearer, ({ name }) => {
        isOpen = true
        return name === "bye"
      })
      const slow = yield* Effect.forkChild(ending)
      yield* until("the page has an event", Effect.sync(() => isOpen))
      yield* ask(gateway, gateway.token)
      gateway.command.process.kill("SIGTERM")
      const last = yield* Fiber.join(slow)
      assert.strictEqual(last.at(-1)?.name, "bye")
      const { code } = yield* Effect.promise(() => gateway.command.ended)
      assert.strictEqual(code, 0)
    }))

  it.live("a hidden page gets its title's worth every two seconds, and the end", () =>
    Effect.gen(function*() {
      const { args, env } = over(yield* LoopbackProvider.make({}))
      const gateway = yield* start(yield* folder, args, env)
      const bearer = { authorization: `Bearer ${gateway.token}` }
      yield* ask(gateway, gateway.token)
      let lows = 0
      const events = yield* eventsUntil(
        gateway,
        bearer,
        ({ name }) => {
          if (name === "low" && ++lows === 5) gateway.command.process.kill("SIGTERM")
          return name === "bye"
        },
        "?detail=low"
      )
      assert.deepStrictEqual(events.map(({ name }) => name), ["low", "low", "low", "low", "low", "bye"])
      const [first, ...rest] = events
      assert.deepStrictEqual(first?.data.targets, [{ name: "a", state: "closed", isKnown: true, draining: false }])
      assert.deepInclude(rest[1]?.data.head, { calls: 1 })
      const gaps = rest.slice(1, -1).map(({ data }, index) => data.at - rest[index]?.data.at)
      // A machine that stands still lengthens one of them, and shortens the next.
      assert.closeTo(gaps.toSorted((a, b) => a - b)[1] ?? 0, 2_000, 1_000, JSON.stringify(gaps))
      assert.isBelow(first?.text.length ?? 0, 500)
    }))

  it.live("no event has a prompt, an answer, a key, or words of a client or a provider", () =>
    Effect.gen(function*() {
      const canary = "canary-52c9e07b"
      const provider = yield* LoopbackProvider.make({
        apiKey: Redacted.make(`sk-${canary}`),
        turns: [Turn.status(400, { body: canary }), Turn.cut(), Turn.answer(canary), Turn.status(429, { body: canary })]
      })
      const { args, env } = over(provider)
      const gateway = yield* start(yield* folder, args, env)
      const messages = [{ role: "user", content: canary }]
      for (const stream of [false, true, false, false]) {
        yield* ask(gateway, gateway.token, { model: canary, messages, stream })
      }
      yield* ask(gateway, canary, { messages })
      yield* send(gateway, `/v1/${canary}`, { headers: { authorization: `Bearer ${gateway.token}` } })
      const events = yield* eventsUntil(
        gateway,
        { authorization: `Bearer ${gateway.token}` },
        ({ data }) => data.columns?.some(({ calls }: { readonly calls: number }) => calls > 0)
      )
      assert.isAtLeast(events[0]?.data.calls.length, 4)
      for (const { text } of events) {
        assert.notInclude(text, canary)
        assert.notInclude(text, gateway.token)
      }
    }))

  it.live("the cookie of an admin reads the page's paths and nothing else, until its key is removed", () =>
    Effect.gen(function*() {
      const { args, env } = over(yield* LoopbackProvider.make({}))
      const directory = yield* folder
      const admin = yield* addKey(directory, "boss", "--admin")
      const user = yield* addKey(directory, "ann")
      const gateway = yield* start(directory, [...args, "--keys", keysIn(directory)], env)
      const open = (key: string) =>
        send(gateway, "/sluice/session", { method: "POST", headers: { authorization: `Bearer ${key}` } })
      assert.strictEqual((yield* open("wrong")).status, 401)
      assert.strictEqual((yield* open(user)).status, 403)
      const { headers, status } = yield* open(admin)
      assert.strictEqual(status, 204)
      const set = String(headers["set-cookie"])
      assert.match(set, /^sluice-\d+=[\w-]{43}; HttpOnly; SameSite=Strict; Path=\/sluice$/)
      assert.notInclude(set, admin)
      const cookie = { cookie: set.split(";")[0] ?? "" }
      assert.strictEqual((yield* eventsUntil(gateway, cookie, () => true))[0]?.name, "snapshot")
      const statusOf = (path: string, method = "GET") =>
        Effect.map(send(gateway, path, { headers: cookie, method }), ({ status }) => status)
      assert.strictEqual(yield* statusOf("/sluice/calls/none"), 404)
      for (const path of ["/metrics", "/v1/models"]) assert.strictEqual(yield* statusOf(path), 401, path)
      assert.strictEqual(yield* statusOf("/sluice/session", "POST"), 401)
      const forged = { cookie: "sluice-1=x; sluice=y" }
      assert.strictEqual((yield* send(gateway, "/sluice/events", { headers: forged })).status, 401)
      assert.strictEqual((yield* send(gateway, "/sluice/events", { headers: { "x-api-key": user } })).status, 403)
      yield* keys(directory, "remove", "boss")
      yield* until("the cookie is refused", Effect.map(statusOf("/sluice/calls/none"), (status) => status === 401))
    }))

  it.live("at most 16 pages are open, one that leaves makes room, and none counts as a call", () =>
    Effect.gen(function*() {
      const { args, env } = over(yield* LoopbackProvider.make({}))
      const gateway = yield* start(yield* folder, args, env)
      const headers = { authorization: `Bearer ${gateway.token}` }
      const pages: Array<AbortController> = []
      const open = () =>
        Effect.promise(() => {
          const controller = new AbortController()
          pages.push(controller)
          return fetch(`${gateway.url}/sluice/events`, { headers, signal: controller.signal })
        })
      for (let page = 0; page < 16; page++) assert.strictEqual((yield* open()).status, 200)
      assert.strictEqual((yield* open()).status, 503)
      yield* ask(gateway, gateway.token)
      const { text } = yield* send(gateway, "/metrics", { headers })
      assert.match(text, /^sluice_gateway_requests_in_flight 0$/m)
      pages[0]?.abort()
      yield* until("there is room", Effect.map(open(), ({ status }) => status === 200))
      for (const page of pages) page.abort()
    }))

  it.live("the files of the page need no key, run under a strict policy, and are the only files", () =>
    Effect.gen(function*() {
      const { args, env } = over(yield* LoopbackProvider.make({}))
      const gateway = yield* start(yield* folder, args, env)
      const scripts = [
        "page.js",
        "parts.js",
        "words.js",
        "lib/lit-html.js",
        "lib/directive.js",
        "lib/directive-helpers.js",
        "lib/directives/repeat.js",
        "lib/uPlot.esm.js"
      ]
      const types = [
        ["", "html"],
        ["base.css", "css"],
        ["page.css", "css"],
        ["lib/uPlot.min.css", "css"],
        ...scripts.map((file) => [file, "javascript"])
      ]
      for (const [file, type] of types) {
        const { headers, status, text } = yield* send(gateway, `/sluice/${file}`)
        assert.strictEqual(status, 200, file)
        assert.strictEqual(headers["content-type"], `text/${type}; charset=utf-8`, file)
        assert.match(String(headers["content-security-policy"]), /^default-src 'none'; script-src 'self'; /)
        assert.strictEqual(headers["x-content-type-options"], "nosniff")
        assert.notInclude(text, gateway.token)
      }
      assert.strictEqual((yield* send(gateway, "/sluice")).headers["location"], "/sluice/")
      const others = [
        "page.ts",
        "lib/",
        "lib/lit-html.js.map",
        "../package.json",
        "%2e%2e/package.json",
        "..%2fpackage.json",
        "lib/__proto__"
      ]
      for (const file of others) {
        assert.include([400, 401], (yield* send(gateway, `/sluice/${file}`)).status, file)
      }
      assert.strictEqual((yield* send(gateway, "/sluice/", { headers: { host: "attacker.example" } })).status, 403)
    }))
})
