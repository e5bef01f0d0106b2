import { assert } from "@effect/vitest"
import { Effect } from "effect"
import type { CDPSession } from "playwright-core"
import { describeWithBrowser, type Tab, until } from "../support/browser.ts"
import { livePage, Stage, stage } from "../support/stage.ts"

/** Minutes of calls. Without them a burst of seconds. */
const minutes = Number(process.env["SLUICE_MINUTES"] ?? 0)
const callsPerSecond = 50

interface Sample {
  readonly calls: number
  readonly nodes: number
  readonly heapMB: number
  /** Of the time since the sample before, in percent. */
  readonly mainThread: number
  readonly script: number
}

const open = ({ page }: Tab) =>
  Effect.promise(async () => {
    const session = await page.context().newCDPSession(page)
    await session.send("Performance.enable")
    return session
  })

const metrics = async (session: CDPSession) => {
  // What is collected anyway is no leak.
  await session.send("HeapProfiler.collectGarbage")
  const { metrics } = await session.send("Performance.getMetrics")
  return Object.fromEntries(metrics.map(({ name, value }) => [name, value]))
}

describeWithBrowser("the size of the live page", stage, (it) => {
  it.effect("its nodes and its heap stay level while calls come and go", () =>
    Effect.gen(function*() {
      const { gateway } = yield* Stage
      const tab = yield* livePage(gateway)
      const session = yield* open(tab)
      let calls = 0
      const call = async () => {
        const response = await fetch(`${gateway.url}/v1/chat/completions`, {
          method: "POST",
          headers: { authorization: `Bearer ${gateway.token}`, "content-type": "application/json" },
          body: JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "Hello" }] })
        })
        await response.text()
        calls++
      }
      /** Sends calls for so long, and waits until the page shows that none runs. */
      const load = (seconds: number) =>
        Effect.gen(function*() {
          for (let tenths = 0; tenths < seconds * 10; tenths++) {
            const some = Array.from({ length: callsPerSecond / 10 }, call)
            yield* Effect.all([Effect.promise(() => Promise.all(some)), Effect.sleep("100 millis")], {
              concurrency: "unbounded",
              discard: true
            })
          }
          yield* until(
            tab,
            `document.getElementById("head").textContent.includes("${calls.toLocaleString("en-US")} since")`
          )
          yield* until(tab, `/Nothing runs/.test(document.getElementById("f-body").textContent)`)
        })
      let before: { readonly [name: string]: number } = yield* Effect.promise(() => metrics(session))
      const sample = Effect.gen(function*() {
        const { Nodes = 0, JSHeapUsedSize = 0, ...now } = yield* Effect.promise(() => metrics(session))
        const share = (name: string): number => {
          const passed = (now["Timestamp"] ?? 0) - (before["Timestamp"] ?? 0)
          return Math.round(((now[name] ?? 0) - (before[name] ?? 0)) / passed * 1_000) / 10
        }
        const taken: Sample = {
          calls,
          nodes: Nodes,
          heapMB: Math.round(JSHeapUsedSize / 1e4) / 100,
          mainThread: share("TaskDuration"),
          script: share("ScriptDuration")
        }
        before = now
        return taken
      })
      // Until all is drawn: the page keeps 200 calls, and has plots after two columns of five seconds.
      yield* load(minutes > 0 ? 60 : 5)
      yield* until(tab, `document.querySelectorAll("#times:not([hidden]) canvas").length === 3`)
      const samples = [yield* sample]
      for (let step = 0; step < Math.max(1, minutes - 1); step++) {
        yield* load(minutes > 0 ? 60 : 6)
        samples.push(yield* sample)
      }
      if (minutes > 0) process.stderr.write(`${samples.map((one) => JSON.stringify(one)).join("\n")}\n`)
      const [first] = samples
      const last = samples.at(-1)
      if (first === undefined || last === undefined) return assert.fail("no sample")
      // A comment left behind for each row that goes would be 100 in the burst.
      assert.isAtMost(last.nodes, first.nodes + 40, JSON.stringify(samples))
      assert.isAtMost(last.heapMB, first.heapMB * 1.1 + 1, JSON.stringify(samples))
      assert.deepStrictEqual(tab.messages, [])
    }))
})
