import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Process from "../support/command.ts"
import { lines, resultsIn } from "../support/files.ts"
import { chatAnswer, httpServer } from "../support/httpServer.ts"
import { filesOf, run } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const canary = "hdr-canary-93c4d554f1d0a7be"
const flagsOf = (url: string) => ["--url", url, "--model", "rules", "--no-stream"]

describe("--header", { timeout: processTimeout }, () => {
  it.live("sends headers, with values from the environment, and `sluice retry` sends them again", () =>
    Effect.gen(function*() {
      const { prompts, results } = yield* filesOf(lines(1))
      let status = 400
      const server = yield* httpServer(() => status === 400 ? { status, json: { error: {} } } : { json: chatAnswer })
      const headers = ["--header", "X-Team=search", "--header", "X-Api-Key=Bearer ${MINE}"]
      const ended = yield* run(
        [prompts, "-o", results, ...flagsOf(server.url), "--header", "X-Api-Key=Bearer ${MINE}"],
        {
          MINE: canary
        }
      )
      assert.strictEqual(ended.code, 1, ended.stderr)
      assert.strictEqual(server.headers[0]?.["x-api-key"], `Bearer ${canary}`)
      status = 200
      const again = yield* Effect.promise(() => Process.run(["retry", results], { MINE: canary }))
      assert.strictEqual(again.code, 0, again.stderr)
      assert.strictEqual(server.headers[1]?.["x-api-key"], `Bearer ${canary}`)
      const both = yield* run([prompts, "-o", results, "--force", ...flagsOf(server.url), ...headers], { MINE: canary })
      assert.strictEqual(both.code, 0, both.stderr)
      assert.strictEqual(server.headers[2]?.["x-team"], "search")
    }))

  it.live("a value is shown nowhere: not in errors, results, the printed command or the file of flags", () =>
    Effect.gen(function*() {
      const { prompts, results } = yield* filesOf(lines(2))
      const server = yield* httpServer(({ messages }) =>
        JSON.stringify(messages).includes("Question 1")
          ? { json: chatAnswer }
          : { status: 400, json: { error: { message: `the header ${canary} is not liked` } } }
      )
      const ended = yield* run([prompts, "-o", results, ...flagsOf(server.url), "--header", `X-Api-Key=${canary}`], {})
      assert.strictEqual(ended.code, 1, ended.stderr)
      assert.strictEqual(server.headers[0]?.["x-api-key"], canary)
      assert.include(readFileSync(results, "utf8"), "is not liked")
      for (const file of [results, `${results}.run`]) assert.notInclude(readFileSync(file, "utf8"), canary)
      const retried = yield* Effect.promise(() => Process.run(["retry", results]))
      Process.refused(retried, "--header of the run has a secret", "use --header again")
      const refused = yield* run([
        prompts,
        "-o",
        results,
        "--header",
        `host=${canary}`,
        ...flagsOf(server.url),
        "--force"
      ], {})
      Process.refused(refused, "--header host: [masked] must not frame or route the request")
      assert.notInclude(ended.stderr + retried.stderr + refused.stderr, canary)
    }))
})

describe("--omit", { timeout: processTimeout }, () => {
  it.live("leaves fields out of every request", () =>
    Effect.gen(function*() {
      const { prompts, results } = yield* filesOf([`{"prompt":"a","seed":7,"top_p":0.5}`])
      const server = yield* httpServer(() => ({ json: chatAnswer }))
      const flags = [...flagsOf(server.url), "--temperature", "0", "--omit", "temperature", "--omit", "seed"]
      const { code, stderr } = yield* run([prompts, "-o", results, ...flags], {})
      assert.strictEqual(code, 0, stderr)
      assert.deepStrictEqual(Object.keys(server.bodies[0] ?? {}).sort(), ["messages", "model", "stream", "top_p"])
      const wrong = yield* run([prompts, "-o", results, "--force", ...flagsOf(server.url), "--omit", "messages"], {})
      Process.refused(wrong, "--omit messages must not be a field that every request needs")
    }))
})

describe("--system-file", { timeout: processTimeout }, () => {
  it.live("is the system message, without its last line end, and a changed file is another request", () =>
    Effect.gen(function*() {
      const { directory, prompts, results } = yield* filesOf(lines(1))
      const server = yield* httpServer(() => ({ json: chatAnswer }))
      const file = join(directory, "system.txt")
      writeFileSync(file, "\uFEFFBe brief.\nBe kind.\n")
      const args = [prompts, "-o", results, ...flagsOf(server.url), "--system-file", file]
      const { code, stderr } = yield* run(args, {})
      assert.strictEqual(code, 0, stderr)
      assert.deepStrictEqual(server.bodies[0]?.["messages"], [
        { role: "system", content: "Be brief.\nBe kind." },
        { role: "user", content: "Question 1" }
      ])
      assert.strictEqual((yield* run([...args, "--resume"], {})).code, 0)
      writeFileSync(file, "Be long.\n")
      Process.refused(
        yield* run([...args, "--resume"], {}),
        "line 1 (id p1) of the input is not the prompt that was sent"
      )
      const other = [prompts, "-o", results, ...flagsOf(server.url), "--resume", "--omit", "stop"]
      Process.refused(yield* run(other, {}), "Flags that differ from those of the run: --system-file, --omit")
      assert.strictEqual(resultsIn(results).length, 1)
      assert.strictEqual(server.bodies.length, 1)
    }))
})
