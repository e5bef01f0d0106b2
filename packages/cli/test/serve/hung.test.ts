import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Agent, request } from "node:http"
import { connect } from "node:net"
import type { Times } from "../../src/serve/Server.ts"
import { Server } from "../../src/serve/Server.ts"
import { folder } from "../support/files.ts"
import { type Gateway, start } from "../support/gateway.ts"
import { begin, finish, streamingProvider, word } from "../support/streamingProvider.ts"
import { processTimeout } from "../support/timeouts.ts"
import { snapshot, until, within } from "../support/witness.ts"

const body = JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "Hello" }] })

const head = (token: string, more = "") =>
  `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${token}\r\n` +
  `Content-Type: application/json\r\n${more}`

const post = (token: string): string => `${head(token)}Content-Length: ${body.length}\r\n\r\n${body}`

/** A connection that keeps what it gets, unless it does not read. Closes with the scope. */
const connection = ({ port }: Pick<Gateway, "port">, reads = true) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const socket = connect(port, "127.0.0.1")
      const got = { socket, text: "", isClosed: false }
      if (reads) socket.on("data", (data) => got.text += data.toString())
      socket.on("error", () => {})
      socket.on("close", () => got.isClosed = true)
      return got
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

const isIdle = (gateway: Gateway) =>
  Effect.map(
    snapshot(gateway),
    ({ flights, head, targets }) =>
      head.inFlight === 0 && flights.length === 0 && targets.every(({ queued, used }) => queued === 0 && used === 0)
  )

/** Asks over the connections of an agent. */
const over = (agent: Agent, { port, token }: Gateway) =>
  Effect.callback<{ readonly text: string; readonly connection: number | undefined }>((resume) => {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" }
    const sent = request({ port, method: "POST", path: "/v1/chat/completions", headers, agent }, (response) => {
      let text = ""
      response.on("data", (data: Buffer) => text += data.toString())
      const connection = response.socket.localPort
      response.on("end", () => resume(Effect.succeed({ text, connection })))
    })
    sent.on("error", (error) => resume(Effect.die(error)))
    sent.end(body)
  })

describe("connections of sluice serve", { timeout: processTimeout }, () => {
  it.live("pipelined requests take a permit each, are answered in order, and end together if their client leaves", () =>
    Effect.gen(function*() {
      let isHeld = false
      // Larger than what a connection takes at once.
      const long = word("x".repeat(500_000))
      const provider = yield* streamingProvider((received, n) => {
        begin(received)
        received.response.write(word(`answer-${n}`))
        received.response.write(long)
        if (!isHeld) received.response.end(finish)
      })
      const gateway = yield* start(yield* folder, ["--target", `a=${provider.url}`, "--concurrency", "10"])
      const first = yield* connection(gateway)
      first.socket.write(post(gateway.token).repeat(5))
      yield* until("five answers came", Effect.sync(() => first.text.split("[DONE]").length === 6))
      assert.lengthOf(first.text.match(/answer-\d/g) ?? [], 5)

      isHeld = true
      const second = yield* connection(gateway)
      second.socket.write(post(gateway.token).repeat(50))
      yield* until("ten requests run", Effect.sync(() => provider.open() === 10))
      yield* until(
        "the others are queued",
        Effect.map(
          snapshot(gateway),
          ({ head, targets }) => head.inFlight === 50 && targets[0]?.used === 10 && targets[0].queued === 40
        )
      )
      second.socket.destroy()
      yield* until("no stream is open", Effect.sync(() => provider.open() === 0))
      yield* until("no call is in flight", isIdle(gateway))
      assert.lengthOf(provider.received, 15)
    }))

  it.live("one connection serves a hundred requests, and keeps nothing of them", () =>
    Effect.gen(function*() {
      const provider = yield* streamingProvider((received) => {
        begin(received)
        received.response.end(word("fine") + finish)
      })
      const gateway = yield* start(yield* folder, ["--target", `a=${provider.url}`])
      const agent = new Agent({ keepAlive: true, maxSockets: 1 })
      yield* Effect.addFinalizer(() => Effect.sync(() => agent.destroy()))
      const connections = new Set<number | undefined>()
      for (let n = 0; n < 100; n++) {
        const { connection, text } = yield* within("an answer", over(agent, gateway))
        assert.include(text, "[DONE]")
        connections.add(connection)
      }
      assert.lengthOf(provider.received, 100)
      assert.strictEqual(connections.size, 1)
      gateway.command.process.kill("SIGTERM")
      // Node warns of listeners that are left behind.
      assert.notInclude((yield* Effect.promise(() => gateway.command.ended)).stderr, "Warning")
    }))
})

/** A server that answers each call with these bytes, or keeps it. */
const serverWith = (times: Partial<Times>, answer?: Buffer) =>
  Effect.acquireRelease(
    Effect.promise(() =>
      Server.listen({
        host: "127.0.0.1",
        port: 0,
        allowedHosts: () => new Set(),
        client: () => ({ name: "any", owner: "any", isAdmin: false, key: undefined, quota: undefined }),
        handle: (_client, _exchange, sink) => {
          sink.head(200, { "content-type": "text/event-stream" })
          if (answer !== undefined) sink.end(answer)
        },
        open: () => false,
        own: () => false,
        onRefused: () => {},
        onDefect: () => {},
        onRunning: () => {}
      }, { headers: 60_000, request: 60_000, keepAlive: 60_000, unread: 60_000, check: 20, ...times })
    ),
    (server) => Effect.sync(() => server.destroy())
  )

describe("clients of sluice serve that hang", { timeout: processTimeout }, () => {
  const closed = ({ isClosed }: { readonly isClosed: boolean }) => isClosed

  const slow: ReadonlyArray<readonly [name: string, times: Partial<Times>, sent: string]> = [
    ["sends nothing", { headers: 200 }, ""],
    ["does not finish its headers", { headers: 200 }, head("x")],
    ["does not begin its body", { headers: 200, request: 200 }, head("x", "Content-Length: 9\r\n\r\n")],
    ["does not finish its body", { headers: 200, request: 200 }, head("x", `Content-Length: 9\r\n\r\n{"a`)],
    ["does not finish a chunk", { headers: 200, request: 200 }, head("x", "Transfer-Encoding: chunked\r\n\r\n9\r\n{}")],
    ["sends no second request", { keepAlive: 200 }, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"]
  ]
  for (const [name, times, sent] of slow) {
    it.live(`a client that ${name} in time loses its connection`, () =>
      Effect.gen(function*() {
        const server = yield* serverWith(times)
        const client = yield* connection(server)
        client.socket.write(sent)
        yield* until("the connection closes", Effect.sync(() => closed(client)))
        assert.match(client.text, "keepAlive" in times ? /^HTTP\/1\.1 200 / : /^(?:HTTP\/1\.1 408 |$)/)
        yield* until("nothing runs", Effect.sync(() => server.count === 0))
      }))
  }

  it.live("a client that sends its headers a byte at a time has no more time than others", () =>
    Effect.gen(function*() {
      const server = yield* serverWith({ headers: 300 })
      const client = yield* connection(server)
      for (const byte of head("x") + "X: y".repeat(1_000)) {
        if (client.isClosed) break
        client.socket.write(byte)
        yield* Effect.sleep(20)
      }
      assert.isTrue(client.isClosed)
    }))

  it.live("a client that does not read its answer loses the connection, and the answer is let go", () =>
    Effect.gen(function*() {
      const server = yield* serverWith({ unread: 300 }, Buffer.alloc(30_000_000, " "))
      const client = yield* connection(server, false)
      client.socket.write(post("x"))
      yield* until("it runs", Effect.sync(() => server.count === 1))
      yield* until("it ends", Effect.sync(() => server.count === 0))
      client.socket.resume()
      yield* until("the connection closes", Effect.sync(() => closed(client)))
    }))

  it.live("a client that reads slowly gets the whole answer, and one whose answer is silent waits", () =>
    Effect.gen(function*() {
      const answer = Buffer.alloc(30_000_000, " ")
      // Longer than a pause of a busy machine, and shorter than the answer takes.
      const limits = { unread: 8_000, headers: 5_000, request: 5_000, keepAlive: 5_000 }
      const server = yield* serverWith(limits, answer)
      const reader = yield* connection(server, false)
      reader.socket.write(post("x").replace("HTTP/1.1\r\n", "HTTP/1.1\r\nConnection: close\r\n"))
      let read = 0
      reader.socket.on("data", (data) => {
        read += data.length
        reader.socket.pause()
        setTimeout(() => reader.socket.resume(), 20)
      })
      const silent = yield* serverWith(limits)
      const waiting = yield* connection(silent)
      waiting.socket.write(post("x"))
      yield* until("the answer came", Effect.sync(() => closed(reader)), "2 minutes")
      assert.isAbove(read, answer.length)
      assert.isFalse(closed(waiting))
      assert.strictEqual(silent.count, 1)
    }))
})
