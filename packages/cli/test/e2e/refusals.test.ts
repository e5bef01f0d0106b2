import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Ended } from "../support/command.ts"
import { folder, lines, resultsIn, resultsOf, write } from "./support/files.ts"
import { environment, run, start } from "./support/provider.ts"

const concurrency = 16

/** One line that says all of this, and nothing else. */
const complains = ({ code, stderr, stdout }: Ended, ...parts: ReadonlyArray<string>): void => {
  assert.strictEqual(code, 2, stderr)
  assert.strictEqual(stdout, "")
  assert.match(stderr, /^sluice[^\n]*\n$/)
  for (const part of parts) assert.include(stderr, part)
}

/** A provider, and a file with more lines than there are calls at once. */
const provided = (options?: LoopbackProvider.Options) =>
  Effect.gen(function*() {
    const provider = yield* LoopbackProvider.make(options)
    const directory = yield* folder
    const prompts = write(join(directory, "prompts.jsonl"), lines(200))
    return { provider, prompts, results: join(directory, "results.jsonl"), directory }
  })

describe("lines that are no prompts", () => {
  it.live("fail one by one under their numbers, and the others are answered", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make()
      const directory = yield* folder
      const long = `{"id":"long","prompt":"${"x".repeat(2 ** 20)}"}`
      const prompts = write(join(directory, "prompts.jsonl"), [
        `{"id":"a","prompt":"First"}`,
        `{"prompt":"half of a`,
        "",
        `{"id":"none"}`,
        long,
        `{"id":"b","prompt":"Last"}`
      ])
      const results = join(directory, "results.jsonl")
      const { code, stderr } = yield* run([prompts, "-o", results], environment(provider))
      assert.strictEqual(code, 1, stderr)
      const written = [...resultsIn(results)].sort((a, b) => a.line - b.line)
      assert.deepStrictEqual(
        written.map(({ id, line, status }) => [line, status, id]),
        [[1, "ok", "a"], [2, "failed", undefined], [4, "failed", "none"], [5, "failed", undefined], [6, "ok", "b"]]
      )
      const errors = written.flatMap((result) => result.status === "failed" ? [result.error] : [])
      assert.deepStrictEqual(errors.map(({ tag }) => tag), ["MalformedLine", "MalformedLine", "MalformedLine"])
      assert.include(errors[2]?.message, "1048576 are allowed")
      assert.strictEqual((yield* provider.journal).length, 2)
      assert.include(stderr, "  answered    2\n")
      assert.include(stderr, "  failed      3\n")
    }), 30_000)

  it.live("that the provider refuses fail too, with what it said", () =>
    Effect.gen(function*() {
      const { prompts, provider, results } = yield* provided({
        answer: ({ prompt }) =>
          prompt === "Question 3"
            ? Effect.fail(new LoopbackProvider.AnswerError({ status: 400, message: "not this one" }))
            : Effect.succeed({ text: "fine" })
      })
      const { code, stderr } = yield* run([prompts, "-o", results], environment(provider))
      assert.strictEqual(code, 1, stderr)
      const failed = resultsIn(results).filter(({ status }) => status === "failed")
      assert.deepStrictEqual(failed.map(({ attempts, line }) => [line, attempts]), [[3, 1]])
      assert.include(JSON.stringify(failed), "not this one")
      assert.strictEqual((yield* provider.journal).length, 200)
    }), 30_000)
})

describe("a run that cannot begin", () => {
  it.live("for its files: says so in one line, and calls nobody", () =>
    Effect.gen(function*() {
      const { directory, prompts, provider, results } = yield* provided()
      const env = environment(provider)
      complains(yield* run([join(directory, "missing.jsonl"), "-o", results], env), "missing.jsonl", "no such file")
      complains(yield* run([prompts, "-o", join(prompts, "x.jsonl")], env), "a part of the path is no directory")
      writeFileSync(results, "mine\n")
      complains(yield* run([prompts, "-o", results], env), "it exists; --force replaces it")
      assert.strictEqual(readFileSync(results, "utf8"), "mine\n")
      complains(yield* run([prompts, "-o", results, "--concurrency", "none"], env), "--concurrency")
      assert.deepStrictEqual(yield* provider.journal, [])
    }), 30_000)

  it.live("for its URL: says so in one line", () =>
    Effect.gen(function*() {
      const { prompts, provider, results } = yield* provided()
      const gone = yield* Effect.scoped(LoopbackProvider.make())
      const env = environment(provider)
      const runAt = (url: string) => run([prompts, "-o", results, "--url", url], env)
      complains(yield* runAt(gone.url), `cannot reach ${gone.url}`)
      complains(yield* runAt(`${provider.url}/elsewhere`), "is no such API")
      complains(yield* runAt("http://user:secret@127.0.0.1/v1"), "--url")
      complains(yield* runAt("http://192.0.2.1/v1"), "--allow-insecure-key")
      assert.deepStrictEqual(yield* provider.journal, [])
      assert.isFalse(existsSync(results))
    }), 30_000)

  it.live(
    "for its key or its model: says so in one line, after one round of calls at most",
    () =>
      Effect.gen(function*() {
        const { prompts, provider, results } = yield* provided({ models: ["rules"] })
        const env = environment(provider)
        const attempt = Effect.fnUntraced(function*(args: ReadonlyArray<string>, env: Record<string, string>) {
          yield* provider.clear
          const ended = yield* run([prompts, "-o", results, ...args], env)
          assert.isAtMost((yield* provider.journal).length, concurrency)
          assert.isFalse(existsSync(results))
          return ended
        })
        complains(
          yield* attempt([], { ...env, OPENAI_API_KEY: "another-key" }),
          "the key from OPENAI_API_KEY was refused"
        )
        complains(
          yield* attempt([], { ...env, OPENAI_API_KEY: "two words" }),
          "the key from OPENAI_API_KEY must be visible ASCII"
        )
        const { OPENAI_API_KEY: _, ...keyless } = env
        complains(yield* attempt([], keyless), "wants a key: set OPENAI_API_KEY")
        complains(yield* attempt(["--model", "ruls"], env), "has no such model", "ruls")
      }),
    30_000
  )
})

describe("an output that takes no more", () => {
  it.live.skipIf(!existsSync("/dev/full"))("ends the run with one line", () =>
    Effect.gen(function*() {
      const { prompts, provider } = yield* provided()
      const ended = yield* run([prompts, "-o", "/dev/full"], environment(provider))
      complains(ended, "/dev/full", "the disk is full")
      assert.isAtMost((yield* provider.journal).length, 2 * concurrency)
    }), 30_000)

  it.live("because its reader went away: ends the run, and tells nobody", () =>
    Effect.gen(function*() {
      const { prompts, provider } = yield* provided({ pace: { firstTokenMillis: 50 } })
      const command = yield* start([prompts, "--quiet"], environment(provider))
      const first = yield* Effect.promise(() => command.says("\n"))
      assert.isAbove(resultsOf(first).length, 0)
      command.process.stdout.destroy()
      const { code, stderr } = yield* Effect.promise(() => command.ended)
      assert.deepStrictEqual([code, stderr], [141, ""])
      assert.isBelow((yield* provider.journal).length, 200)
    }), 30_000)
})
