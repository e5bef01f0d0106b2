import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import type * as Turn from "@sluice/ai/testing/Turn"
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import * as Process from "../support/command.ts"
import { lines, write } from "../support/files.ts"
import { over } from "../support/gateway.ts"
import { says } from "../support/provider.ts"

/** Runs `sluice batch` in a folder, to its end. */
export const batch = (directory: string, ...args: ReadonlyArray<string>) =>
  Effect.promise(() => Process.run(["batch", ...args], {}, directory))

/** The status of a batch, as a program reads it. */
export const statusOf = (directory: string, id: string) =>
  Effect.map(
    batch(directory, "status", id, "--json"),
    ({ stdout }): { readonly [field: string]: unknown } => JSON.parse(stdout)
  )

/** Submits prompts with the ids `p1`, `p2` and so on, and returns the id of the batch. */
export const submitted = (directory: string, count: number, ...args: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    write(join(directory, "prompts.jsonl"), lines(count))
    const { code, stderr, stdout } = yield* batch(directory, "submit", "prompts.jsonl", "--model", "m", ...args)
    assert.strictEqual(code, 0, stderr)
    return stdout.trim()
  })

/** Answers requests in one way, and says when so many have come. */
export const counting = (turn: () => Turn.Turn) =>
  Effect.gen(function*() {
    let come = 0
    const provider = yield* LoopbackProvider.make({
      turns: () => {
        come++
        return turn()
      }
    })
    const begun = (count: number) =>
      Effect.gen(function*() {
        for (let tries = 0; tries < 6_000; tries++) {
          if (come >= count) return
          yield* Effect.sleep(5)
        }
        assert.fail(`${come} of ${count} requests have come`)
      })
    return { provider, begun, come: () => come }
  })

/** Starts a worker over the targets `a`, `b` and so on, and waits until it works. Kills it with the scope. */
export const worker = (
  directory: string,
  providers: ReadonlyArray<LoopbackProvider.LoopbackProvider["Service"]>,
  ...args: ReadonlyArray<string>
) =>
  Effect.gen(function*() {
    const targets = over(...providers)
    const command = yield* Effect.acquireRelease(
      Effect.sync(() => Process.start(["batch", "work", ...targets.args, ...args], targets.env, directory)),
      ({ process }) => Effect.sync(() => process.kill("SIGKILL"))
    )
    yield* says(command, "\"event\":\"started\"")
    return command
  })

/** Waits until a batch has ended, and returns the results as lines. */
export const ended = (directory: string, id: string, ...args: ReadonlyArray<string>) =>
  Effect.map(
    batch(directory, "results", id, "--follow", ...args),
    ({ code, stderr, stdout }) => {
      assert.include([0, 1], code, stderr)
      return stdout.trim().split("\n").map((line): { readonly [field: string]: unknown } => JSON.parse(line))
    }
  )
