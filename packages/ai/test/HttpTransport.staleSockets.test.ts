import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Redacted, type Scope, Stream } from "effect"
import { HttpBody, HttpClient, HttpClientRequest } from "effect/http"
import { TestClock } from "effect/testing"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as Http from "node:http"
import type { AddressInfo, Socket } from "node:net"
import { failureOf, generate, streamedText } from "./support/model.ts"
import { answering, openAi, type Wire, wires } from "./support/wires.ts"

interface Server {
  readonly url: string
  readonly origin: string
  /** For each request the number of its connection, and of the request on it, from 1. */
  readonly requests: ReadonlyArray<readonly [connection: number, nth: number]>
  readonly closeIdle: () => void
}

type Reuse = (socket: Socket, request: Http.IncomingMessage, response: Http.ServerResponse) => void

/** A server that answers the first request of each connection, and does something else with every other one. */
const server = (wire: Wire, reused: Reuse): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly server: Http.Server; readonly requests: Array<readonly [number, number]> }>(
        (resume) => {
          const requests: Array<readonly [number, number]> = []
          const known = new Map<Socket, { readonly connection: number; count: number }>()
          const server = Http.createServer((request, response) => {
            const { socket } = request
            const seen = known.get(socket) ?? { connection: known.size + 1, count: 0 }
            known.set(socket, seen)
            seen.count++
            requests.push([seen.connection, seen.count])
            let body = ""
            request.setEncoding("utf8").on("data", (chunk: string) => body += chunk).on("end", () => {
              if (seen.count > 1) return reused(socket, request, response)
              answering(wire)(response, { method: "POST", path: "", headers: {}, body: body || "{}" }, 1)
            })
          })
          server.keepAliveTimeout = 0
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed({ server, requests })))
        }
      ),
      ({ server }) =>
        Effect.callback<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    ),
    ({ requests, server }) => {
      const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      return { url: `${origin}/v1`, origin, requests, closeIdle: () => server.closeIdleConnections() }
    }
  )

const reset: Reuse = (socket) => void socket.resetAndDestroy()

/** Ways in which a server ends a connection that was reused. */
const endings: ReadonlyArray<{ readonly what: string; readonly reused: Reuse }> = [
  { what: "is reset", reused: reset },
  { what: "is closed", reused: (socket) => void socket.end() },
  { what: "is destroyed", reused: (socket) => void socket.destroy() }
]

const idle = TestClock.adjust("1 second")

for (const wire of wires) {
  describe(`stale connections, ${wire.module}`, () => {
    // Without the second request 32 calls were answered, 32 failed by a reset, and 32 were refused for 29.5 s.
    it.effect(
      "three bursts of 32 calls at a server that resets every reused connection get 96 answers",
      () =>
        Effect.gen(function*() {
          const upstream = yield* server(wire, reset)
          const model = ResilientModel.layer({
            retry: RetryPolicy.none,
            targets: [{ name: "main", layer: wire.modelAt(upstream.url) }]
          })
          const burst = Effect.forEach(
            Array.from({ length: 32 }, (_, n) => n),
            (n) => n % 2 === 0 ? Effect.map(generate(), ({ text }) => text) : streamedText(),
            { concurrency: "unbounded" }
          )
          const answers = yield* Effect.gen(function*() {
            const first = yield* burst
            yield* idle
            const second = yield* burst
            yield* idle
            return [...first, ...second, ...(yield* burst)]
          }).pipe(Effect.provide(model))
          assert.deepStrictEqual(answers, Array.from({ length: 96 }, () => "hello"))
          // Every call after the first burst was sent on a reused connection, and then once more on a new one.
          assert.isAbove(upstream.requests.length, 96)
        }),
      30_000
    )

    for (const { reused, what } of endings) {
      it.effect(`a request is sent once more if its connection had been idle for 1 s and ${what} (node 35526, InsForge 1813)`, () =>
        Effect.gen(function*() {
          const upstream = yield* server(wire, reused)
          yield* Effect.gen(function*() {
            yield* generate()
            yield* idle
            assert.strictEqual((yield* generate()).text, "hello")
            yield* generate()
          }).pipe(Effect.provide(wire.modelAt(upstream.url)))
          assert.deepStrictEqual(upstream.requests.slice(0, 3), [[1, 1], [1, 2], [2, 1]])
        }))

      it.effect(`a request fails if its connection was in use less than 1 s ago and ${what}`, () =>
        Effect.gen(function*() {
          const upstream = yield* server(wire, reused)
          const failed = yield* Effect.gen(function*() {
            yield* generate()
            yield* TestClock.adjust("999 millis")
            return yield* failureOf(generate())
          }).pipe(Effect.provide(wire.modelAt(upstream.url)))
          assert.strictEqual(failed.reason._tag, "NetworkError")
          assert.deepStrictEqual(upstream.requests, [[1, 1], [1, 2]])
        }))
    }

    // How long the server has the request before it resets the connection, and whether the request is sent again.
    const works: ReadonlyArray<readonly [millis: number, isResent: boolean]> = [
      [0, true],
      [999, true],
      [1000, true],
      [1001, false],
      [3000, false],
      [60_000, false]
    ]
    for (const [millis, isResent] of works) {
      it.effect(`a request whose server resets the connection ${millis} ms after the sending is sent ${isResent ? "once more" : "only once"}`, () =>
        Effect.gen(function*() {
          const received = yield* Deferred.make<Socket>()
          const upstream = yield* server(wire, (socket) => Deferred.doneUnsafe(received, Effect.succeed(socket)))
          const model = ResilientModel.layer({
            retry: RetryPolicy.none,
            targets: [{ name: "main", layer: wire.modelAt(upstream.url) }]
          })
          yield* Effect.gen(function*() {
            yield* generate()
            yield* TestClock.adjust("1100 millis")
            const fiber = yield* Effect.forkChild(generate())
            const socket = yield* Deferred.await(received)
            yield* TestClock.adjust(millis)
            socket.resetAndDestroy()
            assert.strictEqual(Exit.isSuccess(yield* Fiber.await(fiber)), isResent)
          }).pipe(Effect.provide(model))
          assert.deepStrictEqual(upstream.requests, isResent ? [[1, 1], [1, 2], [2, 1]] : [[1, 1], [1, 2]])
        }))
    }
  })
}

describe("stale connections", () => {
  const wire = openAi
  const model = (upstream: Server) => Effect.provide(wire.modelAt(upstream.url))

  it.effect("a request fails if a byte of a response had arrived", () =>
    Effect.gen(function*() {
      const upstream = yield* server(wire, (socket) => socket.write("HTTP/1.1 2", () => socket.resetAndDestroy()))
      yield* Effect.gen(function*() {
        yield* generate()
        yield* idle
        assert.strictEqual((yield* failureOf(generate())).reason._tag, "NetworkError")
      }).pipe(model(upstream))
      assert.deepStrictEqual(upstream.requests, [[1, 1], [1, 2]])
    }))

  it.effect("a request fails if its response is cut", () =>
    Effect.gen(function*() {
      const upstream = yield* server(wire, (socket, _, response) => {
        response.writeHead(200, { "content-type": "application/json" })
        response.write("{", () => socket.resetAndDestroy())
      })
      yield* Effect.gen(function*() {
        yield* generate()
        yield* idle
        yield* failureOf(generate())
      }).pipe(model(upstream))
      assert.deepStrictEqual(upstream.requests, [[1, 1], [1, 2]])
    }))

  it.effect("a request is sent twice at most", () =>
    Effect.gen(function*() {
      let connections = 0
      const stopped = yield* Effect.acquireRelease(
        Effect.callback<Http.Server>((resume) => {
          const known = new Set<Socket>()
          const server = Http.createServer((request, response) => {
            const isFirst = known.size === 0
            known.add(request.socket)
            connections++
            if (!isFirst) return void request.socket.resetAndDestroy()
            request.resume().on("end", () =>
              answering(wire)(response, { method: "", path: "", headers: {}, body: "{}" }, 1))
          })
          server.listen(0, "127.0.0.1", () =>
            resume(Effect.succeed(server)))
        }),
        (server) =>
          Effect.callback<void>((resume) => {
            server.close(() => resume(Effect.void))
            server.closeAllConnections()
          })
      )
      const url = `http://127.0.0.1:${(stopped.address() as AddressInfo).port}/v1`
      yield* Effect.gen(function*() {
        yield* generate()
        yield* idle
        assert.strictEqual((yield* failureOf(generate())).reason._tag, "NetworkError")
      }).pipe(Effect.provide(wire.modelAt(url)))
      assert.strictEqual(connections, 3)
    }))

  it.effect("the deadline and an interruption hold for the second request, and close its connection", () =>
    Effect.gen(function*() {
      for (const end of ["interruption", "timeout"] as const) {
        const arrived = yield* Deferred.make<void>()
        const closed = yield* Deferred.make<void>()
        let requests = 0
        const silent = yield* Effect.acquireRelease(
          Effect.callback<Http.Server>((resume) => {
            const server = Http.createServer((request, response) => {
              requests++
              if (requests === 2) return void request.socket.resetAndDestroy()
              if (requests === 3) {
                response.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
                Deferred.doneUnsafe(arrived, Effect.void)
                return
              }
              request.resume().on(
                "end",
                () => answering(wire)(response, { method: "", path: "", headers: {}, body: "{}" }, 1)
              )
            })
            server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
          }),
          (server) =>
            Effect.callback<void>((resume) => {
              server.close(() => resume(Effect.void))
              server.closeAllConnections()
            })
        )
        const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}/v1`
        yield* Effect.gen(function*() {
          yield* generate()
          yield* idle
          const call = end === "timeout" ? Effect.timeout(generate(), "5 seconds") : generate()
          const fiber = yield* Effect.forkChild(call)
          yield* Deferred.await(arrived)
          yield* end === "timeout" ? TestClock.adjust("5 seconds") : Fiber.interrupt(fiber)
          assert.isTrue(Exit.isFailure(yield* Fiber.await(fiber)))
          yield* Deferred.await(closed)
        }).pipe(Effect.provide(wire.modelAt(url)))
        assert.strictEqual(requests, 3)
      }
    }))

  it.effect("a request whose body is a stream is not sent again", () =>
    Effect.gen(function*() {
      const upstream = yield* server(wire, reset)
      yield* Effect.gen(function*() {
        yield* HttpClient.get(`${upstream.origin}/`).pipe(Effect.flatMap((response) => response.text))
        yield* idle
        const body = HttpBody.stream(Stream.succeed(new TextEncoder().encode("{}")), "application/json")
        const failed = yield* Effect.flip(
          HttpClient.execute(HttpClientRequest.post(`${upstream.origin}/`, { body }))
        )
        assert.strictEqual(failed.reason._tag, "TransportError")
      }).pipe(Effect.provide(HttpTransport.layer({ environment: {} })))
      assert.deepStrictEqual(upstream.requests, [[1, 1], [1, 2]])
    }))

  it.effect("a request through a proxy is sent once more, as one to this machine is", () =>
    Effect.gen(function*() {
      const upstream = yield* server(wire, reset)
      const layer = OpenAiCompatible.layer({
        url: "http://provider.test/v1",
        model: "m1",
        apiKey: Redacted.make("sk-test"),
        allowInsecureKey: true
      }).pipe(
        Layer.provide(HttpTransport.layer({ environment: { HTTP_PROXY: upstream.origin } }))
      )
      yield* Effect.gen(function*() {
        yield* generate()
        yield* idle
        assert.strictEqual((yield* generate()).text, "hello")
      }).pipe(Effect.provide(layer))
      assert.deepStrictEqual(upstream.requests, [[1, 1], [1, 2], [2, 1]])
    }))
})
