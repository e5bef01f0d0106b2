import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Effect } from "effect"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as CallRecord from "../../src/run/CallRecord.ts"
import * as Terminal from "../../src/Terminal.ts"
import * as Process from "../support/command.ts"
import { folder, write } from "../support/files.ts"
import { filesOf, run } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const secretPrompt = "a-confidential-question"
const secretAnswer = "a-confidential-answer"

/** A run with two targets. The first fails every request with a message that repeats the prompt. */
const recorded = Effect.gen(function*() {
  const first = yield* LoopbackProvider.make({
    apiKey: false,
    turns: ({ prompt }) => Turn.status(500, { body: `cannot do ${prompt}` })
  })
  const second = yield* LoopbackProvider.make({ apiKey: false, answer: () => Effect.succeed({ text: secretAnswer }) })
  const { directory, prompts, results } = yield* filesOf([
    JSON.stringify({ id: "one", prompt: secretPrompt }),
    JSON.stringify({ id: "two", prompt: secretPrompt }),
    JSON.stringify({ prompt: `${secretPrompt}, too` }),
    "no json",
    JSON.stringify({ id: `<script>\u001b[31m`, prompt: `${secretPrompt}, also` })
  ])
  const [log, page] = [join(directory, "calls.jsonl"), join(directory, "page.html")]
  const args = [
    prompts,
    "-o",
    results,
    "--log",
    log,
    "--report",
    page,
    "--target",
    `one=${first.url}#small`,
    "--target",
    `two=${second.url}#large`,
    "--explain",
    "one",
    "--explain",
    "3",
    "--explain",
    "missing"
  ]
  const env = { NO_COLOR: "1" }
  return { args, env, log, page, results, ended: yield* run(args, env) }
})

const explain = (...args: ReadonlyArray<string>) => Effect.promise(() => Process.run(["explain", ...args]))

describe("the records of a run", { timeout: processTimeout }, () => {
  it.live(
    "--explain and `sluice explain` print the same record, within 80 columns and without escapes",
    () =>
      Effect.gen(function*() {
        const { ended, log } = yield* recorded
        assert.strictEqual(ended.code, 1, ended.stderr)
        assert.match(ended.stdout, /^one \(line 1\): answered by two \(large\) after /)
        // Line breaks depend on the lengths of durations.
        const text = ended.stdout.replaceAll(/\s+/g, " ")
        assert.match(text, /\+\S+ one attempt 1(?:, delayed by \S+)?: HTTP 500 after \S+; retries the same target/)
        assert.match(text, /\+\S+ one attempt 2(?:, delayed by \S+)?: HTTP 500 after \S+; falls back to another target/)
        assert.match(text, /\+\S+ two attempt 3(?:, delayed by \S+)?: answered in/)
        assert.include(ended.stdout, "\nline 3: answered by two")
        assert.include(ended.stdout, "missing: no such prompt in this run\n")

        const later = yield* explain("one", log)
        assert.deepStrictEqual([later.code, later.stderr], [0, ""])
        assert.isTrue(ended.stdout.startsWith(later.stdout))
        const shared = yield* explain("two", log)
        assert.match(
          shared.stdout.replaceAll(/\s+/g, " "),
          /No call of its own: (?:shared the call of|reused the answer to) the equal prompt on line 1\b/
        )
        assert.strictEqual((yield* explain("1", log)).stdout, later.stdout)
        const malformed = yield* explain("4", log)
        assert.match(malformed.stdout, /^line 4: failed after 0ms: MalformedLine\n/)
        const hostile = yield* explain("<script>\u001b[31m", log)
        assert.strictEqual(hostile.code, 0)
        for (const { stdout } of [ended, later, shared, malformed, hostile]) {
          assert.notInclude(stdout, "\u001b")
          for (const line of stdout.split("\n")) assert.isAtMost(Terminal.width(line), 80, line)
        }
      })
  )

  it.live("output, log and report contain no prompt, no answer and no text of a provider", () =>
    Effect.gen(function*() {
      const { ended, log, page } = yield* recorded
      const written = [ended.stdout, ended.stderr, readFileSync(log, "utf8"), readFileSync(page, "utf8")]
      for (const text of written) {
        assert.isAbove(text.length, 0)
        assert.notInclude(text, "confidential")
        assert.notInclude(text, "cannot do")
      }
    }))

  it.live("the log has a record per line, and the report is an HTML page", () =>
    Effect.gen(function*() {
      const { log, page } = yield* recorded
      const records = readFileSync(log, "utf8").trimEnd().split("\n").map(CallRecord.decode)
      assert.deepStrictEqual(records.map((record) => record?.line).sort(), [1, 2, 3, 4, 5])
      const written = readFileSync(page, "utf8")
      assert.match(written, /<b>4<\/b>/)
      assert.notInclude(written, "<script")
      assert.isTrue(written.trimEnd().endsWith("</html>"))
    }))

  it.live("an existing log or report is not replaced without --force", () =>
    Effect.gen(function*() {
      const { args, env, log, page, results } = yield* recorded
      for (const path of [log, page]) {
        writeFileSync(path, "mine\n")
        writeFileSync(results, "")
        const { code, stderr } = yield* run([
          ...args.filter((arg) => arg !== "-o" && arg !== results),
          "-o",
          `${results}.2`
        ], env)
        assert.strictEqual(code, 2)
        assert.match(stderr, /^sluice run: cannot write [^\n]*: already exists; use --force to replace it\n$/)
        assert.strictEqual(readFileSync(path, "utf8"), "mine\n")
        assert.isFalse(existsSync(`${results}.2`))
      }
    }))
})

describe("sluice explain", { timeout: processTimeout }, () => {
  it.live("a missing log, prompt or argument is reported in one line", () =>
    Effect.gen(function*() {
      const { log } = yield* recorded
      const directory = yield* folder
      const none = yield* explain("missing", log)
      assert.deepStrictEqual([none.code, none.stdout], [1, ""])
      assert.match(none.stderr, /^sluice explain: [^\n]* has no prompt missing\n$/)
      const missing = yield* explain("one", join(directory, "no"))
      assert.deepStrictEqual([missing.code, missing.stdout], [2, ""])
      assert.match(missing.stderr, /^sluice explain: cannot read [^\n]*no such file[^\n]*\n$/)
      const swapped = yield* explain(log, "one")
      assert.strictEqual(swapped.code, 2)
      assert.include(swapped.stderr, "the order is: sluice explain ID LOG")
      const other = yield* explain("one", write(join(directory, "other.jsonl"), ["{}", "nonsense"]))
      assert.strictEqual(other.code, 2)
      assert.include(other.stderr, "not a log of")
      const incomplete = yield* explain("one")
      assert.strictEqual(incomplete.code, 2)
      assert.include(incomplete.stderr, "LOG is missing")
    }))
})
