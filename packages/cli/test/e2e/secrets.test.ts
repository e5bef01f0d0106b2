import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Redacted } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { lines, resultsIn } from "../support/files.ts"
import { chatAnswer, httpServer } from "../support/httpServer.ts"
import { run, setUp } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const canary = "sk-canary-4f1d0a7be93c4d55"

/** Runs prompts and asserts that neither the output nor the results contain the key. */
const ranWith = Effect.fnUntraced(function*(answer: LoopbackProvider.Answer, args: ReadonlyArray<string> = []) {
  const { env, prompts, provider, results } = yield* setUp(lines(20), { apiKey: Redacted.make(canary), answer })
  const ended = yield* run([prompts, "-o", results, ...args], env)
  const written = existsSync(results) ? readFileSync(results, "utf8") : ""
  assert.notInclude(ended.stdout + ended.stderr + written, canary)
  assert.isAbove((yield* provider.journal).length, 0)
  return { ...ended, written }
})

const refuse = (status: number) =>
  Effect.fail(new LoopbackProvider.AnswerError({ status, message: `your key ${canary} is not liked` }))

describe("masking of the key", { timeout: processTimeout }, () => {
  it.live("an answer and an id are not altered, also if they contain the key", () =>
    Effect.gen(function*() {
      for (const key of [canary, "ollama"]) {
        const { env, prompts, results } = yield* setUp([JSON.stringify({ id: `id ${key}`, prompt: `say ${key}` })], {
          apiKey: Redacted.make(key),
          answer: ({ prompt }) => Effect.succeed({ text: `You said ${prompt}.` })
        })
        const { code, stderr } = yield* run([prompts, "-o", results], env)
        assert.strictEqual(code, 0, stderr)
        const [result] = resultsIn(results)
        assert.deepInclude(result, { id: `id ${key}`, text: `You said say ${key}.` })
      }
    }))

  it.live("the key is masked in the error of a prompt that repeats it", () =>
    Effect.gen(function*() {
      const { code, written } = yield* ranWith(({ prompt }) =>
        prompt === "Question 1" ? Effect.succeed({ text: "fine" }) : refuse(prompt === "Question 2" ? 503 : 400), [
        "--max-attempts",
        "2"
      ])
      assert.strictEqual(code, 1)
      assert.include(written, "is not liked")
    }))

  it.live("the key is masked in the error of the run that repeats it", () =>
    Effect.gen(function*() {
      for (const status of [401, 403, 404]) {
        const { code, stderr } = yield* ranWith(() => refuse(status))
        assert.strictEqual(code, 2, stderr)
        assert.match(stderr, /^sluice run: [^\n]*\n$/)
      }
    }))
})

describe("secrets in a URL", { timeout: processTimeout }, () => {
  it.live("appear in no error, result, record or report, also if the provider repeats them", () =>
    Effect.gen(function*() {
      for (const status of [400, 404]) {
        const { directory, prompts, results } = yield* setUp(lines(3))
        const error = { message: `/v1?key=${canary} and ${canary} are not liked`, type: "invalid_request_error" }
        const server = yield* httpServer(({ messages }) =>
          status === 400 && JSON.stringify(messages).includes("Question 1")
            ? { json: chatAnswer }
            : { status, json: { error } }
        )
        const [log, report] = [join(directory, "calls.jsonl"), join(directory, "report.html")]
        const flags = ["--url", `${server.url}?api-version=1&key=${canary}`, "--model", "rules", "--no-stream"]
        const ended = yield* run([prompts, "-o", results, ...flags, "--log", log, "--report", report], {})
        assert.strictEqual(ended.code, status === 400 ? 1 : 2, ended.stderr)
        assert.include(ended.stderr, "not liked")
        assert.include(server.paths[0], `key=${canary}`)
        const files = [results, log, report].filter((path) => existsSync(path)).map((path) =>
          readFileSync(path, "utf8")
        )
        assert.lengthOf(files, status === 400 ? 3 : 0)
        assert.notInclude([ended.stdout, ended.stderr, ...files].join(""), canary)
      }
    }))

  it.live("appear in no error of a provider that cannot be reached, and in no usage error", () =>
    Effect.gen(function*() {
      const { env, prompts, results } = yield* setUp(lines(1))
      const stopped = yield* Effect.scoped(LoopbackProvider.make())
      for (
        const args of [
          ["--url", `${stopped.url}?key=${canary}`],
          ["--url", `http://me:${canary}@127.0.0.1/v1`],
          ["--target", `a=http://me:${canary}@127.0.0.1/v1#m`],
          ["--target", `a=http://192.0.2.1/v1?sig=${canary}#m`]
        ]
      ) {
        const { code, stderr, stdout } = yield* run([prompts, "-o", results, ...args], {
          ...env,
          SLUICE_KEY_A: "a-key-of-the-test"
        })
        assert.strictEqual(code, 2, stderr)
        assert.notInclude(stdout + stderr, canary)
        assert.notInclude(stderr, "canary")
      }
    }))
})
