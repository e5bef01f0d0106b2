/**
 * `npm run screenshot`: pictures of the live page for the documentation. A gateway with four targets gets calls for some minutes, and
 * one of its providers breaks twice. `-- --minutes 1` is enough to look at the page.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Console, Effect, Random } from "effect"
import { mkdirSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as Browser from "./support/browser.ts"
import { folder } from "./support/files.ts"
import { addKey, ask, keysIn, start } from "./support/gateway.ts"
import { livePage, says } from "./support/stage.ts"

const images = fileURLToPath(new URL("../../../docs/images/", import.meta.url))
const { values } = parseArgs({ options: { minutes: { type: "string", default: "6" } } })
const seconds = Number(values.minutes) * 60

/** A provider that needs so long for its first token and for each further one. */
const provider = (firstTokenMillis: number, tokenMillis: number) =>
  LoopbackProvider.make({
    apiKey: false,
    journalCapacity: 100,
    turns: ({ n }) => {
      // Nobody else notices a time or a number that repeats.
      const slower = 1 + (n * 7 % 10) / 10
      if (n % 97 === 0) return Turn.cut({ afterTokens: 3, firstTokenMillis, tokenMillis })
      if (n % 41 === 0) return Turn.status(429, { retryAfter: "1 second" })
      return Turn.answer("word ".repeat(20 + n * 13 % 60).trim(), {
        firstTokenMillis: firstTokenMillis * slower,
        tokenMillis
      })
    }
  })

const program = Effect.gen(function*() {
  const main = yield* provider(300, 25)
  const azure = yield* provider(420, 30)
  const claude = yield* provider(550, 20)
  const local = yield* provider(150, 45)
  const directory = yield* folder
  const target = [
    { name: "main", url: main.url, model: "gpt-5-mini" },
    { name: "azure", url: azure.url, model: "gpt-5-mini" },
    { name: "claude", url: claude.origin, wire: "anthropic", model: "claude-haiku-4-5" },
    { name: "local", url: local.url, model: "qwen3-8b" }
  ]
  const models = { "gpt-5*": ["main", "azure", "claude"], "claude-*": ["claude", "azure"], "qwen*": ["local"] }
  const concurrency = ["main=40", "azure=20", "local=4"]
  const rpm = ["main=500", "azure=300", "claude=200"]
  const tpm = ["main=200k"]
  writeFileSync(
    join(directory, "sluice.json"),
    JSON.stringify({
      serve: { target, models, concurrency, rpm, tpm, keys: keysIn(directory), maxAttempts: 2, price: "0.25,2" }
    })
  )
  const admin = yield* addKey(directory, "boss", "--admin")
  const clients = yield* Effect.forEach(
    ["checkout", "support", "search"],
    (name) => addKey(directory, name, "--rpm", "300", "--tpm", "200k", "--max-cost-per-day", "5")
  )
  const gateway = yield* start(directory, [])
  const call = Effect.gen(function*() {
    const client = clients[yield* Random.nextIntBetween(0, clients.length - 1)] ?? admin
    const sort = yield* Random.next
    const model = sort < 0.7 ? "gpt-5-mini" : sort < 0.9 ? "claude-haiku-4-5" : "qwen3-8b"
    yield* ask(gateway, client, { model, stream: true, max_tokens: 100 })
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.forkScoped(call), Effect.sleep("400 millis"))))
  yield* Console.log(`${values.minutes} minutes of calls ...`)
  yield* Effect.sleep(seconds * 500)
  yield* main.down
  yield* Effect.sleep(seconds * 80)
  yield* main.up
  yield* Effect.sleep(seconds * 350)
  yield* main.down

  const tab = yield* livePage({ ...gateway, token: admin }, { viewport: { width: 1280, height: 1100 } })
  yield* Browser.until(tab, says("main is down; calls go elsewhere"))
  yield* Effect.sleep(seconds * 70)
  mkdirSync(images, { recursive: true })
  for (const colorScheme of ["light", "dark"] as const) {
    const path = join(images, `live-page-${colorScheme}.png`)
    yield* Effect.promise(async () => {
      await tab.page.emulateMedia({ colorScheme })
      // The plots are drawn anew.
      await tab.page.waitForTimeout(1_500)
      await tab.page.screenshot({ path })
    })
    yield* Console.log(`${path}: ${Math.round(statSync(path).size / 1_000)} KB`)
  }
})

NodeRuntime.runMain(Effect.scoped(program).pipe(Effect.provide(Browser.live)))
