import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { batchOf } from "../support/batches.ts"
import * as Browser from "../support/browser.ts"
import { folder } from "../support/files.ts"
import { over, start } from "../support/gateway.ts"
import { livePage, Stage, stage } from "../support/stage.ts"

const { describeWithBrowser, evaluate, fits, isAccessible, picture, until } = Browser

const turns = ({ prompt }: { readonly prompt: string }): Turn.Turn | undefined => {
  if (prompt === "hang") return Turn.hang()
  return prompt === "wrong" ? Turn.status(400) : undefined
}

const many = (count: number, prompt: string) => Array.from({ length: count }, () => prompt)

const rowOf = (id: string) => `document.querySelector('tr[data-id="${id}"]').innerText`

const focused = `(document.activeElement.getAttribute("aria-label") ?? document.activeElement.id)`

describeWithBrowser("batches on the live page", stage, (it) => {
  it.effect("a gateway without --batches has no section for them", () =>
    Effect.gen(function*() {
      const { gateway } = yield* Stage
      const tab = yield* livePage(gateway)
      yield* until(tab, `document.querySelector("#k-body table") !== null`)
      assert.isFalse(yield* evaluate(tab, `document.getElementById("batches").checkVisibility()`))
      assert.isFalse(yield* evaluate(tab, `document.getElementById("n-batches").checkVisibility()`))
    }))

  it.effect("batches have their progress, and one is cancelled with the keyboard after a question", () =>
    Effect.gen(function*() {
      const { args, env } = over(yield* LoopbackProvider.make({ turns }))
      const flags = ["--batches", "sqlite:batches.sqlite", "--concurrency", "10", "--price", "100,100"]
      const gateway = yield* start(yield* folder, [...args, ...flags], env)
      const tab = yield* livePage(gateway)
      yield* until(tab, `/^No batch runs/.test(document.getElementById("b-body").innerText)`)
      yield* picture(tab, "batches-none")

      const done = yield* batchOf(gateway, [...many(11, "Hello"), "wrong"])
      yield* until(
        tab,
        `/completed at \\d\\d:\\d\\d, token\\s+12 of 12, 1 failed\\s+\\$0\\.\\d\\d/.test(${rowOf(done)})`
      )
      assert.isTrue(yield* evaluate(tab, `document.querySelector('tr[data-id="${done}"] button') === null`))

      const running = yield* batchOf(gateway, [...many(5, "Hello"), ...many(20, "hang")])
      const waiting = yield* batchOf(gateway, many(1_000, "hang"))
      yield* until(tab, `/in progress, token\\s+5 of 25/.test(${rowOf(running)})`)
      yield* until(tab, `/0 of 1,000/.test(${rowOf(waiting)})`)
      // The newest live one is the first, and those that have ended are the last.
      assert.deepStrictEqual(
        yield* evaluate(tab, `[...document.querySelectorAll("#b-body tr[data-id]")].map((row) => row.dataset.id)`),
        [waiting, running, done]
      )
      for (const width of [360, 390, 640, 900, 1_180, 1_440, 1_600]) yield* fits(tab, width)
      for (const width of [390, 1_440]) {
        yield* fits(tab, width)
        for (const colorScheme of ["light", "dark"] as const) {
          yield* Effect.promise(() => tab.page.emulateMedia({ colorScheme }))
          yield* isAccessible(tab, `batches, ${width}, ${colorScheme}`)
          yield* evaluate(tab, `document.getElementById("batches").scrollIntoView()`)
          yield* picture(tab, `batches-${width}-${colorScheme}`)
        }
      }

      const sent: Array<string> = []
      tab.page.on("request", (request) => request.method() === "POST" && sent.push(new URL(request.url()).pathname))
      const press = (key: string) => Effect.promise(() => tab.page.keyboard.press(key))
      const button = `Cancel ${running}`
      const ask = Effect.gen(function*() {
        yield* evaluate(tab, `document.querySelector('tr[data-id="${running}"] button').focus()`)
        yield* press("Enter")
        yield* until(tab, `document.getElementById("cancel").open`)
      })
      yield* ask
      yield* isAccessible(tab, "the question")
      yield* picture(tab, "batches-cancel")
      yield* press("Escape")
      yield* until(tab, `${focused} === ${JSON.stringify(button)}`)
      assert.deepStrictEqual(sent, [])
      yield* ask
      yield* Effect.promise(() => tab.page.click("#cancel .do"))
      yield* until(tab, `!document.getElementById("cancel").open`)
      assert.deepStrictEqual(sent, [`/sluice/batches/${running}/cancel`])
      // Its calls hang, so it goes on until they have timed out.
      yield* until(tab, `/cancelling, token/.test(${rowOf(running)})`)
      yield* until(
        tab,
        `document.getElementById("a-body").innerText.includes(${JSON.stringify(`${running} cancelled by token`)})`
      )
      yield* until(tab, `document.querySelector('tr[data-id="${running}"] button') === null`)
      assert.deepStrictEqual(tab.messages, [])
    }))
})
