import type { Vitest } from "@effect/vitest"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Layer, type Scope } from "effect"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { delimiter, join } from "node:path"
import type { BrowserContextOptions, Page } from "playwright-core"
import { chromium } from "playwright-core"
import { processTimeout } from "./timeouts.ts"

const onPath = (name: string): string | undefined =>
  (process.env["PATH"] ?? "").split(delimiter).map((folder) => join(folder, name)).find((path) => existsSync(path))

const executablePath = onPath("chromium") ?? onPath("chromium-browser") ?? onPath("google-chrome")

const noBrowser = "no chromium or google-chrome on the PATH"

/** `.ci/run` installs one where there is apt-get, and says if it could not. */
const mustNotSkip = process.env["CI"] === "true" && onPath("apt-get") !== undefined &&
  process.env["SLUICE_WITHOUT_BROWSER"] !== "true"

/** A tab with cookies of its own. */
export interface Tab {
  readonly page: Page
  /** What the console and the browser said about the page. */
  readonly messages: ReadonlyArray<string>
}

/** A real Chromium. */
export class Browser extends Context.Service<Browser, {
  /** Opens a tab. The script runs before those of the page. The tab is closed with the scope. */
  readonly open: (
    url: string,
    options?: BrowserContextOptions,
    script?: string
  ) => Effect.Effect<Tab, never, Scope.Scope>
}>()("sluice/test/Browser") {}

/** Starts the browser. It ends with the scope. */
export const live = Layer.effect(
  Browser,
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(() =>
        chromium.launch({
          ...(executablePath === undefined ? {} : { executablePath }),
          args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        })
      ),
      (browser) => Effect.promise(() => browser.close())
    ),
    (browser) =>
      Browser.of({
        open: Effect.fnUntraced(function*(url, options, script) {
          const context = yield* Effect.acquireRelease(
            Effect.promise(() => browser.newContext({ viewport: { width: 1440, height: 1000 }, ...options })),
            (context) => Effect.promise(() => context.close())
          )
          const messages: Array<string> = []
          const page = yield* Effect.promise(() => context.newPage())
          page.on("console", (message) => messages.push(`${message.type()}: ${message.text()}`))
          page.on("pageerror", (error) => messages.push(error.message))
          if (script !== undefined) yield* Effect.promise(() => page.addInitScript(script))
          yield* Effect.promise(() => page.goto(url))
          return { page, messages }
        })
      })
  )
)

/**
 * A suite in a real Chromium, with what it needs besides. Without a Chromium it prints a line and is skipped. In CI it fails
 * where apt-get could have installed one.
 */
export const describeWithBrowser = <R>(
  name: string,
  stage: Layer.Layer<R, unknown, Browser>,
  tests: (it: Vitest.MethodsNonLive<Browser | R>) => void
): void => {
  const shared = layer(Layer.provideMerge(stage, live), { excludeTestServices: true })
  if (executablePath !== undefined) return void describe(name, { timeout: processTimeout }, () => shared(tests))
  if (mustNotSkip) return it(name, () => assert.fail(noBrowser))
  process.stderr.write(`${name}: skipped, ${noBrowser}\n`)
  describe.skip(name, () => shared(tests))
}

/** Evaluates JavaScript in the page. */
export const evaluate = ({ page }: Tab, script: string) => Effect.promise<unknown>(() => page.evaluate(script))

const boundMillis = 30_000

/** Waits until an expression holds in the page. Fails with what the page shows. */
export const until = (tab: Tab, expression: string, millis: number = boundMillis) =>
  Effect.promise(async () => {
    const end = performance.now() + millis
    // A page that is loaded again cannot be asked.
    while (await tab.page.evaluate(`(${expression}) === true`).catch(() => false) !== true) {
      if (performance.now() > end) {
        const shown = await tab.page.evaluate("document.body.innerText")
        assert.fail(`not within ${millis} ms: ${expression}\n${String(shown)}\n${tab.messages.join("\n")}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
  })

/** Asserts that nothing is wider than the window. */
export const fits = (tab: Tab, width: number, height = 1_000) =>
  Effect.promise(async () => {
    await tab.page.setViewportSize({ width, height })
    // Two frames, after which all is laid out.
    await tab.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    const wider = await tab.page.evaluate(`[...document.querySelectorAll("body *")]
      .filter((one) => one.getBoundingClientRect().right > innerWidth + 1 && one.checkVisibility())
      .map((one) => one.outerHTML.slice(0, 200)).slice(0, 5)`)
    const over = await tab.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert.isAtMost(Number(over), 0, `at ${width}: ${JSON.stringify(wider)}`)
  })

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")

/** Asserts that axe finds nothing serious or critical, by these rules or by all. */
export const isAccessible = ({ page }: Tab, what: string, rules: ReadonlyArray<string> = []) =>
  Effect.promise(async () => {
    if (await page.evaluate("typeof axe") === "undefined") await page.evaluate(axe)
    const found = await page.evaluate(`axe.run(document, {
        resultTypes: ["violations"], ${rules.length === 0 ? "" : `runOnly: ${JSON.stringify(rules)}`}
      }).then(({ violations }) =>
      violations.filter(({ impact }) => impact === "serious" || impact === "critical").flatMap(({ id, nodes }) =>
        nodes.map(({ failureSummary, target }) => id + " " + target + " " + failureSummary)))`)
    assert.deepStrictEqual(found, [], what)
  })

const pictures = process.env["SLUICE_PICTURES"]

/** Writes a picture to the folder `SLUICE_PICTURES`, if it is set, to look at the page. */
export const picture = ({ page }: Tab, name: string) =>
  Effect.promise(async () => {
    if (pictures !== undefined) writeFileSync(join(pictures, `${name}.png`), await page.screenshot())
  })
