import { assert } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Context, Effect, Layer, type Scope } from "effect"
import { once } from "node:events"
import type { AddressInfo, Socket } from "node:net"
import { connect, createServer } from "node:net"
import * as Browser from "../support/browser.ts"
import { folder } from "../support/files.ts"
import { addKey, ask, type Gateway, keysIn, over, start } from "../support/gateway.ts"
import { livePage, says } from "../support/stage.ts"

const { describeWithBrowser, evaluate, until } = Browser

/** A gateway that can be started again: its key outlasts it, as the token of a start does not. */
class Lasting extends Context.Service<Lasting, {
  readonly gateway: Gateway
  readonly again: Effect.Effect<Gateway, never, Scope.Scope>
}>()("sluice/test/Lasting") {}

const lasting = Layer.effect(
  Lasting,
  Effect.gen(function*() {
    const { args, env } = over(yield* LoopbackProvider.make({}), yield* LoopbackProvider.make({}))
    const directory = yield* folder
    const token = yield* addKey(directory, "boss", "--admin")
    const begin = (port: number) =>
      Effect.map(
        start(directory, [...args, "--keys", keysIn(directory)], env, port),
        (gateway) => ({ ...gateway, token })
      )
    const gateway = yield* begin(0)
    return Lasting.of({ gateway, again: begin(gateway.port) })
  })
)

const isStale = `document.body.classList.contains("stale")`

/** Forwards connections to a port, until they fall silent without being closed. */
const line = (port: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const pairs = new Set<{ readonly ends: ReadonlyArray<Socket>; answeredAt: number }>()
      const server = createServer((socket) => {
        const other = connect(port, "127.0.0.1")
        const pair = { ends: [socket, other], answeredAt: 0 }
        for (const end of pair.ends) end.on("error", () => {})
        other.on("data", () => pair.answeredAt = performance.now())
        socket.pipe(other).pipe(socket)
        pairs.add(pair)
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      // It listens on a port, so its address is no path.
      const { port: own } = server.address() as AddressInfo
      return {
        url: `http://127.0.0.1:${own}`,
        /** Stops what passes now, and closes connections that idle. */
        cut: () => {
          for (const { answeredAt, ends } of pairs) {
            for (const end of ends) {
              if (performance.now() - answeredAt < 1_000) end.unpipe().pause()
              else end.destroy()
            }
          }
        },
        close: () => {
          server.close()
          for (const { ends } of pairs) for (const end of ends) end.destroy()
        }
      }
    }),
    ({ close }) => Effect.sync(close)
  )

/** Keeps the streams that the page opens, and can lose a delta. */
const recordStreams = `
  globalThis.streams = []
  globalThis.EventSource = class extends EventSource {
    constructor(url) {
      super(url)
      streams.push(url)
    }
    addEventListener(name, listener) {
      super.addEventListener(name, (event) => {
        if (name === "delta" && globalThis.loses) globalThis.loses = false
        else listener(event)
      })
    }
  }`

describeWithBrowser("the live page without a word", lasting, (it) => {
  it.effect("a connection that fell silent, and a stream that lost an event, are replaced", () =>
    Effect.gen(function*() {
      const { gateway } = yield* Lasting
      const { cut, url } = yield* line(gateway.port)
      const tab = yield* livePage({ url, token: gateway.token }, undefined, recordStreams)
      yield* until(tab, says("No call has come yet"))
      assert.deepStrictEqual(yield* evaluate(tab, "streams"), ["events"])
      yield* evaluate(tab, "globalThis.loses = true")
      yield* until(tab, "streams.length === 2")
      yield* until(tab, `globalThis.loses === false && !${isStale}`)

      yield* Effect.sleep("1100 millis")
      cut()
      yield* until(tab, says("No word from the gateway"), 15_000)
      yield* until(tab, says("No call has come yet"))
    }))

  it.effect("a page says within five seconds that the gateway was killed, turns grey, and is live after a restart", () =>
    Effect.gen(function*() {
      const { again, gateway: first } = yield* Lasting
      const tab = yield* livePage(first)
      yield* until(tab, `document.querySelector("tr[data-name=a]") !== null`)
      first.command.process.kill("SIGKILL")
      yield* until(tab, says("No word from the gateway"), 15_000)
      assert.isTrue(yield* evaluate(tab, isStale))
      // The last known state can be read, and no clock runs.
      const shown = `document.getElementById("meta").textContent + document.getElementById("more").textContent`
      const before = yield* evaluate(tab, shown)
      assert.match(String(before), /since \d\d:\d\d:\d\d/)
      assert.isTrue(yield* evaluate(tab, `document.querySelector("tr[data-name=a]").checkVisibility()`))
      yield* Browser.picture(tab, "lost")
      yield* Browser.isAccessible(tab, "lost")
      yield* Effect.sleep("1200 millis")
      assert.strictEqual(yield* evaluate(tab, shown), before)

      const second = yield* again
      yield* until(tab, says("No call has come yet"))
      assert.isFalse(yield* evaluate(tab, isStale))
      yield* ask(second, second.token)
      yield* until(tab, says("All 2 targets take calls"))

      // Silence on an open connection.
      second.command.process.kill("SIGSTOP")
      yield* until(tab, says("No word from the gateway"), 5_500)
      second.command.process.kill("SIGCONT")
      yield* until(tab, says("All 2 targets take calls"))
    }))
})
