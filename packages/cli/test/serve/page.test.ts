import { assert } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Effect, Fiber, Redacted } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Browser from "../support/browser.ts"
import { folder } from "../support/files.ts"
import { addKey, ask, keysIn, logsOf, over, start } from "../support/gateway.ts"
import { livePage, says, Stage, stage, turns } from "../support/stage.ts"
import { until as waitUntil } from "../support/witness.ts"

const { describeWithBrowser, evaluate, picture, until } = Browser

/**
 * Keeps when each event came, and when the verdict first had some words: in tenths of a second in which the page ran. None is counted
 * while the machine stands still.
 */
const record = `
  globalThis.events = []
  globalThis.tenths = 0
  setInterval(() => tenths++, 100)
  globalThis.EventSource = class extends EventSource {
    addEventListener(name, listener) {
      super.addEventListener(name, (event) => {
        if (name === "snapshot" || name === "delta") {
          const { at, targets = [] } = JSON.parse(event.data)
          events.push({ at, tenths, isOpen: targets.some(({ state }) => state === "open" || state === "probe") })
        }
        listener(event)
      })
    }
  }`

const watch = (words: string) => `
  globalThis.events = []
  new MutationObserver(() => {
    if (document.getElementById("says").textContent === ${JSON.stringify(words)}) globalThis.saidAt ??= tenths
  }).observe(document.getElementById("says"), { childList: true, characterData: true, subtree: true })`

/** How long the opening of a circuit took to the words of the page, in tenths of a second. */
const toldAfter = (openedAt: number) =>
  `(() => {
  const told = events.findIndex(({ isOpen }) => isOpen)
  const before = events.slice(0, told).filter(({ at }) => at > ${openedAt})
  // An event comes every quarter of a second.
  return before.length * 2.5 + saidAt - events[told].tenths
})()`

/** The address of the link that has the focus, or else the ID of the element. */
const focused = `(document.activeElement.getAttribute("href") ?? document.activeElement.id)`

const rowOf = (target: string, ...states: ReadonlyArray<string>) =>
  `${
    JSON.stringify(states)
  }.some((state) => document.querySelector("tr.s-" + state + "[data-name=${target}]") !== null)`

describeWithBrowser("the live page", stage, (it) => {
  it.effect("an outage is told within a second of the opening, and so is its end", () =>
    Effect.gen(function*() {
      const { a, calls, gateway, outage } = yield* Stage
      const tab = yield* livePage(gateway, undefined, record)
      yield* until(tab, says("No call has come yet"))
      // The token is in no history.
      assert.strictEqual(yield* evaluate(tab, "location.hash"), "")
      yield* calls(3)
      yield* until(tab, says("All 2 targets take calls"))
      assert.strictEqual(yield* evaluate(tab, "document.title"), "sluice")

      let stderr = ""
      gateway.command.process.stderr.on("data", (data: Buffer) => stderr += data.toString())
      yield* evaluate(tab, watch("a is down; calls go elsewhere"))
      yield* outage
      yield* until(tab, "globalThis.saidAt !== undefined")
      yield* waitUntil("the log has the opening", Effect.sync(() => /"to":"Open".*\n/.test(stderr)))
      const logs = logsOf(stderr.slice(0, stderr.lastIndexOf("\n")))
      const opened = logs.find(({ event, to }) => event === "circuit" && to === "Open")
      assert.isAtMost(Number(yield* evaluate(tab, toldAfter(Date.parse(String(opened?.["time"]))))), 10)
      yield* until(tab, `document.title === "1 down · sluice"`)
      yield* until(tab, rowOf("a", "open", "probe"))
      yield* until(tab, `document.querySelector("tr[data-name=a] .strip .open") !== null`)
      yield* until(tab, `/takes no calls for|asked again/.test(document.querySelector("tr[data-name=a]").textContent)`)
      yield* until(tab, `/try failed\\s*HTTP 503/.test(document.getElementById("r-body").innerText)`)

      yield* a.up
      const traffic = yield* Effect.forkChild(Effect.forever(Effect.delay(calls(1), "200 millis")))
      yield* until(tab, says("All 2 targets take calls"))
      yield* Fiber.interrupt(traffic)
      yield* until(tab, rowOf("a", "closed"))
      assert.strictEqual(yield* evaluate(tab, "document.title"), "sluice")
      // What happened stays in the strip.
      yield* until(tab, `document.querySelector("tr[data-name=a] .strip .open") !== null`)
      assert.deepStrictEqual(tab.messages, [])
    }))

  it.effect("a call is opened and closed with Tab, Enter and Escape alone, and the focus comes back", () =>
    Effect.gen(function*() {
      const { calls, gateway } = yield* Stage
      const tab = yield* livePage(gateway)
      const press = (key: string) => Effect.promise(() => tab.page.keyboard.press(key))
      yield* calls(12)
      yield* until(tab, `document.querySelectorAll("#c-body tbody tr").length === 12`)
      const isCall = (focus: unknown) => String(focus).startsWith("#call=")
      const first = yield* Effect.gen(function*() {
        for (let stops = 0; stops < 40; stops++) {
          yield* press("Tab")
          const focus = yield* evaluate(tab, focused)
          if (isCall(focus)) return focus
        }
        return assert.fail("no call in 40 stops of Tab")
      })
      yield* press("Enter")
      yield* until(tab, `document.querySelector("#call[open] .steps li") !== null`)
      assert.match(
        String(yield* evaluate(tab, `document.getElementById("call-title").textContent`)),
        /^Answered by [ab]/
      )
      // As on a page of another machine without HTTPS.
      yield* evaluate(tab, `Object.defineProperty(navigator, "clipboard", { value: undefined })`)
      yield* evaluate(tab, `document.querySelector("#call footer button").click()`)
      yield* until(tab, `document.querySelector("#call footer button").textContent.startsWith("Not allowed")`)
      // More than the page keeps: the row would have gone.
      yield* calls(210)
      yield* until(tab, `document.getElementById("head").innerText.includes("in flight")`)
      yield* press("Escape")
      yield* until(tab, `!document.getElementById("call").open`)
      yield* until(tab, `${focused} === ${JSON.stringify(first)}`)
      // The list stands still while it has the focus, and goes on after it.
      yield* until(tab, `/does not move/.test(document.getElementById("c-body").textContent)`)
      yield* evaluate(tab, "document.activeElement.blur()")
      yield* until(tab, `document.querySelector('#c-body [href="${String(first)}"]') === null`)
      // A link to a call that has no row.
      yield* evaluate(tab, `location.hash = ${JSON.stringify(first)}`)
      yield* until(tab, `document.querySelector("#call[open] .steps li") !== null`)
      yield* press("Escape")
      yield* until(tab, `${focused} === "calls"`)
      assert.deepStrictEqual(tab.messages, [])
    }))

  it.effect("a reader hears the verdict, the numbers and the targets in this order, and the verdict once", () =>
    Effect.gen(function*() {
      const { calls, gateway } = yield* Stage
      const tab = yield* livePage(gateway)
      yield* calls(1)
      yield* until(tab, says("All 2 targets take calls"))
      const tree = yield* Effect.promise(() => tab.page.locator("body").ariaSnapshot())
      const places = [
        "status: All 2 targets take calls",
        "answered, last minute",
        "in flight",
        `heading "Targets"`,
        `table "Targets, with their circuits`,
        "rowheader \"a ",
        `heading "Calls that ended"`
      ].map((part) => tree.indexOf(part))
      assert.notInclude(places, -1, tree)
      assert.deepStrictEqual(places, places.toSorted((a, b) => a - b), tree)
      // The clock runs, and the live region is left alone unless it has other words.
      yield* evaluate(
        tab,
        `globalThis.repeats = 0
        let last = document.getElementById("says").textContent
        new MutationObserver(() => {
          const { textContent } = document.getElementById("says")
          if (textContent === last) repeats++
          last = textContent
        }).observe(document.getElementById("says"), { childList: true, characterData: true, subtree: true })`
      )
      const clock = yield* evaluate(tab, `document.getElementById("meta").textContent`)
      yield* until(tab, `document.getElementById("meta").textContent !== ${JSON.stringify(clock)}`)
      yield* calls(1)
      assert.strictEqual(yield* evaluate(tab, "globalThis.repeats"), 0)
    }))

  it.effect("with keys the page asks for one, and shows a stream while it runs", () =>
    Effect.gen(function*() {
      const { args, env } = over(yield* LoopbackProvider.make({ turns }))
      const directory = yield* folder
      const admin = yield* addKey(directory, "boss", "--admin")
      const user = yield* addKey(directory, "ann", "--rpm", "60")
      const gateway = yield* start(directory, [...args, "--keys", keysIn(directory)], env)
      const tab = yield* (yield* Browser.Browser).open(`${gateway.url}/sluice/`)
      const enter = (key: string) =>
        Effect.promise(async () => {
          await tab.page.fill("#unlock input", key)
          await tab.page.keyboard.press("Enter")
        })
      yield* until(tab, says("This page needs an admin key"))
      yield* until(tab, `document.querySelector("main").hidden`)
      yield* enter(user)
      yield* until(tab, `/does not take this key/.test(document.getElementById("unlock").textContent)`)
      yield* enter(admin)
      yield* until(tab, says("No call has come yet"))
      yield* until(tab, `/ann.*not used yet/s.test(document.getElementById("k-body").textContent)`)

      const slow = { model: "m", stream: true, messages: [{ role: "user", content: "slow" }] }
      const call = yield* Effect.forkChild(Effect.promise(async (signal) => {
        const headers = { authorization: `Bearer ${user}`, "content-type": "application/json" }
        const init = { method: "POST", headers, body: JSON.stringify(slow), signal }
        await (await fetch(`${gateway.url}/v1/chat/completions`, init)).text()
      }))
      yield* until(tab, `/streaming\\s*a\\s*chat\\s*ann/.test(document.getElementById("f-body").textContent)`)
      yield* Fiber.interrupt(call)
      assert.strictEqual((yield* ask(gateway, user, { stream: true })).status, 200)
      yield* until(tab, says("The target takes calls"))
      yield* until(tab, `/requests\\/min\\s*2 \\/ 60/.test(document.getElementById("k-body").textContent)`)
      yield* until(tab, `/Nothing runs/.test(document.getElementById("f-body").textContent)`)
      // Its own requests without a key are none of a client.
      yield* until(tab, `/Nothing was refused/.test(document.getElementById("r-body").textContent)`)
      // The cookie is enough for the page when it is loaded again.
      yield* evaluate(tab, "location.reload()")
      yield* until(tab, says("The target takes calls"))
    }))

  it.effect("no prompt, answer, key or text of a provider is in the page, in the log of a call or in a copy of it", () =>
    Effect.gen(function*() {
      const canary = "canary-52c9e07b"
      // It runs nothing even where the page shows it: in the names of models.
      const markup = "<img/src=x/onerror=globalThis.ran=1>"
      const provider = yield* LoopbackProvider.make({
        apiKey: Redacted.make(`sk-${canary}`),
        turns: [
          Turn.status(400, { body: canary }),
          Turn.cut({ content: `${canary} ${canary} ${canary}`, afterTokens: 2 }),
          Turn.answer(canary),
          ...Turn.repeat(Turn.status(503, { body: canary }), 20)
        ]
      })
      const directory = yield* folder
      const file = {
        serve: {
          target: [{ name: "a", url: provider.url, model: markup, key: "${CANARY_KEY}" }],
          models: { [markup]: ["a"], [canary]: ["a"] }
        }
      }
      writeFileSync(join(directory, "sluice.json"), JSON.stringify(file))
      const gateway = yield* start(directory, [], { CANARY_KEY: `sk-${canary}` })
      const tab = yield* livePage(gateway, { permissions: ["clipboard-read", "clipboard-write"] })
      const messages = [{ role: "user", content: canary }]
      const bodies: Array<string> = []
      tab.page.on("response", (response) => {
        if (/\/calls\//.test(response.url())) void response.text().then((text) => bodies.push(text))
      })
      for (const stream of [false, true, false, false, false, false]) {
        yield* ask(gateway, gateway.token, { model: markup, messages, stream })
      }
      yield* ask(gateway, canary, { messages })
      yield* until(tab, says("No target takes calls"))
      yield* until(tab, `document.querySelector("tr[data-name=a] th").textContent.includes("<img/")`)
      yield* until(tab, `document.querySelectorAll("#c-body tbody tr").length >= 5`)
      const html = String(yield* evaluate(tab, "document.documentElement.outerHTML"))
      assert.notInclude(html, canary)
      assert.notInclude(html, gateway.token)
      const links = yield* evaluate(tab, `[...document.querySelectorAll("#c-body a")].map((link) => link.hash)`)
      assert.isArray(links)
      for (const link of Array.isArray(links) ? links : []) {
        yield* evaluate(tab, `location.hash = ${JSON.stringify(link)}`)
        yield* until(tab, `document.querySelector("#call[open] footer") !== null`)
        yield* evaluate(tab, `document.querySelector("#call footer button").click()`)
        yield* until(tab, `document.querySelector("#call footer button").textContent === "Copied"`)
        const copied = String(yield* evaluate(tab, "navigator.clipboard.readText()"))
        assert.match(copied, /^ {2}call call_/m)
        const dialog = String(yield* evaluate(tab, `document.getElementById("call").outerHTML`))
        for (const text of [copied, dialog]) {
          assert.notInclude(text, canary)
          assert.notInclude(text, gateway.token)
        }
        yield* evaluate(tab, `document.getElementById("call").close()`)
        yield* until(tab, `location.hash === ""`)
      }
      assert.lengthOf(bodies, Array.isArray(links) ? links.length : 0)
      for (const body of bodies) assert.notInclude(body, canary)
      assert.isTrue(yield* evaluate(tab, `document.querySelector("img") === null && globalThis.ran === undefined`))
      assert.deepStrictEqual(tab.messages, [])
    }))

  it.effect("the page needs no colours, no motion, no wide window and no screen", () =>
    Effect.gen(function*() {
      const { calls, gateway, outage } = yield* Stage
      const tab = yield* livePage(gateway, { colorScheme: "dark" })
      const style = (selector: string, property: string) =>
        evaluate(
          tab,
          `getComputedStyle(document.querySelector(${JSON.stringify(selector)}))[${JSON.stringify(property)}]`
        )
      const emulate = (media: Parameters<typeof tab.page.emulateMedia>[0]) =>
        Effect.promise(() => tab.page.emulateMedia(media))
      yield* calls(1)
      yield* outage
      yield* until(tab, says("a is down; calls go elsewhere"))

      yield* emulate({ forcedColors: "active" })
      yield* picture(tab, "forced-colours")
      assert.notStrictEqual(
        yield* style("[aria-pressed=true]", "backgroundColor"),
        yield* style("[aria-pressed=false]", "backgroundColor")
      )
      // What a mark is drawn with is not its ground.
      for (const [selector, property] of [[".strip .open", "fill"], ["tr[data-name=a] .icon", "color"]] as const) {
        assert.notStrictEqual(yield* style(selector, property), yield* style("body", "backgroundColor"), selector)
      }
      yield* emulate({ forcedColors: "none" })

      assert.strictEqual(yield* evaluate(tab, "document.getAnimations().length"), 0)
      for (const reducedMotion of ["reduce", "no-preference"] as const) {
        yield* emulate({ reducedMotion })
        const moving = `[...document.querySelectorAll("*")].filter((one) => {
          const { animationName, transitionDuration } = getComputedStyle(one)
          return animationName !== "none" || transitionDuration !== "0s"
        }).length`
        assert.strictEqual(yield* evaluate(tab, moving), 0)
      }

      // 1440 and 640 pixels at 200 %, and 1280 at 400 %.
      for (const width of [720, 320]) yield* Browser.fits(tab, width)
      yield* Effect.promise(() => tab.page.setViewportSize({ width: 1440, height: 1_000 }))

      // Paper is white, also where the screen is dark.
      yield* emulate({ media: "print" })
      yield* picture(tab, "print")
      assert.strictEqual(yield* style("body", "backgroundColor"), "rgb(255, 255, 255)")
      assert.strictEqual(yield* style("body", "color"), "rgb(28, 36, 48)")
      assert.strictEqual(yield* style("#verdict", "position"), "static")
      for (const hidden of ["nav", "#c-filter"]) assert.strictEqual(yield* style(hidden, "display"), "none", hidden)
      const pages = yield* Effect.promise(() => tab.page.pdf({ format: "A4" }))
      assert.isAbove(pages.length, 10_000)
      assert.deepStrictEqual(tab.messages, [])
    }))
})
