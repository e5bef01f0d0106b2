import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Effect, Fiber } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Browser from "../support/browser.ts"
import { folder } from "../support/files.ts"
import { addKey, ask, keysIn, over, start } from "../support/gateway.ts"
import { processTimeout } from "../support/timeouts.ts"

const failures = 30

/** Set it to a folder to look at the page. */
const pictures = process.env["SLUICE_PICTURES"]

const waitFor = (tab: Browser.Tab, expression: string) =>
  Effect.promise(async () => {
    for (let tries = 0; tries < 200; tries++) {
      if (await tab.evaluate(expression) === true) return
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    assert.fail(`${expression}: ${String(await tab.evaluate("document.body.innerText"))} ${tab.messages.join("\n")}`)
  })

const says = (words: string) => `document.getElementById("says").textContent === ${JSON.stringify(words)}`

// There is no Chromium on machines of users and on some of ours.
describe.skipIf(!Browser.hasBrowser)("the live page in Chromium", { timeout: processTimeout }, () => {
  it.live("an outage stands there in words, no width is exceeded, and the console stays empty", () =>
    Effect.gen(function*() {
      const a = yield* LoopbackProvider.make({ turns: Array.from({ length: failures }, () => Turn.status(503)) })
      const b = yield* LoopbackProvider.make({})
      const { args, env } = over(a, b)
      const gateway = yield* start(yield* folder, [...args, "--concurrency", "b=8", "--rpm", "b=600"], env)
      const tab = yield* Browser.tab(yield* folder)
      yield* Effect.promise(() => tab.open(`${gateway.url}/sluice/#${gateway.token}`))
      yield* waitFor(tab, says("No call has come yet"))
      assert.strictEqual(yield* Effect.promise(() => tab.evaluate("location.hash")), "")

      for (let calls = 0; calls < 8; calls++) yield* ask(gateway, gateway.token)
      yield* ask(gateway, "wrong")
      yield* waitFor(tab, says("a is down; calls go elsewhere"))
      yield* waitFor(tab, `document.title === "1 down · sluice"`)
      yield* waitFor(tab, `document.querySelector("tr.s-open[data-name=a], tr.s-probe[data-name=a]") !== null`)
      yield* waitFor(tab, `document.querySelectorAll("#c-body tbody tr").length === 8`)
      yield* waitFor(tab, `/no key, or a wrong one/.test(document.getElementById("r-body").textContent)`)

      // A column of a plot is five seconds.
      yield* waitFor(tab, `document.querySelectorAll("#times:not([hidden]) canvas").length === 3`)

      for (const colours of ["light", "dark"] as const) {
        for (const width of [360, 390, 640, 900, 1180, 1440, 1600]) {
          yield* Effect.promise(() => tab.colours(colours))
          yield* Effect.promise(() => tab.resize(width, 1_000))
          yield* Effect.sleep("200 millis")
          const over = yield* Effect.promise(() => tab.evaluate("document.documentElement.scrollWidth - innerWidth"))
          assert.isAtMost(Number(over), 0, `${width}`)
          if (pictures !== undefined && (width === 390 || width === 1440)) {
            const picture = yield* Effect.promise(() => tab.screenshot())
            writeFileSync(join(pictures, `${colours}-${width}.png`), picture)
          }
        }
      }

      yield* Effect.promise(() => tab.evaluate(`document.querySelector("#c-body tbody tr:last-child td.at").click()`))
      yield* waitFor(tab, `/the next target is asked/.test(document.getElementById("call").textContent)`)
      if (pictures !== undefined) {
        const picture = yield* Effect.promise(() => tab.screenshot())
        writeFileSync(join(pictures, "call.png"), picture)
      }
      assert.deepStrictEqual(tab.messages, [])

      gateway.command.process.kill("SIGTERM")
      yield* waitFor(tab, says("No word from the gateway"))
      const { code } = yield* Effect.promise(() => gateway.command.ended)
      assert.strictEqual(code, 0)
    }))

  it.live("with keys the page asks for one, and shows a stream while it runs", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({
        turns: [Turn.answer("Good morning to you all", { firstTokenMillis: 0, tokenMillis: 500 })]
      })
      const { args, env } = over(provider)
      const directory = yield* folder
      const admin = yield* addKey(directory, "boss", "--admin")
      const user = yield* addKey(directory, "ann", "--rpm", "60")
      const gateway = yield* start(directory, [...args, "--keys", keysIn(directory)], env)
      const tab = yield* Browser.tab(yield* folder)
      const enter = (key: string) =>
        Effect.promise(() =>
          tab.evaluate(
            `document.querySelector("#unlock input").value = "${key}"; document.querySelector("#unlock button").click()`
          )
        )
      yield* Effect.promise(() => tab.open(`${gateway.url}/sluice/`))
      yield* waitFor(tab, says("This page needs an admin key"))
      yield* waitFor(tab, `document.querySelector("main").hidden`)
      yield* enter(user)
      yield* waitFor(tab, `/does not take this key/.test(document.getElementById("unlock").textContent)`)
      yield* enter(admin)
      yield* waitFor(tab, says("No call has come yet"))
      yield* waitFor(tab, `/ann.*not used yet/s.test(document.getElementById("k-body").textContent)`)

      const call = yield* Effect.forkChild(ask(gateway, user, { stream: true }))
      yield* waitFor(tab, `/streaming\\s*a\\s*chat\\s*ann/.test(document.getElementById("f-body").textContent)`)
      assert.strictEqual((yield* Fiber.join(call)).status, 200)
      yield* waitFor(tab, says("The target takes calls"))
      yield* waitFor(tab, `/requests\\/min\\s*1 \\/ 60/.test(document.getElementById("k-body").textContent)`)
      yield* waitFor(tab, `/Nothing runs/.test(document.getElementById("f-body").textContent)`)
      // Its own requests without a key are none of a client.
      yield* waitFor(tab, `/Nothing was refused/.test(document.getElementById("r-body").textContent)`)
      // The cookie is enough for the page when it is loaded again.
      yield* Effect.promise(() => tab.evaluate("location.reload()"))
      yield* waitFor(tab, says("The target takes calls"))
    }))
})
