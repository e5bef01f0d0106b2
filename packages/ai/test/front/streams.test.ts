import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Front from "@sluice/ai/Front"
import * as Http from "node:http"
import { connect } from "node:net"
import { collectGarbage } from "../support/gc.ts"
import { type Answer, json, rawServer } from "../support/rawServer.ts"
import { attributesOf, collectMetrics, makeTracer, spanText } from "../support/telemetry.ts"
import { fetched, frontOf, listening, node, overNode, served, until, web, within } from "./edges.ts"
import { random } from "./streams.ts"
import { chat, responses, wires } from "./wires.ts"

const whole = chat.head + chat.word("fine") + chat.finish + chat.end
const asking = { path: chat.path, body: chat.stream }
const at = (url: string, more?: Partial<Front.FrontTarget>): Front.FrontTarget => ({
  name: "a",
  url,
  speaks: "openai",
  ...more
})

const streaming = (text: string): Answer => (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" })
  response.write(text)
}

describe("a caller that wants no further attempt", () => {
  it.live("a call that waits for its next attempt is refused at once, and one whose attempt runs makes no other", () =>
    Effect.gen(function*() {
      let hurry = () => {}
      const release: Array<() => void> = []
      const provider = yield* rawServer((response, _, n) => {
        const fail = (headers = {}) => json(response, 503, { error: { message: "down" } }, headers)
        if (n === 1) fail({ "retry-after": "60" })
        else release.push(fail)
      })
      const asked = (front: Front.Front["Service"]) => {
        let isOver = false
        const status = new Promise<number>((resolve) => {
          front.exchange({
            method: "POST",
            path: chat.path,
            headers: { "content-type": "application/json" },
            body: Buffer.from(chat.whole)
          }, {
            head: (status) => {
              isOver = true
              resolve(status)
            },
            write: () => true,
            end: () => {},
            abort: () => {},
            onDrain: () => {},
            onLeave: () => {},
            onLastAttempt: (listener) => {
              hurry = listener
            }
          })
        })
        return { status, isOver: () => isOver }
      }
      const waiting = asked(yield* frontOf([at(provider.url)]))
      yield* until(() => provider.requests.length === 1)
      yield* Effect.sleep("100 millis")
      assert.isFalse(waiting.isOver())
      hurry()
      assert.strictEqual(yield* Effect.promise(() => waiting.status), 503)

      const running = asked(yield* frontOf([at(provider.url)]))
      yield* until(() => release.length === 1)
      hurry()
      yield* Effect.sleep("100 millis")
      assert.isFalse(running.isOver())
      release[0]?.()
      assert.strictEqual(yield* Effect.promise(() => running.status), 503)
      assert.strictEqual(provider.requests.length, 2)
    }).pipe(Effect.scoped, within))
})

describe("the end of a stream", () => {
  it.live("output that fails in the same piece is retried, since the client has none of it", () =>
    Effect.gen(function*() {
      for (const wire of wires) {
        const provider = yield* rawServer((response, _, n) => {
          response.writeHead(200, { "content-type": "text/event-stream" })
          if (n > 1) response.end(wire.head + wire.word("fine") + wire.finish + wire.end)
          else response.end(wire.head + wire.word("lost") + wire.error)
        })
        const front = yield* frontOf([at(provider.url, { speaks: wire.speaks })])
        const got = yield* node.ask(front, { path: wire.path, body: wire.stream })
        assert.strictEqual(got.text, wire.head + wire.word("fine") + wire.finish + wire.end)
      }
    }).pipe(Effect.scoped, within))

  it.live("a complete answer waits a second for its end, however long the idle limit is", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(streaming(chat.head + chat.word("one") + chat.finish))
      const front = yield* frontOf([at(provider.url)], { idleTimeout: "1 minute" })
      const before = performance.now()
      const got = yield* node.ask(front, asking)
      assert.strictEqual(got.text, chat.head + chat.word("one") + chat.finish + "data: [DONE]\n\n")
      assert.isBelow(performance.now() - before, 30_000)
    }).pipe(Effect.scoped, within))

  it.live("a stream that is over ends at once, and its connection is used again", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response) => {
        streaming(whole)(response, undefined as never, 0)
        setTimeout(() => response.end(), 30)
      })
      const front = yield* frontOf([at(provider.url)])
      for (let n = 0; n < 3; n++) {
        assert.strictEqual((yield* fetched.ask(front, asking)).text, whole)
        yield* Effect.sleep("60 millis")
      }
      assert.isBelow(provider.connections(), 3)
    }).pipe(Effect.scoped, within))

  it.live("a deadline and the limit of an attempt end a stream with their errors", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(chat.head)
        const timer = setInterval(() => response.write(chat.word("more")), 20)
        response.on("close", () => clearInterval(timer))
      })
      for (const option of ["deadline", "attemptTimeout"] as const) {
        const front = yield* frontOf([at(provider.url)], { [option]: "200 millis" })
        const got = yield* node.ask(front, asking)
        const code = option === "deadline" ? "deadline_exceeded" : "attempt_timeout"
        assert.include(got.text, `"code":"${code}"`)
        assert.strictEqual(got.end, "Clean")
      }
    }).pipe(Effect.scoped, within))

  it.live("an error event of responses has the number that follows", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response) => {
        streaming(responses.head + responses.word("one"))(response, undefined as never, 0)
        setTimeout(() => response.destroy(), 10)
      })
      const front = yield* frontOf([at(provider.url)])
      const got = yield* node.ask(front, { path: responses.path, body: responses.stream })
      const numbers = [...got.text.matchAll(/"sequence_number":(\d+)/g)].map(([, n]) => Number(n))
      assert.deepStrictEqual(numbers.slice(-2), [numbers.length - 2, numbers.length - 1])
      assert.include(got.text, "event: error")
    }).pipe(Effect.scoped, within))

  it.live("the log of a stream that is cut says so, with the tokens that came", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response) => {
        streaming(chat.head + chat.word("one") + chat.word("two"))(response, undefined as never, 0)
        setTimeout(() => response.destroy(), 10)
      })
      const front = yield* frontOf([at(provider.url)])
      const got = yield* node.ask(front, asking)
      const log = front.call(got.headers["x-sluice-call"]!)
      assert.deepStrictEqual([log?.result, log?.fault?.type], ["Failure", "TruncatedStream"])
      assert.deepStrictEqual(log?.usage.estimated, true)
      assert.isAbove(log?.usage.outputTokens ?? 0, 0)
      const [step] = log?.steps ?? []
      assert.strictEqual(step?._tag === "Attempt" && step.firstTokenAt !== undefined, true)
    }).pipe(Effect.scoped, within))
})

describe("telemetry", () => {
  it.live("each attempt has a span and counts in the metrics, as for a model, and neither has a key or a prompt", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response, received, n) =>
        n === 1 ? json(response, 503, { error: { message: "down" } }) : streaming(whole)(response, received, n)
      )
      const { layer, spans } = makeTracer()
      const metrics = yield* collectMetrics(
        Effect.gen(function*() {
          const front = yield* frontOf([at(provider.url, { model: "m1" })])
          yield* fetched.ask(front, asking)
        }).pipe(Effect.provide(layer))
      )
      assert.deepStrictEqual(spans.map(({ name }) => name), ["chat m1", "chat m1"])
      const [failed, good] = spans.map(attributesOf)
      assert.strictEqual(failed?.["error.type"], "InternalProviderError")
      assert.strictEqual(good?.["gen_ai.usage.output_tokens"], 4)
      assert.isDefined(good?.["gen_ai.response.time_to_first_chunk"])
      const text = spanText(spans) + JSON.stringify(metrics)
      assert.isFalse(text.includes("Hello") || text.includes("client-key"), text)
      const durations = metrics.filter(({ id }) => id === "gen_ai.client.operation.duration")
      assert.deepStrictEqual(durations.map(({ state }) => state.count), [1, 1])
    }).pipe(Effect.scoped, within))
})

describe("finish reasons", () => {
  it.live("are in the spans of streams and of whole answers, on every wire", () =>
    Effect.gen(function*() {
      for (const wire of wires) {
        const provider = yield* rawServer((response, received) =>
          received.body.includes("\"stream\":true")
            ? streaming(wire.head + wire.word("fine") + wire.finish + wire.end)(response, received, 0)
            : json(response, 200, wire.answer)
        )
        const { layer, spans } = makeTracer()
        yield* Effect.provide(
          Effect.gen(function*() {
            const front = yield* frontOf([at(provider.url, { speaks: wire.speaks })])
            for (const body of [wire.stream, wire.whole]) yield* fetched.ask(front, { path: wire.path, body })
          }),
          layer
        )
        assert.deepStrictEqual(
          spans.map((span) => attributesOf(span)["gen_ai.response.finish_reasons"]),
          [["stop"], ["stop"]],
          wire.wire
        )
      }
    }).pipe(Effect.scoped, within))
})

describe("clients that leave at any moment", () => {
  it.live("before its request was read: nothing is sent to a provider", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(streaming(whole))
      const front = yield* frontOf([at(provider.url, { backpressure: { capacity: 1 } })])
      const headers = { "content-type": "application/json" }
      const init = { method: "POST", headers, body: chat.stream, signal: AbortSignal.abort(new Error("gone")) }
      const url = `http://front${chat.path}`
      for (const ask of [() => front.handler(new Request(url, init)), () => front.fetch(url, init)]) {
        const reason = yield* Effect.promise(() => ask().then(() => "answered", (error: Error) => error.message))
        assert.strictEqual(reason, "gone")
      }
      const nothing = () => {}
      for (const path of [chat.path, "/v1/files"]) {
        front.exchange({ method: "POST", path, headers, body: Buffer.from(chat.stream) }, {
          head: nothing,
          write: () => true,
          end: nothing,
          abort: nothing,
          onDrain: nothing,
          onLeave: (listener) => listener()
        })
      }
      yield* Effect.sleep("50 millis")
      const [state] = yield* front.targets
      assert.deepStrictEqual([state?.permits?.running, provider.requests.length], [0, 0])
    }).pipe(Effect.scoped, within))

  it.live("while its body is read: the handler rejects with the reason, and the rest is not read", () =>
    Effect.gen(function*() {
      const front = yield* frontOf([at("http://127.0.0.1:1/v1")])
      const leaving = new AbortController()
      let cancelled: unknown
      const body = new ReadableStream<Uint8Array>({
        start: (controller) => controller.enqueue(Buffer.from("{")),
        pull: () => leaving.abort("gone"),
        cancel: (reason) => {
          cancelled = reason
        }
      })
      const init = { method: "POST", body, signal: leaving.signal, duplex: "half" as const }
      const answer = front.handler(new Request(`http://front${chat.path}`, init))
      const reason = yield* Effect.promise(() => answer.then(() => "answered", (error: unknown) => error))
      assert.deepStrictEqual([reason, cancelled], ["gone", "gone"])
    }).pipe(Effect.scoped, within))

  it.live("with a request that only the front still has: the call ends, and its connection closes", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(streaming(chat.head + chat.word("one")))
      const front = yield* frontOf([at(provider.url, { backpressure: { capacity: 5 } })], { idleTimeout: "1 minute" })
      const leaving = Array.from({ length: 5 }, () => new AbortController())
      const headers = { "content-type": "application/json" }
      const url = `http://front${chat.path}`
      const ask = ({ signal }: AbortController) =>
        front.handler(new Request(url, { method: "POST", headers, body: chat.stream, signal }))
      const responses = yield* Effect.promise(() => Promise.all(leaving.map(ask)))
      const running = Effect.map(front.targets, ([state]) => state?.permits?.running)
      assert.strictEqual(yield* running, 5)
      // References from one turn are kept until it ends.
      for (let n = 0; n < 3; n++) {
        collectGarbage()
        yield* Effect.sleep("1 milli")
      }
      for (const client of leaving) client.abort()
      assert.strictEqual(yield* running, 0)
      assert.deepStrictEqual(responses.map(({ status }) => status), [200, 200, 200, 200, 200])
    }).pipe(Effect.scoped, within))

  it.live("before a server hands its request over: nothing is sent to a provider", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(streaming(whole))
      const front = yield* frontOf([at(provider.url)])
      let asked = 0
      let over = 0
      // Looks the key up somewhere else, for longer than the client waits.
      const server = Http.createServer((request, response) =>
        Front.receive(request, response, {
          exchange: (exchange, sink) => {
            asked++
            response.once("close", () => {
              front.exchange(exchange, sink)
              over++
            })
          },
          refuse: (_, __, sink) => sink.abort(),
          maxBodyBytes: 1000
        })
      )
      const port = yield* listening(server)
      const client = yield* Effect.forkScoped(overNode(port, asking), { startImmediately: true })
      yield* until(() => asked === 1)
      yield* Fiber.interrupt(client)
      yield* until(() => over === 1)
      yield* Effect.sleep("50 millis")
      assert.deepStrictEqual([over, provider.requests.length], [1, 0])
    }).pipe(Effect.scoped, within))

  it.live("while its response waits for an earlier one of its connection: both calls end", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(streaming(chat.head + chat.word("one")))
      const front = yield* frontOf([at(provider.url, { backpressure: { capacity: 5 } })], { idleTimeout: "1 minute" })
      const port = yield* served(front)
      const headers = `host: front\r\ncontent-type: application/json\r\ncontent-length: ${chat.stream.length}`
      const request = `POST ${chat.path} HTTP/1.1\r\n${headers}\r\n\r\n${chat.stream}`
      const socket = connect(port, "127.0.0.1")
      socket.write(request + request)
      yield* until(() => provider.requests.length === 2)
      const running = () => Effect.runSync(front.targets)[0]?.permits?.running
      assert.strictEqual(running(), 2)
      socket.destroy()
      yield* until(() => running() === 0)
      assert.strictEqual(running(), 0)
    }).pipe(Effect.scoped, within))

  it.live("in a queue, a back-off, before and within an answer: nothing stays held, and no connection stays open", () =>
    Effect.gen(function*() {
      const below = random(7)
      const received: Array<Http.ServerResponse> = []
      // A connection can be closed before its request is handed over, so events would miss some.
      const open = () => received.filter(({ closed, destroyed }) => !closed && !destroyed).length
      const provider = yield* rawServer((response, _, n) => {
        received.push(response)
        if (n % 3 === 0) return json(response, 503, { error: { message: "down" } })
        setTimeout(() => streaming(chat.head)(response, undefined as never, 0), 10)
        const timer = setInterval(() => response.write(chat.word("more")), 10)
        response.on("close", () => clearInterval(timer))
      })
      const breaker = { trip: CircuitBreaker.consecutive(100) }
      const front = yield* frontOf(
        [
          at(provider.url, { backpressure: { capacity: 5, queue: 100 }, breaker }),
          at(provider.url, { name: "b", breaker })
        ],
        { retry: RetryPolicy.exponential({ baseDelay: "20 millis", maxAttempts: 5 }), idleTimeout: "10 seconds" }
      )
      const port = yield* served(front)
      yield* Effect.forEach(
        Array.from({ length: 60 }),
        (_, n) => {
          const ask = n % 3 === 0 ? overNode(port, asking) : (n % 3 === 1 ? fetched : web).ask(front, asking)
          return Effect.andThen(
            Effect.sleep(below(50)),
            Effect.timeoutOption(ask, 1 + below(60))
          )
        },
        { concurrency: 30 }
      )
      // The server sees that a client left a little later.
      const held = Effect.map(
        front.targets,
        (targets) =>
          targets.reduce((sum, { permits }) => sum + (permits?.running ?? 0) + (permits?.queued ?? 0), open())
      )
      for (let waits = 0; waits < 1000 && (yield* held) > 0; waits++) yield* Effect.sleep("10 millis")
      assert.strictEqual(yield* held, 0)
      // And it still calls.
      const requests = provider.requests.length
      const last = yield* Effect.forkScoped(fetched.ask(front, asking), { startImmediately: true })
      yield* until(() => provider.requests.length > requests)
      yield* Fiber.interrupt(last)
      assert.isAbove(provider.requests.length, requests)
    }).pipe(Effect.scoped, within))
})
