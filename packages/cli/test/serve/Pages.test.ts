import { assert, describe, it } from "@effect/vitest"
import { Context, Effect } from "effect"
import type { AddressInfo } from "node:net"
import { createServer, get } from "node:http"
import { Live } from "../../src/serve/Live.ts"
import { Pages } from "../../src/serve/Pages.ts"
import { until } from "../support/witness.ts"

describe("the live pages of a gateway", () => {
  it.live("a page that does not read is let go, and the others go on", () =>
    Effect.gen(function*() {
      const live = new Live(0)
      // Events of 240 KB: a page that reads has not five of them unread, even on a busy machine.
      for (let calls = 0; calls < 12; calls++) live.began("k".repeat(20_000), "chat", 0)
      const pages = yield* Effect.acquireRelease(
        Effect.sync(() =>
          Pages.open({
            context: Context.empty(),
            live,
            clients: { levels: [] },
            current: () => ({ front: { targets: Effect.succeed([]) }, settings: { routes: [], targets: [] } }),
            audit: Effect.succeed([]),
            replaced: () => []
          })
        ),
        (pages) => Effect.sync(() => pages.close())
      )
      const closed = new Set<string>()
      const server = yield* Effect.acquireRelease(
        Effect.promise(() =>
          new Promise<ReturnType<typeof createServer>>((resolve) => {
            const server = createServer(({ url = "" }, response) => {
              response.once("close", () => closed.add(url))
              pages.add(response, url, "full")
            })
            server.listen(0, "127.0.0.1", () => resolve(server))
          })
        ),
        (server) => Effect.sync(() => server.closeAllConnections())
      )
      // It listens on a port, so its address is no path.
      const { port } = server.address() as AddressInfo
      let received = 0
      const open = (path: string, reads: boolean) =>
        Effect.promise(() =>
          new Promise<void>((resolve) => {
            const request = get({ port, host: "127.0.0.1", path, agent: false }, (response) => {
              response.on("error", () => {})
              if (reads) response.on("data", (data: Buffer) => received += data.length)
              else response.pause()
              resolve()
            })
            request.on("error", () => {})
          })
        )
      yield* open("/reads", true)
      yield* open("/sleeps", false)
      for (let events = 0; events < 200 && !closed.has("/sleeps"); events++) {
        yield* Effect.promise(() => pages.sample())
        yield* Effect.sleep("20 millis")
      }
      assert.deepStrictEqual([...closed], ["/sleeps"])
      const before = received
      yield* Effect.promise(() => pages.sample())
      yield* until("the other page has more", Effect.sync(() => received > before))
    }))
})
