import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Layer, Redacted, type Scope, Stream } from "effect"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import { HttpClient, HttpClientResponse } from "effect/http"
import * as Http from "node:http"
import * as Net from "node:net"
import * as Tls from "node:tls"
import * as Zlib from "node:zlib"
import { providerCertificate, providerKey } from "./support/certificate.ts"
import { generate, modelAt, stream, streamedText } from "./support/model.ts"
import { completion, delta, done, finish, json, rawServer, sse } from "./support/rawServer.ts"

interface Proxy {
  readonly url: string
  /** The method and target of each request. */
  readonly requests: ReadonlyArray<string>
  readonly credentials: ReadonlyArray<string | undefined>
}

/** A proxy for http:// and https:// URLs that connects every host name to one port of this machine. */
const proxyTo = (port: number): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<
        {
          server: Http.Server
          sockets: Set<Net.Socket>
          requests: Array<string>
          credentials: Array<string | undefined>
        }
      >(
        (resume) => {
          const requests: Array<string> = []
          const credentials: Array<string | undefined> = []
          const sockets = new Set<Net.Socket>()
          const server = Http.createServer((request, response) => {
            requests.push(`${request.method} ${request.url}`)
            credentials.push(request.headers["proxy-authorization"])
            const { pathname } = new URL(request.url!)
            const forward = Http.request(
              {
                host: "127.0.0.1",
                port,
                method: request.method,
                path: pathname,
                headers: request.headers,
                agent: false
              },
              (answer) => {
                response.writeHead(answer.statusCode!, answer.headers)
                answer.pipe(response)
              }
            )
            request.pipe(forward)
          })
          server.on("connect", (request, socket: Net.Socket) => {
            requests.push(`CONNECT ${request.url}`)
            credentials.push(request.headers["proxy-authorization"])
            const target = Net.connect(port, "127.0.0.1", () => {
              socket.write("HTTP/1.1 200 Connection established\r\n\r\n")
              target.pipe(socket).pipe(target)
            })
            for (const end of [socket, target]) {
              sockets.add(end)
              end.on("error", () => undefined)
            }
          })
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed({ server, sockets, requests, credentials })))
        }
      ),
      ({ server, sockets }) =>
        Effect.callback<void>((resume) => {
          for (const socket of sockets) socket.destroy()
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    ),
    ({ requests, credentials, server }) => ({
      url: `http://user:pass@127.0.0.1:${(server.address() as Net.AddressInfo).port}`,
      requests,
      credentials
    })
  )

/** A provider behind TLS. Only the proxy can reach it by its name. */
const tlsProvider = Effect.acquireRelease(
  Effect.callback<Net.Server>((resume) => {
    const plain = Http.createServer((_, response) => json(response, 200, completion({ content: "over TLS" })))
    const server = Tls.createServer(
      { cert: providerCertificate, key: providerKey },
      (socket) => plain.emit("connection", socket)
    )
    server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
  }),
  (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
).pipe(Effect.map((server) => (server.address() as Net.AddressInfo).port))

const trusting = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const before = Tls.getCACertificates("default")
      Tls.setDefaultCACertificates([...before, providerCertificate])
      return before
    }),
    () => self,
    (before) => Effect.sync(() => Tls.setDefaultCACertificates(before))
  )

const generateAt = (
  url: string,
  environment: Record<string, string>,
  options?: HttpTransport.Options & { readonly apiKey?: Redacted.Redacted }
) =>
  Effect.map(generate(), ({ text }) => text).pipe(
    Effect.provide(
      OpenAiCompatible.layer({ url, model: "m1", apiKey: options?.apiKey }).pipe(
        Layer.provide(HttpTransport.layer({ environment, ...options }))
      )
    )
  )

describe("HttpTransport with a proxy", () => {
  it.live("https:// requests pass the proxy in an encrypted tunnel", () =>
    Effect.gen(function*() {
      const proxy = yield* proxyTo(yield* tlsProvider)
      const apiKey = Redacted.make("sk-test-key")
      const text = yield* trusting(generateAt("https://provider.test/v1", { HTTPS_PROXY: proxy.url }, { apiKey }))
      assert.strictEqual(text, "over TLS")
      assert.deepStrictEqual(proxy.requests, ["CONNECT provider.test:443"])
      assert.deepStrictEqual(proxy.credentials, [`Basic ${btoa("user:pass")}`])
    }))

  it.live("http:// requests are sent to the proxy unencrypted", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => json(response, 200, completion({ content: "plain" })))
      const proxy = yield* proxyTo(server.port)
      assert.strictEqual(yield* generateAt("http://provider.test/v1", { HTTP_PROXY: proxy.url }), "plain")
      assert.deepStrictEqual(proxy.requests, ["POST http://provider.test/v1/chat/completions"])
    }))

  it.live("requests to this machine bypass the proxy unless proxyLoopback is set", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => json(response, 200, completion({ content: "here" })))
      const proxy = yield* proxyTo(server.port)
      const environment = { HTTP_PROXY: proxy.url, HTTPS_PROXY: proxy.url }
      for (const host of ["127.0.0.1", "localhost"]) {
        assert.strictEqual(yield* generateAt(`http://${host}:${server.port}/v1`, environment), "here")
      }
      assert.deepStrictEqual(proxy.requests, [])
      yield* generateAt(server.url, environment, { proxyLoopback: true })
      assert.deepStrictEqual(proxy.requests, [`POST ${server.url}/chat/completions`])
    }))

  it.live("requests to the hosts in NO_PROXY bypass the proxy", () =>
    Effect.gen(function*() {
      const proxy = yield* proxyTo(1)
      for (const NO_PROXY of ["provider.invalid", ".invalid", "*.invalid,example.com", "*"]) {
        const failed = yield* Effect.flip(generateAt("http://provider.invalid/v1", { HTTP_PROXY: proxy.url, NO_PROXY }))
        assert.match(failed.message, /ENOTFOUND|EAI_AGAIN/)
      }
      assert.deepStrictEqual(proxy.requests, [])
    }))

  it.live("the lower-case variable takes precedence", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => json(response, 200, completion({ content: "plain" })))
      const proxy = yield* proxyTo(server.port)
      const environment = { http_proxy: proxy.url, HTTP_PROXY: "http://127.0.0.1:1" }
      assert.strictEqual(yield* generateAt("http://provider.test/v1", environment), "plain")
    }))

  it.live("a failing proxy is a network error that does not contain its password", () =>
    Effect.gen(function*() {
      const failed = yield* Effect.flip(
        generateAt("https://provider.test/v1", { HTTPS_PROXY: "http://user:hunter22@127.0.0.1:1" })
      )
      assert.include(failed.message, "ECONNREFUSED")
      assert.notInclude(JSON.stringify(failed) + failed.message, "hunter22")
    }))

  it.effect("a proxy that is not an HTTP proxy is refused with an error that does not contain its password", () =>
    Effect.gen(function*() {
      for (const url of ["socks5://user:hunter22@127.0.0.1:1080", "user:hunter22@127.0.0.1"]) {
        const invalid = yield* Effect.flip(generateAt("https://provider.test/v1", { HTTPS_PROXY: url }))
        assert.strictEqual(invalid._tag, "InvalidOptions")
        assert.include(invalid.message, "HTTPS_PROXY")
        assert.notInclude(invalid.message, "hunter22")
      }
    }))
})

describe("connections of HttpTransport", () => {
  it.live("whole answers, streams and errors reuse one connection", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response, { body }, n) => {
        if (n % 3 === 0) json(response, 503, { error: { message: "busy" } })
        else if (JSON.parse(body).stream === true) sse(response, delta("a") + finish() + done)
        else json(response, 200, completion({ content: "a" }))
      })
      yield* Effect.forEach(
        Array.from({ length: 12 }, (_, i) => i),
        (i) => Effect.ignore(i % 2 === 0 ? Effect.asVoid(generate()) : Effect.asVoid(streamedText()))
      ).pipe(Effect.provide(modelAt(server.url)))
      assert.strictEqual(server.requests.length, 12)
      assert.strictEqual(server.connections(), 1)
    }))

  it.live(
    "a connection closes within 2 s when its consumer stops in the middle of a stream",
    () =>
      Effect.gen(function*() {
        const server = yield* rawServer((response) => {
          response.writeHead(200, { "content-type": "text/event-stream" })
          const timer = setInterval(() => response.write(delta("a")), 5)
          response.on("close", () => clearInterval(timer))
        })
        const closed = yield* Effect.forkChild(server.nextClose, { startImmediately: true })
        yield* stream().pipe(Stream.take(5), Stream.runDrain, Effect.provide(modelAt(server.url)))
        const stopped = performance.now()
        assert.isBelow((yield* Fiber.join(closed)) - stopped, 2_000)
      }),
    20_000
  )

  it.live(
    "a connection closes within 2 s of an interruption, whatever the request waits for",
    () =>
      Effect.gen(function*() {
        const responses: ReadonlyArray<(response: Http.ServerResponse) => void> = [
          () => undefined,
          (response) => response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders(),
          (response) => response.writeHead(200, { "content-type": "text/event-stream" }).write(delta("a")),
          (response) => response.writeHead(200, { "content-type": "application/json" }).write("{"),
          (response) => response.writeHead(503, { "content-type": "application/json" }).write("{")
        ]
        for (const respond of responses) {
          for (const request of [Effect.asVoid(generate()), Stream.runDrain(stream())]) {
            const arrived = yield* Deferred.make<void>()
            const server = yield* rawServer((response) => {
              respond(response)
              setTimeout(() => Deferred.doneUnsafe(arrived, Effect.void), 20)
            })
            const closed = yield* Effect.forkChild(server.nextClose, { startImmediately: true })
            const call = yield* Effect.forkChild(Effect.provide(request, modelAt(server.url)))
            yield* Deferred.await(arrived)
            const interrupted = performance.now()
            yield* Fiber.interrupt(call)
            assert.isBelow((yield* Fiber.join(closed)) - interrupted, 2_000)
          }
        }
      }),
    30_000
  )

  it.live("a connection closes with the layer", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => json(response, 200, completion({ content: "a" })))
      const closed = yield* Effect.forkChild(server.nextClose, { startImmediately: true })
      yield* Effect.provide(generate(), modelAt(server.url))
      yield* Effect.timeout(Fiber.join(closed), "10 seconds")
    }), 20_000)
})

describe("compressed responses", () => {
  it.live("a compressed stream is decompressed chunk by chunk", () =>
    Effect.gen(function*() {
      for (const [encoding, make] of [["gzip", Zlib.createGzip], ["deflate", Zlib.createDeflate]] as const) {
        const server = yield* rawServer((response, { headers }) => {
          assert.include(headers["accept-encoding"], encoding)
          response.writeHead(200, { "content-type": "text/event-stream", "content-encoding": encoding })
          const zip = make()
          zip.pipe(response)
          zip.write(delta("first "))
          zip.flush()
          setTimeout(() => zip.end(delta("then") + finish() + done), 500)
        })
        const arrivals: Array<number> = []
        const parts = yield* stream().pipe(
          Stream.tap(() => Effect.sync(() => arrivals.push(performance.now()))),
          Stream.runCollect,
          Effect.provide(modelAt(server.url))
        )
        assert.strictEqual(parts.map((part) => part.type === "text-delta" ? part.delta : "").join(""), "first then")
        assert.isAbove(arrivals.at(-1)! - arrivals[0]!, 30)
      }
    }), 20_000)

  it.live("a response that cannot be decompressed fails with the reason", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" })
        response.end(Buffer.concat([Zlib.gzipSync("").subarray(0, 10), Buffer.alloc(100, 0xff)]))
      })
      for (const call of [Effect.asVoid(generate()), Effect.asVoid(streamedText())]) {
        const failed = yield* Effect.flip(Effect.provide(call, modelAt(server.url)))
        assert.include(failed.message, "invalid block type")
      }
    }))

  it.live("other users of the client get a decompressed response without content-encoding", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "text/plain", "content-encoding": "gzip", "x-other": "1" })
        response.end(Zlib.gzipSync("hello"))
      })
      const response = yield* HttpClient.get(`${server.origin}/`).pipe(
        Effect.flatMap(HttpClientResponse.filterStatusOk),
        Effect.flatMap((response) => Effect.map(response.text, (text) => ({ text, headers: response.headers }))),
        Effect.provide(HttpTransport.layer({ environment: {} }))
      )
      assert.strictEqual(response.text, "hello")
      assert.strictEqual(response.headers["x-other"], "1")
      assert.isUndefined(response.headers["content-encoding"])
    }))
})

it.live("HttpTransport itself sets no time limit for a silent provider", () =>
  Effect.gen(function*() {
    const server = yield* rawServer(() => undefined)
    const waited = yield* generate().pipe(
      Effect.provide(modelAt(server.url)),
      Effect.timeoutOption(Duration.millis(300))
    )
    assert.strictEqual(waited._tag, "None")
  }))
