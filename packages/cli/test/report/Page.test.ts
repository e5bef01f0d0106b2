import { assert, describe, it } from "@effect/vitest"
import { Facts, limits } from "../../src/report/Facts.ts"
import { escape, html } from "../../src/report/Html.ts"
import * as Page from "../../src/report/Page.ts"
import type { CallRecord } from "../../src/run/CallRecord.ts"
import { attempt, call, hostile, record, refused } from "../support/records.ts"
import { answered, failed } from "../support/results.ts"

const targets = [
  { name: "main", model: "small", host: "one.example" },
  { name: "backup", model: "large", host: "two.example" }
]
const about = { input: "prompts.jsonl", stopped: undefined, unusable: new Map<string, string>() }

/** Adds a record with its result, which failed with this message. */
const add = (facts: Facts, added: CallRecord, message = "it is down"): void => {
  const { error = "", line } = added
  facts.add(
    added,
    added.status === "ok" ? answered({ line }) : failed({ line, error: { tag: error, message, retryAfter: undefined } })
  )
}

/** Asserts that elements are nested and closed, attributes are quoted, and text is escaped. Returns the counts of elements. */
const wellFormed = (page: string): ReadonlyMap<string, number> => {
  const elements = new Map<string, number>()
  const open: Array<string> = []
  let at = page.startsWith("<!DOCTYPE html>\n") ? 16 : assert.fail("no doctype")
  const tag = /<(\/?)([a-z][a-z0-9]*)((?: [a-zA-Z][a-zA-Z0-9-]*="[^"<>]*")*)( ?\/)?>/y
  while (at < page.length) {
    const next = page.indexOf("<", at)
    const text = page.slice(at, next === -1 ? undefined : next)
    assert.notMatch(text.replaceAll(/&#\d+;/g, ""), /[&<>]/, text.slice(0, 200))
    if (next === -1) break
    tag.lastIndex = next
    const found = tag.exec(page) ?? assert.fail(`no tag: ${page.slice(next, next + 80)}`)
    const [all, slash, name = "", , isVoid] = found
    if (slash === "/") assert.strictEqual(open.pop(), name)
    else {
      elements.set(name, (elements.get(name) ?? 0) + 1)
      if (isVoid === undefined) open.push(name)
    }
    at = next + all.length
  }
  assert.deepStrictEqual(open, [])
  return elements
}

describe("Html", () => {
  it("values in markup are escaped, and so are control characters", () => {
    assert.strictEqual(escape(`<a href="x">&'\``), "&#60;a href=&#34;x&#34;&#62;&#38;&#39;&#96;")
    assert.notMatch(escape(hostile), /[<>"'`\p{Cc}\p{Cf}]/u)
    assert.strictEqual(html`<b>${"<"}</b>${[1, html`<i></i>`, undefined]}`.markup, "<b>&#60;</b>1<i></i>")
  })
})

describe("Page", () => {
  it("a page is well-formed and shows totals, targets, circuits, latency and failures", () => {
    const facts = new Facts(targets, 1_000)
    add(facts, record())
    add(facts, record({ line: 2, how: "cached", attempts: 0, calls: [] }))
    add(
      facts,
      record({
        line: 3,
        attempts: 2,
        target: "backup",
        finish: "length",
        calls: [{
          ...call(
            refused(503),
            attempt({ n: 2, target: "backup", usage: { inputTokens: 90, outputTokens: 9, estimated: true } })
          ),
          usage: { inputTokens: 90, outputTokens: 9, estimated: true }
        }]
      })
    )
    add(
      facts,
      record({
        line: 4,
        id: "p4",
        status: "failed",
        error: "RateLimitError",
        calls: [call(refused(429, { next: "Stop" }))]
      })
    )
    facts.circuitChanged({ target: "main", at: 1_400, circuit: { state: "open", probeAt: 2_400 } })
    facts.circuitChanged({ target: "main", at: 2_400, circuit: { state: "open", probeAt: 3_400 } })
    facts.circuitChanged({ target: "main", at: 2_600, circuit: { state: "closed" } })
    facts.endedAt = 5_000
    const page = Page.render(facts, about)
    const elements = wellFormed(page)
    for (const unwanted of ["script", "link", "img", "iframe", "object", "a", "form"]) {
      assert.isUndefined(elements.get(unwanted), unwanted)
    }
    for (
      const shown of [
        "<dt>answered</dt><dd><b>3</b><span>1 incomplete: length</span>",
        "<dt>failed</dt><dd><b>1</b><span>rate limit</span>",
        "circuit opened 1 time<",
        `<td>rate limit</td><td class="long">line 4: it is down</td>`,
        `<td class="long">rate limit: it is down</td>`,
        "<dt>requests</dt><dd><b>4</b><span>1 prompt shared an answer</span>",
        "<dt>retries</dt><dd><b>1</b><span>1 moved to another target</span>",
        "<dt>from another target</dt><dd><b>1</b>",
        "<dt>tokens paid</dt><dd><b>~129</b>",
        "~ partly estimated",
        "<title>open from 400ms to 1.6s</title>",
        "small at one.example",
        "HTTP 503",
        "rate limit",
        "p4"
      ]
    ) assert.include(page, shown)
    assert.strictEqual(facts.targets.get("main")?.openings, 1)
  })

  it("names, models, ids and errors cannot inject markup", () => {
    const facts = new Facts([{ name: hostile, model: hostile, host: hostile }], 1_000)
    add(
      facts,
      record({
        id: hostile,
        target: hostile,
        model: hostile,
        finish: hostile,
        attempts: 2,
        calls: [call(
          refused(500, { target: hostile, fault: { type: `Odd${hostile}`, message: hostile } }),
          attempt({ target: hostile })
        )]
      })
    )
    add(facts, record({ id: hostile, status: "failed", error: hostile }), hostile)
    const page = Page.render(facts, { input: hostile, stopped: hostile, unusable: new Map([[hostile, hostile]]) })
    const elements = wellFormed(page)
    assert.isUndefined(elements.get("script"))
    assert.isUndefined(elements.get("img"))
    assert.notMatch(page.replaceAll("\n", ""), /[\p{Cc}\p{Cf}]/u)
  })

  it("the cost of the run and learned limits are shown", () => {
    const cost = { hasPriced: true, spentNow: 1_234_567, spent: 4_560_000, before: 3_325_433, limit: 5_000_000 }
    const page = Page.render(new Facts(targets, 0), { ...about, cost, limits: ["main: 412 of 500 requests a minute"] })
    wellFormed(page)
    assert.include(
      page,
      "<dt>cost</dt><dd><b>$1.23</b><span>$4.56 with earlier runs, of at most $5.00</span></dd>"
    )
    assert.include(page, "Learned limits: main: 412 of 500 requests a minute.")
    assert.notInclude(Page.render(new Facts(targets, 0), about), "<dt>cost</dt>")
  })

  it("failed prompts are grouped by reason, the most frequent first, with one message each", () => {
    const facts = new Facts(targets, 0)
    for (
      const [line, error, message] of [
        [2, "MalformedLine", "the line is not JSON"],
        [3, "InvalidRequestError", "not this one"],
        [4, "InvalidRequestError", "nor this one"]
      ] as const
    ) add(facts, record({ line, status: "failed", error, calls: [] }), message)
    const page = Page.render(facts, about)
    wellFormed(page)
    assert.match(
      page,
      /<td>refused by the provider<\/td><td class="long">line 3: not this one<\/td><td class="num">2<\/td><\/tr>\s*<tr><td>not a prompt<\/td><td class="long">line 2: the line is not JSON<\/td><td class="num">1</
    )
    for (const shown of ["not a prompt: the line is not JSON", "refused by the provider: nor this one"]) {
      assert.include(page, shown)
    }
    assert.include(page, "messages of providers, which may\nquote a prompt")
  })

  it("an attempt that a later call of its line followed was retried, and a refusal of the run itself is no attempt", () => {
    const facts = new Facts(targets, 0)
    const stopped = call(refused(503, { next: "Stop" }))
    const own = call(attempt({
      outcome: "Throttled",
      fault: { type: "RateLimitError", message: "RateLimitError" },
      next: "Stop"
    }))
    add(facts, record({ attempts: 3, calls: [stopped, own, stopped, call(attempt())] }))
    add(facts, record({ line: 2, attempts: 1, status: "failed", error: "InternalProviderError", calls: [stopped] }))
    const [failure, ...others] = [...facts.failures.values()]
    assert.deepStrictEqual(others, [])
    assert.deepStrictEqual([failure?.times, [...failure?.next ?? []]], [3, [["Retry", 2], ["Stop", 1]]])
    assert.deepStrictEqual([facts.requests, facts.retries], [4, 2])
  })

  it("answers over time are rates of at most sixty bars, by the second or by the minute", () => {
    const pageOf = (answers: number, everyMillis: number) => {
      const facts = new Facts(targets, 0)
      for (let line = 1; line <= answers; line++) {
        add(facts, record({ line, startedAt: (line - 1) * everyMillis, milliseconds: everyMillis / 2, calls: [] }))
      }
      facts.endedAt = answers * everyMillis
      const page = Page.render(facts, about)
      wellFormed(page)
      return page
    }
    const fast = pageOf(20_000, 10)
    assert.include(fast, "<figcaption>100 a second <small>on average, at most 100 a second</small></figcaption>")
    assert.isAtMost(fast.match(/<title>[^<]*: 100 a second<\/title>/g)?.length ?? 0, 60)
    assert.include(pageOf(90, 4_000), "<figcaption>15 a minute <small>on average, at most")
    assert.notInclude(Page.render(new Facts(targets, 0), about), "Answers over time")
  })

  it("an open circuit fills its strip, in which a closed one is a thin line", () => {
    const facts = new Facts(targets, 1_000)
    add(facts, record({ calls: [call(refused(503))] }))
    facts.circuitChanged({ target: "main", at: 1_400, circuit: { state: "open", probeAt: 2_400 } })
    facts.endedAt = 5_000
    const [, strip = ""] = /<figcaption>main.*?<svg class="strip"[^>]*>(.*?)<\/svg>/s.exec(Page.render(facts, about)) ??
      []
    assert.match(strip, /<rect class="closed" y="75%" width="100%" height="15%" \/>/)
    assert.match(strip, /<rect class="open" x="10%" width="90%" height="100%"><title>open from 400ms to 4.0s/)
  })

  it("a page loads nothing and runs no script", () => {
    const page = Page.render(new Facts(targets, 0), about)
    assert.notMatch(page, /https?:|url\(|@import|javascript:| on\w+=/)
    assert.include(page, "default-src 'none'")
    assert.include(page, "prefers-color-scheme: dark")
    assert.include(page, "@media print")
  })

  it("the page of a large run stays below a megabyte and says what it omits", () => {
    const facts = new Facts(targets, 0)
    for (let line = 1; line <= 20_000; line++) {
      const at = line * 360
      const steps = [
        refused(503, { startedAt: at, endedAt: at + 50 }),
        attempt({ n: 2, target: "backup", startedAt: at + 50, endedAt: at + 300 })
      ]
      add(
        facts,
        record({
          line,
          id: `prompt-${line}`,
          startedAt: at,
          milliseconds: line,
          attempts: 2,
          calls: [call(...steps)],
          ...(line % 2 === 0 ? { status: "failed" as const, error: "NetworkError" } : {})
        })
      )
      facts.circuitChanged({
        target: "main",
        at,
        circuit: line % 2 === 0 ? { state: "open", probeAt: at } : { state: "closed" }
      })
    }
    const page = Page.render(facts, about)
    wellFormed(page)
    assert.isBelow(page.length, 1_000_000)
    assert.include(page, "The first 200 of 10,000. The results have all of them.")
    assert.include(page, "later changes of its circuit are omitted")
    assert.strictEqual(facts.failedPrompts.length, limits.failed)
    assert.strictEqual(facts.hardest.length, limits.hardest)
    const counted = facts.targets.get("main")?.timeline.entries()
      .reduce((sum, { counts }) => sum + (counts.get("failed") ?? 0), 0)
    assert.strictEqual(counted, 20_000)
    assert.isAtMost(facts.targets.get("main")?.timeline.entries().length ?? 0, 240)
  })
})
