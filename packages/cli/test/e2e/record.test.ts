import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Effect } from "effect"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as CallRecord from "../../src/run/CallRecord.ts"
import * as Terminal from "../../src/Terminal.ts"
import * as Process from "../support/command.ts"
import { folder, write } from "./support/files.ts"
import { run } from "./support/provider.ts"

const secretPrompt = "a-question-that-nobody-else-may-read"
const secretAnswer = "an-answer-that-nobody-else-may-read"

/** A run over a provider that refuses the first try at every prompt, and repeats the prompt when it does, and a second one. */
const recorded = Effect.gen(function*() {
  const first = yield* LoopbackProvider.make({
    apiKey: false,
    turns: ({ prompt }) => Turn.status(500, { body: `cannot do ${prompt}` })
  })
  const second = yield* LoopbackProvider.make({ apiKey: false, answer: () => Effect.succeed({ text: secretAnswer }) })
  const directory = yield* folder
  const prompts = write(join(directory, "prompts.jsonl"), [
    JSON.stringify({ id: "one", prompt: secretPrompt }),
    JSON.stringify({ id: "two", prompt: secretPrompt }),
    JSON.stringify({ prompt: `${secretPrompt}, too` }),
    "no json",
    JSON.stringify({ id: `<script>\u001b[31m`, prompt: `${secretPrompt}, also` })
  ])
  const [results, log, page] = ["results.jsonl", "calls.jsonl", "page.html"].map((name) => join(directory, name))
  const args = [
    prompts,
    "-o",
    results ?? "",
    "--log",
    log ?? "",
    "--report",
    page ?? "",
    "--target",
    `one=${first.url}#small`,
    "--target",
    `two=${second.url}#large`,
    "--explain",
    "one",
    "--explain",
    "3",
    "--explain",
    "nobody"
  ]
  const env = { NO_COLOR: "1" }
  return { args, env, log: log ?? "", page: page ?? "", ended: yield* run(args, env) }
})

const explain = (...args: ReadonlyArray<string>) => Effect.promise(() => Process.run(["explain", ...args]))

describe("what a run writes down about its calls", () => {
  it.live(
    "explains a prompt at the end of the run, and later, within 80 columns and without escapes",
    () =>
      Effect.gen(function*() {
        const { ended, log } = yield* recorded
        assert.strictEqual(ended.code, 1, ended.stderr)
        assert.match(ended.stdout, /^one \(line 1\): answered by two \(large\) after /)
        // Where a line breaks depends on how long things took.
        const told = ended.stdout.replaceAll(/\s+/g, " ")
        assert.match(told, /\+\S+ one try 1(?:, after a wait of \S+)?: HTTP 500 after \S+; another target is asked/)
        assert.match(told, /\+\S+ two try 2(?:, after a wait of \S+)?: answered in/)
        assert.include(ended.stdout, "\nline 3: answered by two")
        assert.include(ended.stdout, "nobody: no such prompt was asked\n")

        const later = yield* explain("one", log)
        assert.deepStrictEqual([later.code, later.stderr], [0, ""])
        assert.isTrue(ended.stdout.startsWith(later.stdout))
        const shared = yield* explain("two", log)
        assert.match(
          shared.stdout.replaceAll(/\s+/g, " "),
          /made no call of its own: it waited with the equal prompt on line 1|line 1 had been answered/
        )
        assert.strictEqual((yield* explain("1", log)).stdout, later.stdout)
        const unread = yield* explain("4", log)
        assert.match(unread.stdout, /^line 4: failed after 0ms: MalformedLine\n/)
        const strange = yield* explain("<script>\u001b[31m", log)
        assert.strictEqual(strange.code, 0)
        for (const { stdout } of [ended, later, shared, unread, strange]) {
          assert.notInclude(stdout, "\u001b")
          for (const line of stdout.split("\n")) assert.isAtMost(Terminal.width(line), 80, line)
        }
      }),
    30_000
  )

  it.live("holds no prompt, no answer and no word of a provider", () =>
    Effect.gen(function*() {
      const { ended, log, page } = yield* recorded
      const written = [ended.stdout, ended.stderr, readFileSync(log, "utf8"), readFileSync(page, "utf8")]
      for (const text of written) {
        assert.isAbove(text.length, 0)
        assert.notInclude(text, "nobody-else-may-read")
        assert.notInclude(text, "cannot do")
      }
    }), 30_000)

  it.live("is a record per line that can be read back, and a page", () =>
    Effect.gen(function*() {
      const { log, page } = yield* recorded
      const records = readFileSync(log, "utf8").trimEnd().split("\n").map(CallRecord.decode)
      assert.deepStrictEqual(records.map((record) => record?.line).sort(), [1, 2, 3, 4, 5])
      const written = readFileSync(page, "utf8")
      assert.match(written, /<strong>4<\/strong>/)
      assert.notInclude(written, "<script")
      assert.isTrue(written.trimEnd().endsWith("</html>"))
    }), 30_000)

  it.live("replaces no file without --force", () =>
    Effect.gen(function*() {
      const { args, env, log, page } = yield* recorded
      const results = args[args.indexOf("-o") + 1] ?? ""
      for (const path of [log, page]) {
        writeFileSync(path, "mine\n")
        writeFileSync(results, "")
        const { code, stderr } = yield* run([
          ...args.filter((arg) => arg !== "-o" && arg !== results),
          "-o",
          `${results}.2`
        ], env)
        assert.strictEqual(code, 2)
        assert.match(stderr, /^sluice run: cannot write [^\n]*: it exists; --force replaces it\n$/)
        assert.strictEqual(readFileSync(path, "utf8"), "mine\n")
        assert.isFalse(existsSync(`${results}.2`))
      }
    }), 30_000)
})

describe("sluice explain", () => {
  it.live("says in one line that there is no such log, or no such prompt in it", () =>
    Effect.gen(function*() {
      const { log } = yield* recorded
      const directory = yield* folder
      const none = yield* explain("nobody", log)
      assert.deepStrictEqual([none.code, none.stdout], [1, ""])
      assert.match(none.stderr, /^sluice explain: [^\n]* has no prompt nobody\n$/)
      const missing = yield* explain("one", join(directory, "no"))
      assert.deepStrictEqual([missing.code, missing.stdout], [2, ""])
      assert.match(missing.stderr, /^sluice explain: cannot read [^\n]*no such file[^\n]*\n$/)
      const swapped = yield* explain(log, "one")
      assert.strictEqual(swapped.code, 2)
      assert.include(swapped.stderr, "the order is: sluice explain ID LOG")
      const other = yield* explain("one", write(join(directory, "other.jsonl"), ["{}", "nonsense"]))
      assert.strictEqual(other.code, 2)
      assert.include(other.stderr, "it is no log")
      const unfinished = yield* explain("one")
      assert.strictEqual(unfinished.code, 2)
      assert.include(unfinished.stderr, "LOG is missing")
    }), 30_000)
})
