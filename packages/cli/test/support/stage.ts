import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Context, Effect, Layer } from "effect"
import type { BrowserContextOptions } from "playwright-core"
import * as Browser from "./browser.ts"
import { folder } from "./files.ts"
import type { Gateway } from "./gateway.ts"
import { ask, over, start } from "./gateway.ts"

/** A gateway over two providers. The first, `a`, can break. */
export class Stage extends Context.Service<Stage, {
  readonly gateway: Gateway
  readonly a: LoopbackProvider.LoopbackProvider["Service"]
  /** Sends so many calls at once. */
  readonly calls: (count: number, prompt?: string) => Effect.Effect<void>
  /** Breaks `a`, and sends calls until its circuit is open. */
  readonly outage: Effect.Effect<void>
}>()("sluice/test/Stage") {}

/** Two minutes: longer than a test looks at a call that runs, on a busy machine too. */
const words = Array.from({ length: 24 }, (_, n) => `word${n}`).join(" ")

/** What a prompt makes a provider do. Others are answered at once. */
export const turns = ({ prompt }: { readonly prompt: string }): Turn.Turn | undefined =>
  prompt === "slow" ? Turn.answer(words, { firstTokenMillis: 200, tokenMillis: 5_000 }) : undefined

export const stage = Layer.effect(
  Stage,
  Effect.gen(function*() {
    const a = yield* LoopbackProvider.make({ turns })
    const { args, env } = over(a, yield* LoopbackProvider.make({ turns }))
    const gateway = yield* start(yield* folder, [...args, "--concurrency", "b=8", "--rpm", "b=6000"], env)
    const calls = (count: number, prompt = "Hello") =>
      Effect.forEach(
        Array.from({ length: count }),
        () => ask(gateway, gateway.token, { stream: true, messages: [{ role: "user", content: prompt }] }),
        { concurrency: "unbounded", discard: true }
      )
    return Stage.of({ gateway, a, calls, outage: Effect.andThen(a.down, calls(5)) })
  })
)

/** The live page of a gateway, once it shows something. The script runs before it. */
export const livePage = (
  { token, url }: Pick<Gateway, "token" | "url">,
  options?: BrowserContextOptions,
  script?: string
) =>
  Effect.gen(function*() {
    const tab = yield* (yield* Browser.Browser).open(`${url}/sluice/#${token}`, options, script)
    yield* Browser.until(tab, `!document.body.classList.contains("stale")`)
    return tab
  })

/** An expression: the verdict has these words. */
export const says = (words: string) => `document.getElementById("says").textContent === ${JSON.stringify(words)}`
