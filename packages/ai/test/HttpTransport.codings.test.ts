import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { HttpClient } from "effect/http"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as Zlib from "node:zlib"
import { failureOf, generate, streamedText } from "./support/model.ts"
import { rawServer } from "./support/rawServer.ts"
import { httpOf, isStreamed, type Wire, wires } from "./support/wires.ts"

// Codings that common clients take. The reports are issues and pull requests on GitHub.

interface Row {
  readonly what: string
  /** The repository and number of a public report, or another source. */
  readonly report: string
  /** The value of `content-encoding`. */
  readonly header: string | ReadonlyArray<string>
  readonly encode: (body: Buffer) => Buffer
}

const gzip = (body: Buffer): Buffer => Zlib.gzipSync(body)
const half = (body: Buffer): readonly [Buffer, Buffer] => [
  body.subarray(0, body.length >> 1),
  body.subarray(body.length >> 1)
]
const members = (encode: (part: Buffer) => Buffer) => (body: Buffer) => Buffer.concat(half(body).map(encode))

const rows: ReadonlyArray<Row> = [
  { what: "gzip of two members", report: "curl 22156", header: "gzip", encode: members(gzip) },
  {
    what: "gzip of a member for each byte",
    report: "tower-http 737",
    header: "gzip",
    encode: (body) => Buffer.concat(Array.from(body, (byte) => gzip(Buffer.from([byte]))))
  },
  {
    what: "gzip with an empty first member",
    report: "vm0 16465",
    header: "gzip",
    encode: (body) => Buffer.concat([gzip(Buffer.alloc(0)), gzip(body)])
  },
  {
    what: "gzip with an empty last member",
    report: "curl 3796",
    header: "gzip",
    encode: (body) => Buffer.concat([gzip(body), gzip(Buffer.alloc(0))])
  },
  {
    what: "gzip with zeros after it",
    report: "tornado 2714",
    header: "gzip",
    encode: (body) => Buffer.concat([gzip(body), Buffer.alloc(3)])
  },
  {
    what: "gzip without its checksum",
    report: "node-fetch 239, undici 2123, request 2492",
    header: "gzip",
    encode: (body) => gzip(body).subarray(0, -8)
  },
  { what: "gzip under its old name", report: "whatwg/fetch 716", header: "x-gzip", encode: gzip },
  { what: "gzip in capitals", report: "bun 33270", header: " GZip ", encode: gzip },
  { what: "deflate of zlib", report: "httplib2 230", header: "deflate", encode: (body) => Zlib.deflateSync(body) },
  {
    what: "deflate of zlib with the fastest level",
    report: "httplib2 230",
    header: "deflate",
    encode: (body) => Zlib.deflateSync(body, { level: 1 })
  },
  {
    what: "deflate without zlib's header",
    report: "request 2197, decompress-response 34, got 677, netty 9087",
    header: "deflate",
    encode: (body) => Zlib.deflateRawSync(body)
  },
  {
    what: "deflate without zlib's header, stored",
    report: "bright-cli 409",
    header: "deflate",
    encode: (body) => Zlib.deflateRawSync(body, { level: 0 })
  },
  {
    what: "brotli, which was not requested",
    report: "httrack 556",
    header: "br",
    encode: (body) => Zlib.brotliCompressSync(body)
  },
  {
    what: "zstd, which was not requested",
    report: "httrack 556",
    header: "zstd",
    encode: (body) => Zlib.zstdCompressSync(body)
  },
  {
    what: "deflate and then gzip",
    report: "undici 2158",
    header: "deflate, gzip",
    encode: (body) => gzip(Zlib.deflateSync(body))
  },
  {
    what: "gzip and then brotli",
    report: "aioduct 80",
    header: "gzip, br",
    encode: (body) => Zlib.brotliCompressSync(gzip(body))
  },
  {
    what: "brotli and then gzip, in two headers",
    report: "bun 33270",
    header: ["br", "gzip"],
    encode: (body) => gzip(Zlib.brotliCompressSync(body))
  },
  { what: "gzip and then nothing", report: "hurl 40", header: "gzip, identity", encode: gzip },
  { what: "gzip twice", report: "whatwg/fetch 716", header: "gzip, gzip", encode: (body) => gzip(gzip(body)) },
  { what: "no coding by its name", report: "nemo-platform 1218", header: "identity", encode: (body) => body },
  { what: "a charset", report: "httrack 556", header: "UTF-8", encode: (body) => body },
  { what: "an empty name", report: "httrack 556", header: "", encode: (body) => body },
  {
    what: "gzip that a proxy has removed",
    report: "freelens-ai-extension 272, superlocalmemory 79",
    header: "gzip",
    encode: (body) => body
  },
  {
    what: "one of two layers of gzip that a proxy has removed",
    report: "libhtp 108",
    header: "gzip, gzip",
    encode: gzip
  },
  { what: "zstd that a proxy has removed", report: "freelens-ai-extension 272", header: "zstd", encode: (body) => body }
]

const sent = (wire: Wire, body: string): string =>
  isStreamed(body)
    ? wire.head + wire.delta("one ") + wire.delta("two") + wire.finish + wire.done
    : JSON.stringify(wire.whole("one two"))

for (const wire of wires) {
  describe(`codings, ${wire.module}`, () => {
    for (const { encode, header, report, what } of rows) {
      it.live(`the model reads answers, streams and errors with ${what} (${report})`, () =>
        Effect.gen(function*() {
          const server = yield* rawServer((response, { body }, n) => {
            const content = n === 3 ? JSON.stringify(wire.error({ message: "Come back later" })) : sent(wire, body)
            response.setHeader("content-type", isStreamed(body) ? "text/event-stream" : "application/json")
            response.setHeader("content-encoding", header)
            response.writeHead(n === 3 ? 503 : 200)
            response.end(encode(Buffer.from(content)))
          })
          yield* Effect.gen(function*() {
            assert.strictEqual((yield* generate()).text, "one two")
            assert.strictEqual(yield* streamedText(), "one two")
            const failed = yield* failureOf(generate())
            assert.strictEqual(httpOf(failed)?.response?.status, 503)
            assert.include(failed.message, "Come back later")
          }).pipe(Effect.provide(wire.modelAt(server.url)))
          assert.strictEqual(server.requests.length, 3)
          assert.strictEqual(server.requests[0]?.headers["accept-encoding"], "gzip, deflate")
        }))
    }

    it.live("a compressed stream that ends early is truncated, and no answer", () =>
      Effect.gen(function*() {
        const server = yield* rawServer((response) => {
          response.writeHead(200, { "content-type": "text/event-stream", "content-encoding": "gzip" })
          const compressed = gzip(
            Buffer.from(wire.head + wire.delta("one ") + wire.delta("x".repeat(1_000)) + wire.finish)
          )
          response.end(compressed.subarray(0, -30))
        })
        const failed = yield* failureOf(Effect.provide(streamedText(), wire.modelAt(server.url)))
        assert.strictEqual(failed.reason._tag, "InternalProviderError")
      }))

    it.live("a body that expands to gigabytes is refused at the limit", () =>
      Effect.gen(function*() {
        const zeros = gzip(Buffer.alloc(2 ** 26, "1"))
        const server = yield* rawServer((response) => {
          response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip, gzip" })
          response.end(gzip(Buffer.concat([gzip(Buffer.from("[")), ...Array.from({ length: 50 }, () => zeros)])))
        })
        const failed = yield* failureOf(
          Effect.provide(generate(), wire.modelAt(server.url, { maxAnswerSize: 2 ** 20 }))
        )
        assert.include(failed.message, "more than 1048576 bytes")
      }), 20_000)
  })
}

const get = (server: { readonly origin: string }) =>
  Effect.flatMap(
    HttpClient.get(`${server.origin}/`),
    (response) => Effect.map(response.text, (text) => ({ text, status: response.status, headers: response.headers }))
  )

const over = Effect.provide(HttpTransport.layer({ environment: {} }))

describe("codings of other responses", () => {
  // A `Response` of the platform refuses some of these, and a body of the others.
  for (const status of [204, 205, 304, 299, 451, 599, 999]) {
    it.live(`a response with status ${status} keeps its status beside a coding`, () =>
      Effect.gen(function*() {
        const hasBody = ![204, 205, 304].includes(status)
        const server = yield* rawServer((response) => {
          response.writeHead(status, { "content-encoding": "gzip" })
          response.end(hasBody ? gzip(Buffer.from("hello")) : undefined)
        })
        const response = yield* over(get(server))
        assert.strictEqual(response.status, status)
        assert.strictEqual(response.text, hasBody ? "hello" : "")
      }))
  }

  for (const coding of ["gzip", "deflate", "br", "zstd"]) {
    it.live(`an empty body with the coding ${coding} is empty`, () =>
      Effect.gen(function*() {
        const server = yield* rawServer((response) => {
          response.writeHead(200, { "content-encoding": coding })
          response.end()
        })
        assert.strictEqual((yield* over(get(server))).text, "")
      }))
  }

  it.live("more than five codings are refused", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => {
        response.writeHead(200, { "content-encoding": Array.from({ length: 6 }, () => "gzip").join(", ") })
        let body: Buffer = Buffer.from("hello")
        for (let n = 0; n < 6; n++) body = gzip(body)
        response.end(body)
      })
      const failed = yield* Effect.flip(over(get(server)))
      if (failed._tag !== "HttpClientError" || failed.reason._tag !== "DecodeError") return assert.fail(failed._tag)
      assert.include(String(failed.reason.cause), "more than 5 content codings")
    }))
})
