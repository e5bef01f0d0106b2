import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Effect, Redacted } from "effect"
import { existsSync, readFileSync } from "node:fs"
import type { Answered } from "../../src/run/Result.ts"
import { allAnswered, lines, resultsIn } from "../support/files.ts"
import type { Provider } from "../support/provider.ts"
import { filesOf, run, setUp } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

/** Two providers, the second in Anthropic's format, the flags and keys of a command for both, and its files. */
const setUpTwo = Effect.fnUntraced(function*(lines: ReadonlyArray<string>, first: LoopbackProvider.Options = {}) {
  const one = yield* LoopbackProvider.make(first)
  const two = yield* LoopbackProvider.make()
  return {
    one,
    two,
    ...yield* filesOf(lines),
    args: ["--target", `one=${one.url}#small`, "--target", `two=anthropic:${two.origin}#large`],
    env: { SLUICE_KEY_ONE: keyOf(one), SLUICE_KEY_TWO: keyOf(two) }
  }
})

const keyOf = ({ apiKey }: Provider): string => apiKey === undefined ? "" : Redacted.value(apiKey)

/** Reads the answered results in a file, in the order of their lines. */
const answersIn = (path: string): ReadonlyArray<Answered> =>
  resultsIn(path)
    .flatMap((result) => result.status === "ok" ? [result] : [])
    .sort((a, b) => a.line - b.line)

describe("sluice run with two targets", { timeout: processTimeout }, () => {
  it.live(
    "the second target answers while the first is down, each called with its own key and format",
    () =>
      Effect.gen(function*() {
        const { args, env, one, prompts, results, two } = yield* setUpTwo(lines(100))
        yield* one.down
        const flags = ["--concurrency", "16", "--max-outage", "1s"]
        const { code, stderr } = yield* run([prompts, "-o", results, ...flags, ...args], env)

        assert.strictEqual(code, 0, stderr)
        allAnswered(resultsIn(results), 100)
        for (const { attempts, finish, model, target, text, usage } of answersIn(results)) {
          assert.deepStrictEqual([target, model, finish], ["two", "large", "stop"])
          assert.match(text, /^Loopback echo: Question \d+$/)
          // A prompt that finds all permits of the second target in use tries the first once more.
          assert.isAtMost(attempts, 3)
          assert.hasAllKeys(usage, ["inputTokens", "outputTokens"])
        }
        const [first, second] = [yield* one.journal, yield* two.journal]
        assert.strictEqual(second.length, 100)
        // The circuit opened after a few failures and admitted a probe per second.
        assert.isBelow(first.length, 40)
        assert.isTrue(first.every(({ status }) => status === 503))
        assert.isTrue(second.every(({ status, wire }) => status === 200 && wire === "anthropic"))
        // Attempts at both targets are counted together.
        assert.isTrue(second.some(({ attempt }) => attempt === 2))
      })
  )

  it.live("a first-token timeout and an idle timeout fall back to the second target and are counted by reason", () =>
    Effect.gen(function*() {
      const { args, env, one, prompts, results } = yield* setUpTwo(lines(2), {
        turns: ({ prompt }) => prompt === "Question 1" ? Turn.hang({ headers: true }) : Turn.stall({ afterTokens: 2 })
      })
      const limits = ["--first-token-timeout", "300ms", "--idle-timeout", "300ms"]
      const { code, millis, stderr } = yield* run([prompts, "-o", results, ...limits, ...args], env)

      assert.strictEqual(code, 0, stderr)
      // Less than the default timeouts, with the time of a busy machine to start the command.
      assert.isBelow(millis, 30_000)
      assert.deepStrictEqual(
        answersIn(results).map(({ attempts, target, text }) => [attempts, target, text]),
        [[2, "two", "Loopback echo: Question 1"], [2, "two", "Loopback echo: Question 2"]]
      )
      assert.include(stderr, "no first token: 1")
      assert.include(stderr, "idle timeout: 1")
      for (const { ending } of yield* one.journal) assert.strictEqual(ending, "clientClosed")
    }))

  it.live("the second target answers if the first refuses its key, and the summary says so", () =>
    Effect.gen(function*() {
      const { args, env, one, prompts, results } = yield* setUpTwo(lines(40))
      const wrong = { ...env, SLUICE_KEY_ONE: "a-wrong-key" }
      const { code, stderr } = yield* run([prompts, "-o", results, "--concurrency", "4", ...args], wrong)
      assert.strictEqual(code, 0, stderr)
      allAnswered(resultsIn(results), 40)
      assert.match(stderr, / {2}unusable {9}one: the key from SLUICE_KEY_ONE was refused/)
      // No further request is made with the refused key.
      assert.isAtMost((yield* one.journal).length, 4)
    }))

  it.live("the run stops with one line and leaves no file if no target is usable", () =>
    Effect.gen(function*() {
      const { args, directory, prompts, results } = yield* setUpTwo(lines(40))
      const [log, page] = [`${directory}/calls.jsonl`, `${directory}/page.html`]
      const wrong = { SLUICE_KEY_ONE: "a-wrong-key", SLUICE_KEY_TWO: "another-one" }
      const { code, stderr, stdout } = yield* run(
        [prompts, "-o", results, "--log", log, "--report", page, ...args],
        wrong
      )
      assert.deepStrictEqual([code, stdout], [2, ""], stderr)
      assert.match(
        stderr,
        /^sluice run: no target is usable: one: [^\n]*SLUICE_KEY_ONE[^\n]*two: [^\n]*SLUICE_KEY_TWO[^\n]*\n$/
      )
      for (const path of [results, log, page]) assert.isFalse(existsSync(path), path)
    }))

  it.live(
    "a key that is refused from the second answer on is asked again and then stops the run with exit code 2",
    () =>
      Effect.gen(function*() {
        const { prompts, provider, results } = yield* setUp(lines(6), {
          turns: [Turn.answer("fine"), Turn.refusal("key")]
        })
        const args = [prompts, "-o", results, "--concurrency", "1", "--target", `main=${provider.url}#m`]
        const { code, stderr } = yield* run(args, { SLUICE_KEY_MAIN: keyOf(provider) })
        assert.strictEqual(code, 2, stderr)
        assert.match(
          stderr,
          /\n {2}answered {9}1\n[^]*\nsluice run: the key from SLUICE_KEY_MAIN was refused: [^\n]*\nTo go on:\n[^\n]* --resume [^\n]*\n$/
        )
        const written = [...resultsIn(results)].sort((a, b) => a.line - b.line)
        assert.deepStrictEqual(written.map(({ line, status }) => [line, status]), [
          [1, "ok"],
          ...[2, 3, 4, 5, 6].map((line) => [line, "failed"])
        ])
        assert.isAtMost((yield* provider.journal).length, 10)
      })
  )

  it.live("a target whose format lacks a field of the prompt is not called", () =>
    Effect.gen(function*() {
      const body = (fields: object) => ({ model: "m", messages: [{ role: "user", content: "Hello" }], ...fields })
      const { args, env, one, prompts, results, two } = yield* setUpTwo([
        JSON.stringify({ custom_id: "seed", body: body({ seed: 7 }) }),
        JSON.stringify({ custom_id: "stop", body: body({ stop: "END", top_p: 0.5 }) })
      ])
      yield* one.down
      const { code } = yield* run([prompts, "-o", results, "--max-attempts", "2", ...args], env)
      assert.strictEqual(code, 1)
      assert.deepStrictEqual(answersIn(results).map(({ id, model, target }) => [id, target, model]), [[
        "stop",
        "two",
        "m"
      ]])
      assert.strictEqual((yield* two.journal).length, 1)
    }))
})

describe("the answer to a prompt", { timeout: processTimeout }, () => {
  const runOne = Effect.fnUntraced(function*(options: LoopbackProvider.Options, ...flags: ReadonlyArray<string>) {
    const { prompts, provider, results } = yield* setUp(lines(1), { apiKey: false, ...options })
    const ended = yield* run([prompts, "-o", results, "--target", `main=${provider.url}#m`, ...flags], {})
    return { ...ended, journal: yield* provider.journal, results: existsSync(results) ? resultsIn(results) : [] }
  })

  it.live("an answer cut by its token limit or a filter is reported as incomplete", () =>
    Effect.gen(function*() {
      for (const finish of ["length", "content-filter"] as const) {
        const { code, results, stderr } = yield* runOne({ turns: [Turn.answer("Half of", { finish })] })
        assert.strictEqual(code, 0, stderr)
        assert.deepInclude(results[0], { status: "ok", text: "Half of", finish })
        assert.match(stderr, / {2}incomplete {7}cut by /)
      }
    }))

  it.live("tokens are estimated and marked if the provider reports no usage", () =>
    Effect.gen(function*() {
      const { results, stderr } = yield* runOne({ turns: [Turn.answer("x".repeat(40), { usage: "none" })] })
      const [result] = results
      assert.deepStrictEqual(
        result?.status === "ok" ? result.usage : undefined,
        { inputTokens: 3, outputTokens: 10, estimated: true }
      )
      assert.include(stderr, "3 in, 10 out, partly estimated")
    }))

  it.live("an empty answer is requested once more and then fails", () =>
    Effect.gen(function*() {
      const { code, journal, results, stderr } = yield* runOne({ turns: [Turn.empty()] })
      assert.strictEqual(code, 1, stderr)
      assert.strictEqual(journal.length, 2)
      assert.strictEqual(results[0]?.status === "failed" && results[0].error.tag, "EmptyAnswer")
      const { results: second } = yield* runOne({ turns: [Turn.empty(), Turn.answer("there")] })
      assert.deepInclude(second[0], { status: "ok", text: "there", attempts: 2 })
    }))

  it.live("a truncated answer is restarted, and contains no partial output", () =>
    Effect.gen(function*() {
      const turns = [Turn.cut({ content: "first half gone", afterTokens: 2 }), Turn.answer("second and whole")]
      const { results } = yield* runOne({ turns })
      assert.deepInclude(results[0], { status: "ok", text: "second and whole", attempts: 2 })
    }))

  it.live("--no-stream has the same result as a stream", () =>
    Effect.gen(function*() {
      const streamed = yield* runOne({})
      const whole = yield* runOne({}, "--no-stream")
      assert.deepStrictEqual([streamed.journal[0]?.stream, whole.journal[0]?.stream], [true, false])
      const { milliseconds: _, ...expected } = streamed.results[0] ?? assert.fail("no result")
      assert.deepInclude(whole.results[0], expected)
    }))

  it.live(
    "a deadline fails a prompt whose provider is silent or down, and does not delay --max-outage",
    () =>
      Effect.gen(function*() {
        const silent = yield* runOne({ turns: [Turn.hang()] }, "--deadline", "600ms")
        assert.strictEqual(silent.code, 1, silent.stderr)
        // Less than --timeout, with the time of a busy machine to start the command.
        assert.isBelow(silent.millis, 30_000)
        assert.strictEqual(silent.results[0]?.status === "failed" && silent.results[0].error.tag, "DeadlineExceeded")
        assert.include(JSON.stringify(silent.results), "raise --deadline")
        // Five failures open the circuit, and the deadline ends the wait for it.
        const { prompts, provider, results } = yield* setUp(lines(20), { apiKey: false, turns: [Turn.status(503)] })
        const target = ["--target", `main=${provider.url}#m`]
        const [limits, log] = [["--deadline", "1500ms", "--concurrency", "5"], `${results}.log`]
        const down = yield* run([prompts, "-o", results, "--log", log, ...target, ...limits], {})
        assert.strictEqual(down.code, 1, down.stderr)
        assert.include(readFileSync(log, "utf8"), `"why":"CircuitOpen"`)
        for (const { milliseconds } of resultsIn(results)) assert.isBelow(milliseconds, 15_000)
        const flags = ["--deadline", "1h", "--max-outage", "1s", "--max-attempts", "100", "--concurrency", "1"]
        const outage = yield* runOne({ turns: [Turn.status(503)] }, ...flags)
        assert.strictEqual(outage.code, 3, outage.stderr)
      })
  )
})
