import { assert } from "@effect/vitest"
import { Effect } from "effect"
import * as Browser from "../support/browser.ts"
import { livePage, says, Stage, stage } from "../support/stage.ts"
import { until as waitUntil } from "../support/witness.ts"

const { describeWithBrowser, evaluate, fits, isAccessible, picture, until } = Browser

const focused = `(document.activeElement.getAttribute("aria-label") ?? document.activeElement.id)`

const textOf = (selector: string) => `document.querySelector(${JSON.stringify(selector)}).innerText`

describeWithBrowser("changes by hand on the live page", stage, (it) => {
  it.effect("a target is stopped with the keyboard alone: nothing without a choice and a reason, and others see why", () =>
    Effect.gen(function*() {
      const { calls, gateway } = yield* Stage
      const tab = yield* livePage(gateway)
      const other = yield* livePage(gateway)
      const press = (...keys: ReadonlyArray<string>) =>
        Effect.forEach(keys, (key) => Effect.promise(() => tab.page.keyboard.press(key)))
      const type = (text: string) => Effect.promise(() => tab.page.keyboard.type(text))
      const sent: Array<string> = []
      tab.page.on("request", (request) => request.method() === "POST" && sent.push(new URL(request.url()).pathname))
      yield* calls(1)
      yield* until(tab, says("All 2 targets take calls"))
      // The list is drawn once a second, and stands still from the dialog on.
      yield* until(tab, `document.querySelectorAll("#c-body tbody tr").length === 1`)
      yield* until(tab, `${textOf("#a-body")} === "Nothing was done by hand."`)

      yield* evaluate(tab, `document.querySelector("tr[data-name=a] .c-act button").focus()`)
      yield* press("Enter")
      yield* until(tab, `document.getElementById("change").open`)
      assert.deepStrictEqual(
        yield* evaluate(tab, `[...document.querySelectorAll("#change b")].map((one) => one.textContent)`),
        ["Stop calls to a", "Send calls to a whatever happens", "Drain a", "Let the circuit of a decide"]
      )
      assert.strictEqual(yield* evaluate(tab, `document.querySelector("#change :checked[type=radio]")`), null)
      assert.strictEqual(yield* evaluate(tab, textOf("#change .do")), "Choose what to do")
      for (const width of [360, 900]) yield* fits(tab, width)
      yield* picture(tab, "change-900")
      yield* Effect.promise(() => tab.page.setViewportSize({ width: 1_440, height: 1_000 }))

      // The list of calls stands still meanwhile.
      yield* calls(2)
      yield* until(other, `document.querySelectorAll("#c-body tbody tr").length === 3`)
      assert.strictEqual(yield* evaluate(tab, `document.querySelectorAll("#c-body tbody tr").length`), 1)

      yield* evaluate(tab, `document.querySelector("#reason").focus()`)
      yield* press("Enter")
      yield* until(tab, `${textOf("#change-error")} === "Choose what to do."`)
      // The focus is on the first choice.
      yield* press("Space")
      yield* until(tab, `${textOf("#change .do")} === "Stop calls to a"`)
      assert.strictEqual(yield* evaluate(tab, textOf("#change-error")), "")
      yield* press("Enter")
      yield* until(tab, `/^Enter a reason/.test(${textOf("#change-error")})`)
      assert.strictEqual(yield* evaluate(tab, focused), "reason")
      assert.deepStrictEqual(
        yield* evaluate(
          tab,
          `[document.activeElement.getAttribute("aria-invalid"), document.getElementById("change-error").role]`
        ),
        ["true", "alert"]
      )
      assert.deepStrictEqual(sent, [])
      yield* isAccessible(tab, "the dialog with an error")
      yield* picture(tab, "change-error")

      const reason = `<b>region</b> moves, INC-2231`
      yield* type(reason)
      yield* press("Enter")
      yield* until(tab, `!document.getElementById("change").open`)
      assert.deepStrictEqual(sent, ["/sluice/targets/a/open"])
      yield* until(tab, `${focused} === "Change a"`)
      for (const one of [tab, other]) {
        yield* until(one, says("a is held by hand"))
        const row = textOf("tr.s-forced[data-name=a]")
        yield* until(one, `/held open, no calls, until .*\\d\\d:\\d\\d: <b>region<.b> moves, INC-2231/.test(${row})`)
        yield* until(one, `/a held open for 1h 00m by token: <b>region<.b> moves, INC-2231/.test(${textOf("#a-body")})`)
      }
      yield* picture(tab, "held")

      // Only calls to the other one.
      yield* calls(1)
      yield* until(tab, `document.querySelector("#c-body tbody tr").innerText.includes("b")`)
      yield* press("Enter")
      yield* until(tab, `document.getElementById("change").open`)
      yield* press("Escape")
      yield* until(tab, `${focused} === "Change a"`)
      assert.lengthOf(sent, 1)
      assert.deepStrictEqual(tab.messages, [])
    }))

  it.effect("a target drains until its last call has ended, and is left to its circuit again", () =>
    Effect.gen(function*() {
      const { calls, gateway } = yield* Stage
      const tab = yield* livePage(gateway)
      const change = (choice: string, reason: string, end?: string) =>
        Effect.promise(async () => {
          await tab.page.click("tr[data-name=b] .c-act button")
          await tab.page.getByLabel(choice).check()
          await tab.page.getByLabel("Reason").fill(reason)
          if (end !== undefined) await tab.page.getByLabel("For how long").selectOption(end)
          await tab.page.click("#change .do")
        })
      // `a` is stopped, so the call goes to `b`.
      yield* Effect.promise(() =>
        fetch(`${gateway.url}/sluice/targets/a/open`, {
          method: "POST",
          headers: { authorization: `Bearer ${gateway.token}`, "content-type": "application/json" },
          // The longest reason, without a place to break the line.
          body: JSON.stringify({ reason: "W".repeat(200) })
        })
      )
      yield* Effect.forkScoped(calls(1, "slow"))
      yield* until(tab, `/streaming\\s*b/.test(${textOf("#f-body")})`)
      yield* change("Drain b", "the machine is replaced", "no end, until it is changed again")
      const row = textOf("tr.s-drain[data-name=b]")
      yield* until(tab, `/drains, 1 call runs there, without an end: the machine is replaced/.test(${row})`)
      yield* until(tab, says("No target takes calls"))
      for (const width of [360, 390, 900, 1_440]) {
        yield* fits(tab, width)
        yield* picture(tab, `drains-${width}`)
      }
      yield* isAccessible(tab, "a target that drains")
      yield* change("Let the circuit of b decide", "it is back")
      yield* until(tab, `document.querySelector("tr.s-closed[data-name=b]") !== null`)
      yield* until(tab, `/b left to its circuit by token: it is back/.test(${textOf("#a-body")})`)
      assert.deepStrictEqual(tab.messages, [])
    }))

  it.effect("a hidden page has a small stream and a title that changes, and has everything once it is shown", () =>
    Effect.gen(function*() {
      const { calls, gateway, outage } = yield* Stage
      const tab = yield* livePage(gateway)
      yield* calls(1)
      const asked: Array<string> = []
      tab.page.on("request", (request) => /events/.test(request.url()) && asked.push(new URL(request.url()).search))
      const hide = (isHidden: boolean) =>
        evaluate(
          tab,
          `Object.defineProperty(document, "hidden", { configurable: true, get: () => ${isHidden} });
          document.dispatchEvent(new Event("visibilitychange"))`
        )
      yield* hide(true)
      yield* waitUntil("the stream is small", Effect.sync(() => asked.includes("?detail=low")))
      yield* evaluate(
        tab,
        `document.getElementById("t-body").dataset.seen = document.getElementById("t-body").innerText`
      )
      yield* Effect.promise(() =>
        fetch(`${gateway.url}/sluice/targets/a/reset`, {
          method: "POST",
          headers: { authorization: `Bearer ${gateway.token}`, "content-type": "application/json" },
          body: JSON.stringify({ reason: "calls again" })
        })
      )
      yield* outage
      yield* until(tab, `document.title === "1 down · sluice"`)
      assert.isTrue(
        yield* evaluate(
          tab,
          `document.getElementById("t-body").dataset.seen === document.getElementById("t-body").innerText`
        )
      )
      yield* hide(false)
      yield* until(tab, `document.querySelector("tr.s-open[data-name=a], tr.s-probe[data-name=a]") !== null`)
      // A stream that is silent on a busy machine is opened again as it was.
      const changes = asked.filter((search, index) => search !== asked[index - 1])
      assert.deepStrictEqual(changes.slice(-2), ["?detail=low", ""])
      assert.deepStrictEqual(tab.messages, [])
    }))
})
