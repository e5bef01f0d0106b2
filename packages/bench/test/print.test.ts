import { assert, describe, it } from "@effect/vitest"
import { compare, judge } from "../src/judge.ts"
import { withTables } from "../src/page.ts"
import { asMarkdown, asText, colourless } from "../src/print.ts"
import type { MeasuredRow, Report } from "../src/report.ts"
import { rowIds, rowOf } from "../src/rows.ts"
import { targets } from "../src/targets.ts"

/** Every row, with the longest figures that can be expected. */
const everything: ReadonlyArray<MeasuredRow> = rowIds.map((id) => {
  const { contenders, title, unit } = rowOf(id)
  return {
    id,
    title,
    unit,
    measurements: contenders.map((contender) => ({
      contender,
      rounds: contender === "Effect" ? [505_840, 480_000, 599_999] : [1_082, 1_060, 1_214]
    }))
  }
})

const reportOf = (rows: ReadonlyArray<MeasuredRow>): Report => ({
  machine: { node: "24.21.0", effect: "4.1.0", cpu: "Some CPU", cores: 2 },
  isQuick: false,
  verdicts: judge(targets, rows),
  rows
})

const breaker: MeasuredRow = {
  id: "breaker-closed",
  title: "breaker, closed",
  unit: "ns",
  measurements: [
    { contender: "the effect alone", rounds: [80] },
    { contender: "Sluice", rounds: [400] },
    { contender: "Effect", rounds: [6_800] },
    { contender: "cockatiel", rounds: [100] }
  ]
}

describe("asText", () => {
  it("the verdicts with their ratios come before the costs", () => {
    const lines = asText(reportOf([breaker]), colourless).split("\n")
    const words = lines.map((line) => line.replaceAll(/ +/g, " ").trim())
    assert.include(words, "reached 17.0x (>= 15x) breaker, closed / Effect")
    assert.include(words, "missed 4.00x (<= 2.5x) breaker, closed / cockatiel")
    assert.include(words, "1 of 2 targets reached, 1 missed")
    assert.isBelow(words.indexOf("1 of 2 targets reached, 1 missed"), words.indexOf("1.00x 400 ns Sluice"))
  })

  it("large sums of bytes are in megabytes", () => {
    const memory: MeasuredRow = {
      id: "run-memory",
      title: "run, memory",
      unit: "bytes",
      measurements: [
        { contender: "openai client", rounds: [340_000_000] },
        { contender: "Sluice", rounds: [210_000_000, 220_400_000, 230_000_000] }
      ]
    }
    const words = asText(reportOf([memory]), colourless).replaceAll(/ +/g, " ")
    assert.include(words, "reached 220 MB (<= 300 MB) [215-225] run, memory\n")
    assert.include(words, "1.00x 220 MB [215-225] Sluice\n")
  })

  it("long times are in seconds", () => {
    const killed: MeasuredRow = {
      id: "batch-kill",
      title: "batch, kill -9",
      unit: "ns",
      measurements: [
        { contender: "lease, work and 2 s", rounds: [10e9] },
        { contender: "Sluice", rounds: [6.4e9] }
      ]
    }
    const words = asText(reportOf([killed]), colourless).replaceAll(/ +/g, " ")
    assert.include(words, "1.56x 10.00 s lease, work and 2 s\n 1.00x 6.40 s Sluice\n")
    assert.match(asMarkdown(reportOf([killed])), /Sluice +\| 1\.00x +\| 6\.40 s/)
  })

  it("every contender has its cost, and the ratio to ours", () => {
    const words = asText(reportOf([breaker]), colourless).replaceAll(/ +/g, " ")
    assert.include(
      words,
      "breaker, closed (Effect: CircuitBreaker)\n 0.20x 80 ns the effect alone\n 1.00x 400 ns Sluice\n"
    )
    assert.include(words, "17.0x 6,800 ns Effect")
  })

  it("the quartiles of the rounds are in brackets", () => {
    const text = asText(reportOf(everything), colourless)
    assert.include(text, "[460-481]")
    assert.include(text, "[492,920-552,920]")
    assert.include(text, "1,082 B (<= 1,100 B) [1,071-1,148]")
  })

  it("a quick run has ratios and no verdicts", () => {
    const quick: Report = { ...reportOf([breaker]), isQuick: true, verdicts: compare(targets, [breaker]) }
    const text = asText(quick, colourless).replaceAll(/ +/g, " ")
    assert.include(text, "17.0x (>= 15x) breaker, closed / Effect")
    assert.include(text, "No verdicts")
    assert.notMatch(text, /reached|missed/)
  })

  it("no line is longer than 80 columns", () => {
    for (const line of asText(reportOf(everything), colourless).split("\n")) assert.isAtMost(line.length, 80, line)
  })

  it("only the verdicts are coloured, so that columns align with and without colours", () => {
    const painted = asText(reportOf(everything), (text) => `<${text}>`)
    assert.strictEqual(painted.replaceAll(/<(reached|missed {0,1})>/g, "$1"), asText(reportOf(everything), colourless))
  })
})

describe("asMarkdown", () => {
  it("the tables have every verdict and every row", () => {
    const page = asMarkdown(reportOf(everything))
    for (const { title } of everything) assert.include(page, title)
    assert.strictEqual(
      page.split("\n").filter((line) => /^\| (reached|\*\*missed\*\*)/.test(line)).length,
      targets.length
    )
  })

  it("the columns are padded like the formatter does", () => {
    for (const table of asMarkdown(reportOf(everything)).split("\n\n").slice(1)) {
      assert.strictEqual(new Set(table.split("\n").map((line) => line.length)).size, 1)
    }
  })

  it("withTables replaces the text between the markers and nothing else", () => {
    const begin = "<!-- npm run bench -- --write: begin -->"
    const end = "<!-- npm run bench -- --write: end -->"
    const page = `# Title\n\n${begin}\n\nold\n\n${end}\n\nmore\n`
    const written = `# Title\n\n${begin}\n\nnew\n\n${end}\n\nmore\n`
    assert.strictEqual(withTables(page)?.("new"), written)
    assert.strictEqual(withTables(written)?.("new"), written)
    assert.isUndefined(withTables("# no markers"))
  })
})
