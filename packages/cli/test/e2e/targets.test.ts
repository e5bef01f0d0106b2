import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Effect, Redacted } from "effect"
import { existsSync } from "node:fs"
import { join } from "node:path"
import type { Answered } from "../../src/run/Result.ts"
import { allAnswered, folder, lines, resultsIn, write } from "./support/files.ts"
import type { Provider } from "./support/provider.ts"
import { run } from "./support/provider.ts"

/** Two providers, the second in Anthropic's format, and how a command is told of them. */
const both = Effect.fnUntraced(function*(first: LoopbackProvider.Options, second: LoopbackProvider.Options = {}) {
  const one = yield* LoopbackProvider.make(first)
  const two = yield* LoopbackProvider.make(second)
  const directory = yield* folder
  return {
    one,
    two,
    directory,
    results: join(directory, "results.jsonl"),
    args: ["--target", `one=${one.url}#small`, "--target", `two=anthropic:${two.origin}#large`],
    env: { SLUICE_KEY_ONE: keyOf(one), SLUICE_KEY_TWO: keyOf(two) }
  }
})

const keyOf = ({ apiKey }: Provider): string => apiKey === undefined ? "" : Redacted.value(apiKey)

/** The answers in a file, in the order of their lines. */
const answersIn = (path: string): ReadonlyArray<Answered> =>
  resultsIn(path)
    .flatMap((result) => result.status === "ok" ? [result] : [])
    .sort((a, b) => a.line - b.line)

describe("a run with two targets", () => {
  it.live(
    "has its answers from the second while the first is down, each asked with its own key in its own format",
    () =>
      Effect.gen(function*() {
        const { args, directory, env, one, results, two } = yield* both({})
        yield* one.down
        const prompts = write(join(directory, "prompts.jsonl"), lines(100))
        const { code, stderr } = yield* run([prompts, "-o", results, "--max-outage", "1s", ...args], env)

        assert.strictEqual(code, 0, stderr)
        allAnswered(resultsIn(results), 100)
        for (const { attempts, finish, model, target, text, usage } of answersIn(results)) {
          assert.deepStrictEqual([target, model, finish], ["two", "large", "stop"])
          assert.match(text, /^Loopback echo: Question \d+$/)
          assert.isAtMost(attempts, 2)
          assert.hasAllKeys(usage, ["inputTokens", "outputTokens"])
        }
        const [first, second] = [yield* one.journal, yield* two.journal]
        assert.strictEqual(second.length, 100)
        // The circuit opened after the first few, and let one through every second.
        assert.isBelow(first.length, 40)
        assert.isTrue(first.every(({ status }) => status === 503))
        assert.isTrue(second.every(({ status, wire }) => status === 200 && wire === "anthropic"))
        // An attempt at the second is a further attempt at the prompt.
        assert.isTrue(second.some(({ attempt }) => attempt === 2))
      }),
    30_000
  )

  it.live("is told where the time went: before the first token, and within the answer", () =>
    Effect.gen(function*() {
      const { args, directory, env, one, results } = yield* both({
        turns: ({ prompt }) => prompt === "Question 1" ? Turn.hang({ headers: true }) : Turn.stall({ afterTokens: 2 })
      })
      const prompts = write(join(directory, "prompts.jsonl"), lines(2))
      const limits = ["--first-token-timeout", "300ms", "--idle-timeout", "300ms"]
      const { code, millis, stderr } = yield* run([prompts, "-o", results, ...limits, ...args], env)

      assert.strictEqual(code, 0, stderr)
      assert.isBelow(millis, 5_000)
      assert.deepStrictEqual(
        answersIn(results).map(({ attempts, target, text }) => [attempts, target, text]),
        [[2, "two", "Loopback echo: Question 1"], [2, "two", "Loopback echo: Question 2"]]
      )
      assert.include(stderr, "no first token 1")
      assert.include(stderr, "silence 1")
      for (const { ending } of yield* one.journal) assert.strictEqual(ending, "clientClosed")
    }), 30_000)

  it.live("goes on with the second if the first refuses its key, and says so", () =>
    Effect.gen(function*() {
      const { args, directory, env, one, results } = yield* both({})
      const prompts = write(join(directory, "prompts.jsonl"), lines(40))
      const wrong = { ...env, SLUICE_KEY_ONE: "a-wrong-key" }
      const { code, stderr } = yield* run([prompts, "-o", results, "--concurrency", "4", ...args], wrong)
      assert.strictEqual(code, 0, stderr)
      allAnswered(resultsIn(results), 40)
      assert.match(stderr, / {2}unusable {4}one: the key from SLUICE_KEY_ONE was refused/)
      // It is not asked with a key that it has refused.
      assert.isAtMost((yield* one.journal).length, 4)
    }), 30_000)

  it.live("ends in one line if neither can be used, and leaves no file behind", () =>
    Effect.gen(function*() {
      const { args, directory, results } = yield* both({})
      const prompts = write(join(directory, "prompts.jsonl"), lines(40))
      const log = join(directory, "calls.jsonl")
      const page = join(directory, "page.html")
      const wrong = { SLUICE_KEY_ONE: "a-wrong-key", SLUICE_KEY_TWO: "another-one" }
      const { code, stderr, stdout } = yield* run(
        [prompts, "-o", results, "--log", log, "--report", page, ...args],
        wrong
      )
      assert.deepStrictEqual([code, stdout], [2, ""], stderr)
      assert.match(
        stderr,
        /^sluice run: no target can be used: one: [^\n]*SLUICE_KEY_ONE[^\n]*two: [^\n]*SLUICE_KEY_TWO[^\n]*\n$/
      )
      for (const path of [results, log, page]) assert.isFalse(existsSync(path), path)
    }), 30_000)

  it.live(
    "takes a key that is refused after it has answered for the fault of the hour, not of the run",
    () =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({ turns: [Turn.answer("fine"), Turn.refusal("key")] })
        const directory = yield* folder
        const prompts = write(join(directory, "prompts.jsonl"), lines(3))
        const results = join(directory, "results.jsonl")
        const args = [prompts, "-o", results, "--concurrency", "1", "--target", `main=${provider.url}#m`]
        const { code, stderr } = yield* run(args, { SLUICE_KEY_MAIN: keyOf(provider) })
        assert.strictEqual(code, 1, stderr)
        assert.deepStrictEqual(resultsIn(results).map(({ status }) => status), ["ok", "failed", "failed"])
        // The third prompt is not asked with it any more.
        assert.strictEqual((yield* provider.journal).length, 2)
      }),
    30_000
  )

  it.live("passes over a target for a line that it has no form for", () =>
    Effect.gen(function*() {
      const { args, directory, env, one, results, two } = yield* both({})
      yield* one.down
      const body = (fields: object) => ({ model: "m", messages: [{ role: "user", content: "Hello" }], ...fields })
      const prompts = write(join(directory, "prompts.jsonl"), [
        JSON.stringify({ custom_id: "seed", body: body({ seed: 7 }) }),
        JSON.stringify({ custom_id: "stop", body: body({ stop: "END", top_p: 0.5 }) })
      ])
      const { code } = yield* run([prompts, "-o", results, "--max-attempts", "2", ...args], env)
      assert.strictEqual(code, 1)
      assert.deepStrictEqual(answersIn(results).map(({ id, model, target }) => [id, target, model]), [[
        "stop",
        "two",
        "m"
      ]])
      assert.strictEqual((yield* two.journal).length, 1)
    }), 30_000)
})

describe("an answer", () => {
  const asked = Effect.fnUntraced(function*(options: LoopbackProvider.Options, ...flags: ReadonlyArray<string>) {
    const provider = yield* LoopbackProvider.make({ apiKey: false, ...options })
    const directory = yield* folder
    const prompts = write(join(directory, "prompts.jsonl"), lines(1))
    const results = join(directory, "results.jsonl")
    const ended = yield* run([prompts, "-o", results, "--target", `main=${provider.url}#m`, ...flags], {})
    return { ...ended, journal: yield* provider.journal, results: existsSync(results) ? resultsIn(results) : [] }
  })

  it.live("that its limit or a filter has cut says so", () =>
    Effect.gen(function*() {
      for (const finish of ["length", "content-filter"] as const) {
        const { code, results, stderr } = yield* asked({ turns: [Turn.answer("Half of", { finish })] })
        assert.strictEqual(code, 0, stderr)
        assert.deepInclude(results[0], { status: "ok", text: "Half of", finish })
        assert.match(stderr, / {2}not whole {3}cut by /)
      }
    }), 30_000)

  it.live("whose provider does not count has its tokens estimated, and marked", () =>
    Effect.gen(function*() {
      const { results, stderr } = yield* asked({ turns: [Turn.answer("x".repeat(40), { usage: "none" })] })
      const [result] = results
      assert.deepStrictEqual(
        result?.status === "ok" ? result.usage : undefined,
        { inputTokens: 3, outputTokens: 10, estimated: true }
      )
      assert.include(stderr, "3 in, 10 out, some of them estimated")
    }), 30_000)

  it.live("that is empty is asked for once more, and no more", () =>
    Effect.gen(function*() {
      const { code, journal, results, stderr } = yield* asked({ turns: [Turn.empty()] })
      assert.strictEqual(code, 1, stderr)
      assert.strictEqual(journal.length, 2)
      assert.strictEqual(results[0]?.status === "failed" && results[0].error.tag, "EmptyAnswer")
      const { results: second } = yield* asked({ turns: [Turn.empty(), Turn.answer("there")] })
      assert.deepInclude(second[0], { status: "ok", text: "there", attempts: 2 })
    }), 30_000)

  it.live("that is cut within is begun anew, and is all of one piece", () =>
    Effect.gen(function*() {
      const turns = [Turn.cut({ content: "first half gone", afterTokens: 2 }), Turn.answer("second and whole")]
      const { results } = yield* asked({ turns })
      assert.deepInclude(results[0], { status: "ok", text: "second and whole", attempts: 2 })
    }), 30_000)

  it.live("in one piece has the same result as a streamed one", () =>
    Effect.gen(function*() {
      const streamed = yield* asked({})
      const whole = yield* asked({}, "--no-stream")
      assert.deepStrictEqual([streamed.journal[0]?.stream, whole.journal[0]?.stream], [true, false])
      const { milliseconds: _, ...expected } = streamed.results[0] ?? assert.fail("no result")
      assert.deepInclude(whole.results[0], expected)
    }), 30_000)

  it.live(
    "that does not come by the deadline fails, though the provider is down and nobody waits in line",
    () =>
      Effect.gen(function*() {
        const silent = yield* asked({ turns: [Turn.hang()] }, "--deadline", "600ms")
        assert.strictEqual(silent.code, 1, silent.stderr)
        assert.isBelow(silent.millis, 4_000)
        assert.strictEqual(silent.results[0]?.status === "failed" && silent.results[0].error.tag, "DeadlineExceeded")
        assert.include(JSON.stringify(silent.results), "--deadline allows more")
        const down = yield* asked({ turns: [Turn.status(503)] }, "--deadline", "1500ms", "--max-attempts", "20")
        assert.strictEqual(down.code, 1, down.stderr)
        assert.isBelow(down.results[0]?.milliseconds ?? Number.NaN, 1_700)
        const given = ["--deadline", "1h", "--max-outage", "1s", "--max-attempts", "100", "--concurrency", "1"]
        const outage = yield* asked({ turns: [Turn.status(503)] }, ...given)
        assert.strictEqual(outage.code, 3, outage.stderr)
      }),
    30_000
  )
})
