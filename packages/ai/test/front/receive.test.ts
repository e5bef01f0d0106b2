import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Front from "@sluice/ai/Front"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { connect } from "node:net"

/** A server that answers with the size of the body, and refuses more than 8 bytes. Returns its port and what it received. */
const counting = Effect.gen(function*() {
  const received: Array<string> = []
  const server = Http.createServer((request, response) => {
    response.setHeader("x-before", "set")
    Front.receive(request, response, {
      maxBodyBytes: 8,
      exchange: ({ body, method, path }, sink) => {
        received.push(`${method} ${path} ${Buffer.from(body).toString()}`)
        sink.head(200, { "x-own": ["a", "b"] })
        sink.end(String(body.length))
      },
      refuse: (code, { body, path }, sink) => {
        received.push(`${code} ${path} ${body.length}`)
        sink.head(413, {})
        sink.end("too large")
      }
    })
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
    () =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )
  return { port: (server.address() as AddressInfo).port, received, server }
})

/** Sends pieces of a request, each in a turn of its own, and returns all that comes until the connection closes. */
const sent = (port: number, ...pieces: ReadonlyArray<string>) =>
  Effect.promise(() =>
    new Promise<string>((resolve) => {
      let text = ""
      const socket = connect(port, "127.0.0.1", async () => {
        socket.setNoDelay(true)
        for (const piece of pieces) {
          socket.write(piece)
          await new Promise((resume) => setTimeout(resume, 5))
        }
      })
      socket.on("data", (data) => text += String(data))
      socket.on("error", () => {})
      socket.on("close", () => resolve(text))
      socket.setTimeout(30_000, () => socket.destroy())
    })
  )

const head = (headers: string, connection = "close") =>
  `POST /a?b=c HTTP/1.1\r\nhost: x\r\nconnection: ${connection}\r\n${headers}\r\n\r\n`

describe("receive", () => {
  it.live("a body in pieces arrives as a whole, and headers that were set before go with the answer", () =>
    Effect.gen(function*() {
      const { port, received } = yield* counting
      const answer = yield* sent(port, head("content-length: 6"), "one", "two")
      assert.match(answer, /^HTTP\/1.1 200/)
      for (const line of ["x-before: set", "x-own: a", "x-own: b"]) assert.include(answer.toLowerCase(), line)
      assert.match(answer, /\b6\b[^]*$/)
      yield* sent(port, head("content-length: 0"))
      assert.deepStrictEqual(received, ["POST /a?b=c onetwo", "POST /a?b=c "])
    }).pipe(Effect.scoped))

  it.live("a body that is too large is refused before the rest is read, by its length or as it comes", () =>
    Effect.gen(function*() {
      const { port, received } = yield* counting
      const declared = yield* sent(port, head("content-length: 9", "keep-alive"))
      const chunked = yield* sent(port, head("transfer-encoding: chunked", "keep-alive"), "9\r\n123456789\r\n")
      for (const answer of [declared, chunked]) {
        assert.match(answer, /^HTTP\/1.1 413/)
        assert.include(answer.toLowerCase(), "connection: close")
      }
      assert.deepStrictEqual(received, ["request_too_large /a?b=c 0", "request_too_large /a?b=c 0"])
    }).pipe(Effect.scoped))

  it.live("a request whose client leaves within its body is dropped", () =>
    Effect.gen(function*() {
      const { port, received, server } = yield* counting
      const closed = Effect.callback<void>((resume) => {
        server.once("request", (request: Http.IncomingMessage) => request.once("close", () => resume(Effect.void)))
      })
      const socket = connect(port, "127.0.0.1", () => {
        socket.write(head("content-length: 6") + "one")
        server.once("request", () => socket.destroy())
      })
      yield* Effect.timeout(closed, "30 seconds")
      assert.deepStrictEqual(received, [])
    }).pipe(Effect.scoped))
})
