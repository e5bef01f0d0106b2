import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { limited, refused } from "../support/command.ts"
import { lines, resultsIn, resultsOf } from "../support/files.ts"
import { run, setUp, start } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const concurrency = 16

/** Several times as many prompts as concurrent calls. */
const manyLines = lines(200)

describe("single prompts that fail", { timeout: processTimeout }, () => {
  it.live("malformed lines fail with their line numbers, and the other prompts are answered", () =>
    Effect.gen(function*() {
      const long = `{"id":"long","prompt":"${"x".repeat(8 * 2 ** 20)}"}`
      const { env, prompts, provider, results } = yield* setUp([
        `{"id":"a","prompt":"First"}`,
        `{"prompt":"half of a`,
        "",
        `{"id":"none"}`,
        long,
        `{"id":"b","prompt":"Last"}`
      ])
      const { code, stderr } = yield* run([prompts, "-o", results], env)
      assert.strictEqual(code, 1, stderr)
      const written = [...resultsIn(results)].sort((a, b) => a.line - b.line)
      assert.deepStrictEqual(
        written.map(({ id, line, status }) => [line, status, id]),
        [[1, "ok", "a"], [2, "failed", undefined], [4, "failed", "none"], [5, "failed", undefined], [6, "ok", "b"]]
      )
      const errors = written.flatMap((result) => result.status === "failed" ? [result.error] : [])
      assert.deepStrictEqual(errors.map(({ tag }) => tag), ["MalformedLine", "MalformedLine", "MalformedLine"])
      assert.include(errors[2]?.message, "the limit is 8388608")
      assert.strictEqual((yield* provider.journal).length, 2)
      assert.include(stderr, "  answered         2\n")
      assert.include(stderr, "  failed           3\n")
    }))

  it.live("a prompt that the provider refuses fails with the provider's message", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(manyLines, {
        answer: ({ prompt }) =>
          prompt === "Question 3"
            ? Effect.fail(new LoopbackProvider.AnswerError({ status: 400, message: "not this one" }))
            : Effect.succeed({ text: "fine" })
      })
      const { code, stderr } = yield* run([prompts, "-o", results], env)
      assert.strictEqual(code, 1, stderr)
      const failed = resultsIn(results).filter(({ status }) => status === "failed")
      assert.deepStrictEqual(failed.map(({ attempts, line }) => [line, attempts]), [[3, 1]])
      assert.include(JSON.stringify(failed), "not this one")
      assert.strictEqual((yield* provider.journal).length, 200)
    }))
})

describe("a run that cannot start", { timeout: processTimeout }, () => {
  it.live("unusable files are reported in one line, without a request", () =>
    Effect.gen(function*() {
      const { directory, env, prompts, provider, results } = yield* setUp(manyLines)
      refused(yield* run([join(directory, "missing.jsonl"), "-o", results], env), "missing.jsonl", "no such file")
      refused(yield* run([prompts, "-o", join(prompts, "x.jsonl")], env), "part of the path is not a directory")
      writeFileSync(results, "mine\n")
      refused(
        yield* run([prompts, "-o", results], env),
        "already exists; use --resume to go on with it, or --force to replace it"
      )
      assert.strictEqual(readFileSync(results, "utf8"), "mine\n")
      refused(yield* run([prompts, "-o", results, "--concurrency", "none"], env), "--concurrency")
      assert.deepStrictEqual(yield* provider.journal, [])
    }))

  it.live("an unusable URL is reported in one line", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(manyLines)
      const stopped = yield* Effect.scoped(LoopbackProvider.make())
      const runAt = (url: string) => run([prompts, "-o", results, "--url", url], env)
      refused(yield* runAt(stopped.url), `cannot reach ${stopped.url}`)
      refused(yield* runAt(`${provider.url}/elsewhere`), "no such model or API")
      refused(yield* runAt("http://user:secret@127.0.0.1/v1"), "--url")
      refused(yield* runAt("http://192.0.2.1/v1"), "--allow-insecure-key")
      assert.deepStrictEqual(yield* provider.journal, [])
      assert.isFalse(existsSync(results))
    }))

  it.live(
    "an unusable key or model is reported in one line, after at most one request per concurrent call",
    () =>
      Effect.gen(function*() {
        const { env, prompts, provider, results } = yield* setUp(manyLines, { models: ["rules"] })
        const attempt = Effect.fnUntraced(function*(args: ReadonlyArray<string>, env: Record<string, string>) {
          yield* provider.clear
          const ended = yield* run([prompts, "-o", results, ...args], env)
          assert.isAtMost((yield* provider.journal).length, concurrency)
          assert.isFalse(existsSync(results))
          return ended
        })
        refused(
          yield* attempt([], { ...env, OPENAI_API_KEY: "another-key" }),
          "the key from OPENAI_API_KEY was refused"
        )
        refused(
          yield* attempt([], { ...env, OPENAI_API_KEY: "two words" }),
          "the key from OPENAI_API_KEY must be visible ASCII"
        )
        const { OPENAI_API_KEY: _, ...keyless } = env
        refused(yield* attempt([], keyless), "requires a key: set OPENAI_API_KEY")
        refused(yield* attempt(["--model", "ruls"], env), "no such model or API", "ruls")
      })
  )
})

describe("an output that fails", { timeout: processTimeout }, () => {
  it.live.skipIf(!existsSync("/dev/full"))("a full disk stops the run with one line", () =>
    Effect.gen(function*() {
      const { env, prompts, provider } = yield* setUp(manyLines)
      const ended = yield* run([prompts, "-o", "/dev/full"], env)
      refused(ended, "/dev/full", "the disk is full")
      assert.isAtMost((yield* provider.journal).length, 2 * concurrency)
    }))

  it.live("a disk that is full before the run leaves no file", () =>
    Effect.gen(function*() {
      const { directory, env, prompts, provider, results } = yield* setUp(lines(2))
      refused(yield* limited(["run", prompts, "-o", results], env, 0), "the file is too large")
      assert.deepStrictEqual(readdirSync(directory), ["prompts.jsonl"])
      assert.deepStrictEqual(yield* provider.journal, [])
    }))

  it.live("a disk that is full in the middle of a line leaves whole lines", () =>
    Effect.gen(function*() {
      const { env, prompts, results } = yield* setUp(lines(200), {
        answer: () => Effect.succeed({ text: "x".repeat(999) })
      })
      // A limit on the size of files, in units of 512 or 1,024 bytes, acts like a full disk.
      const ended = yield* limited(["run", prompts, "-o", results], env, 20)
      assert.strictEqual(ended.code, 2, ended.stderr)
      const written = resultsIn(results)
      assert.isAbove(written.length, 0)
      assert.isBelow(written.length, 21)
      assert.include(ended.stderr, `  answered         ${written.length}\n`)
      assert.match(
        ended.stderr,
        /\nsluice run: cannot write [^\n]*: the file is too large for the file system or its limit\nTo go on:\n {2}sluice run [^\n]* --resume\n$/
      )
    }))

  it.live("a reader that closes the pipe stops the run without a message", () =>
    Effect.gen(function*() {
      const { env, prompts, provider } = yield* setUp(manyLines, { pace: { firstTokenMillis: 50 } })
      const command = yield* start([prompts, "--quiet"], env)
      const first = yield* Effect.promise(() => command.says("\n"))
      assert.isAbove(resultsOf(first).length, 0)
      command.process.stdout.destroy()
      const { code, stderr } = yield* Effect.promise(() => command.ended)
      assert.deepStrictEqual([code, stderr], [141, ""])
      assert.isBelow((yield* provider.journal).length, 200)
    }))
})
