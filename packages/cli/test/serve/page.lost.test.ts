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

const lost = "No word from the gateway"

/** Forwards connections to a port, until they fall silent without being closed. */
const line = (port: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const pairs = new Set<{ readonly ends: ReadonlyArray<Socket>; path: string }>()
      const server = createServer((socket) => {
        const other = connect(port, "127.0.0.1")
        const pair = { ends: [socket, other], path: "" }
        for (const end of pair.ends) end.on("error", () => {})
        // A browser sends the next request once it has the answer to the last one.
        socket.on("data", (data) => {
          const [, path] = /^[A-Z]+ (\S+) HTTP/.exec(data.toString("latin1")) ?? []
          if (path !== undefined) pair.path = path
        })
        socket.pipe(other).pipe(socket)
        pairs.add(pair)
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      // It listens on a port, so its address is no path.
      const { port: own } = server.address() as AddressInfo
      return {
        url: `http://127.0.0.1:${own}`,
        /** Silences the streams of events, and closes other connections. */
        cut: () => {
          for (const { ends, path } of pairs) {
            for (const end of ends) {
              if (path.endsWith("/events")) end.unpipe().pause()
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

/**
 * Keeps the streams that the page opens, how often it lost one, and how long it heard nothing, in tenths of a second. No tenth is
 * counted while the machine stands still. Can lose a delta.
 */
const record = `
  globalThis.streams = []
  globalThis.losses = 0
  globalThis.silentTenths = 0
  setInterval(() => silentTenths++, 100)
  globalThis.EventSource = class extends EventSource {
    constructor(url) {
      super(url)
      streams.push(url)
    }
    addEventListener(name, listener) {
      super.addEventListener(name, (event) => {
        if (event instanceof MessageEvent) silentTenths = 0
        if (name === "delta" && globalThis.loses) globalThis.loses = false
        else listener(event)
      })
    }
  }
  let wasStale = true
  new MutationObserver(() => {
    const isStale = document.body?.classList.contains("stale") ?? true
    if (isStale && !wasStale) losses++
    wasStale = isStale
  }).observe(document, { subtree: true, childList: true, attributeFilter: ["class"] })`

/** Keeps after how many silent tenths the verdict first says that the gateway is lost. */
const awaitLost = `
  delete globalThis.saidAfter
  const look = () => {
    if (document.getElementById("says").textContent === ${JSON.stringify(lost)}) globalThis.saidAfter ??= silentTenths
  }
  look()
  new MutationObserver(look).observe(document.getElementById("says"), {
    childList: true,
    characterData: true,
    subtree: true
  })`

describeWithBrowser("the live page without a word", lasting, (it) => {
  it.effect("a connection that fell silent, and a stream that lost an event, are replaced", () =>
    Effect.gen(function*() {
      const { gateway } = yield* Lasting
      const { cut, url } = yield* line(gateway.port)
      const tab = yield* livePage({ url, token: gateway.token }, undefined, record)
      yield* until(tab, says("No call has come yet"))
      // A machine that stands still can have it open another one at any time.
      const opened = Effect.map(evaluate(tab, "streams.length"), Number)
      const first = yield* opened
      yield* evaluate(tab, "globalThis.loses = true")
      yield* until(tab, `globalThis.loses === false && streams.length > ${first} && !${isStale}`)

      const second = yield* opened
      const losses = Number(yield* evaluate(tab, "losses"))
      cut()
      // The verdict need not say it: the next stream can open within the quarter of a second in which the page draws.
      yield* until(tab, `losses > ${losses} && streams.length > ${second} && !${isStale}`)
      yield* until(tab, says("No call has come yet"))
      assert.deepStrictEqual(yield* evaluate(tab, "[...new Set(streams)]"), ["events"])
    }))

  it.effect("a page says within five seconds that the gateway was killed, turns grey, and is live after a restart", () =>
    Effect.gen(function*() {
      const { again, gateway: first } = yield* Lasting
      const tab = yield* livePage(first, undefined, record)
      const saysInTime = Effect.gen(function*() {
        yield* until(tab, says(lost))
        assert.isAtMost(Number(yield* evaluate(tab, "saidAfter")), 50)
      })
      yield* until(tab, `document.querySelector("tr[data-name=a]") !== null`)
      yield* evaluate(tab, awaitLost)
      first.command.process.kill("SIGKILL")
      yield* Effect.promise(() => first.command.ended)
      yield* saysInTime
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
      yield* until(tab, `${says("No call has come yet")} && !${isStale}`)
      yield* ask(second, second.token)
      yield* until(tab, says("All 2 targets take calls"))

      // Silence on an open connection.
      yield* evaluate(tab, awaitLost)
      second.command.process.kill("SIGSTOP")
      yield* saysInTime
      second.command.process.kill("SIGCONT")
      yield* until(tab, says("All 2 targets take calls"))
    }))
})
