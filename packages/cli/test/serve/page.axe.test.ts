import { assert } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as Turn from "@sluice/ai/testing/Turn"
import * as Browser from "../support/browser.ts"
import { folder, lines } from "../support/files.ts"
import { ask, start } from "../support/gateway.ts"
import { run, setUp } from "../support/provider.ts"
import { livePage, says, Stage, stage } from "../support/stage.ts"

const { describeWithBrowser, evaluate, fits, isAccessible, picture, until } = Browser

const widths = [360, 390, 640, 900, 1180, 1440, 1600]
const axeWidths = [390, 900, 1440]

/** Nothing is wider than the window at any width, and axe finds nothing at some, in light and dark. */
const isFine = (tab: Browser.Tab, what: string, some = axeWidths) =>
  Effect.gen(function*() {
    for (const width of widths) yield* fits(tab, width)
    for (const width of some) {
      yield* fits(tab, width)
      for (const colorScheme of ["light", "dark"] as const) {
        yield* Effect.promise(() => tab.page.emulateMedia({ colorScheme }))
        // Only colours differ in the dark.
        yield* isAccessible(tab, `${what}, ${width}, ${colorScheme}`, colorScheme === "dark" ? ["color-contrast"] : [])
        yield* picture(tab, `${what}-${width}-${colorScheme}`)
      }
    }
    assert.deepStrictEqual(tab.messages, [])
  })

describeWithBrowser("pages at every width, in light and dark", stage, (it) => {
  it.effect("a gateway without calls, a calm one and an outage are accessible, and so are a change and a call", () =>
    Effect.gen(function*() {
      const { calls, gateway, outage } = yield* Stage
      const tab = yield* livePage(gateway)
      yield* until(tab, says("No call has come yet"))
      yield* isFine(tab, "first")

      yield* calls(12)
      // They run until the end: five of them stream.
      yield* Effect.forkScoped(calls(5, "slow"))
      yield* until(tab, says("All 2 targets take calls"))
      yield* until(tab, `document.querySelectorAll("#times:not([hidden]) canvas").length === 3`)
      yield* until(tab, `document.querySelectorAll("#f-body tbody tr").length === 5`)
      yield* isFine(tab, "calm")

      yield* outage
      yield* ask(gateway, "wrong")
      yield* until(tab, says("a is down; calls go elsewhere"))
      yield* until(tab, `/no key, or a wrong one/.test(document.getElementById("r-body").textContent)`)
      yield* isFine(tab, "outage")

      yield* evaluate(tab, `document.querySelector("tr[data-name=a] button").click()`)
      yield* until(tab, `document.getElementById("change").open`)
      yield* isFine(tab, "change")
      yield* Effect.promise(() => tab.page.keyboard.press("Escape"))

      yield* evaluate(tab, `[...document.querySelectorAll("#c-body a")].at(3).click()`)
      yield* until(tab, `document.querySelector("#call[open] .steps li") !== null`)
      yield* isFine(tab, "call")
    }))

  it.effect("200 targets have low rows, trouble first, a search, and all of them on demand", () =>
    Effect.gen(function*() {
      const good = yield* LoopbackProvider.make({ apiKey: false })
      const bad = yield* LoopbackProvider.make({ apiKey: false })
      yield* bad.down
      const directory = yield* folder
      const target = Array.from({ length: 200 }, (_, index) => ({
        name: `target-${index}`,
        url: (index === 150 ? bad : good).url,
        model: "m"
      }))
      const models = {
        good: target.map(({ name }) => name).filter((name) => name !== "target-150"),
        bad: ["target-150"]
      }
      writeFileSync(join(directory, "sluice.json"), JSON.stringify({ serve: { target, models, maxAttempts: 1 } }))
      const gateway = yield* start(directory, [])
      const tab = yield* livePage(gateway)
      const rows = `document.querySelectorAll("#t-body tbody tr").length`
      for (let calls = 0; calls < 5; calls++) yield* ask(gateway, gateway.token, { model: "bad" })
      yield* ask(gateway, gateway.token, { model: "good" })
      yield* until(tab, says("Calls for bad are refused"))
      yield* until(tab, `document.querySelector("#t-body tbody tr").dataset.name === "target-150"`)
      yield* until(tab, `${rows} === 21`)
      yield* isFine(tab, "200", [1440])
      for (const width of [1440, 900]) {
        yield* fits(tab, width)
        assert.isAtMost(Number(yield* evaluate(tab, `document.querySelector("tr.flat").offsetHeight`)), 44, `${width}`)
      }
      yield* Effect.promise(() => tab.page.fill("#t-body input", "target-19"))
      yield* until(tab, `${rows} === 11`)
      yield* Effect.promise(() => tab.page.fill("#t-body input", ""))
      yield* evaluate(tab, `document.querySelector("#t-body .more").click()`)
      yield* until(tab, `${rows} === 200`)
      yield* fits(tab, 390)
      assert.deepStrictEqual(tab.messages, [])
    }))

  it.effect("the report of a run with failures is accessible and fits, and prints on white", () =>
    Effect.gen(function*() {
      const down = yield* LoopbackProvider.make({ apiKey: false })
      yield* down.down
      const turns = ({ n }: Turn.Request) => n % 5 === 0 ? Turn.status(429, { retryAfter: 0 }) : undefined
      const { directory, env, prompts, provider, results } = yield* setUp(lines(40), { turns })
      const report = join(directory, "report.html")
      const targets = ["--target", `down=${down.url}#m`, "--target", `up=${provider.url}#m`]
      const args = [prompts, "-o", results, "--report", report, "--concurrency", "4", ...targets]
      const { code, stderr } = yield* run(args, { ...env, SLUICE_KEY_UP: env["OPENAI_API_KEY"] ?? "" })
      // A prompt may have failed.
      assert.isBelow(Number(code), 2, stderr)
      const tab = yield* (yield* Browser.Browser).open(pathToFileURL(report).href)
      assert.isTrue(yield* evaluate(tab, `document.querySelector(".strip .open") !== null`))
      yield* isFine(tab, "report", [390, 1440])
      yield* Effect.promise(() => tab.page.emulateMedia({ media: "print", colorScheme: "dark" }))
      assert.strictEqual(yield* evaluate(tab, "getComputedStyle(document.body).color"), "rgb(28, 36, 48)")
    }))
})
