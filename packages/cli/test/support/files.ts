import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Result } from "../../src/run/Result.ts"

/** A temporary folder with a space in its name. Deleted with the scope. */
export const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "sluice test "))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** Lines of prompts. They cycle through `different` prompts. */
export const lines = (count: number, different = count): ReadonlyArray<string> =>
  Array.from(
    { length: count },
    (_, index) => JSON.stringify({ id: `p${index + 1}`, prompt: `Question ${index % different + 1}` })
  )

/** Writes lines to a file and returns its path. */
export const write = (path: string, content: ReadonlyArray<string>): string => {
  writeFileSync(path, content.map((line) => `${line}\n`).join(""))
  return path
}

/** Reads the results in a file. Fails if its last line is incomplete. */
export const resultsIn = (path: string): ReadonlyArray<Result> => resultsOf(readFileSync(path, "utf8"))

/** Parses results. Fails if the last line is incomplete. */
export const resultsOf = (text: string): ReadonlyArray<Result> => {
  if (text === "") return []
  assert.isTrue(text.endsWith("\n"), "the last line is incomplete")
  return text.trimEnd().split("\n").map((line): Result => JSON.parse(line))
}

/** Asserts that every line from 1 to `count` was answered exactly once. */
export const allAnswered = (results: ReadonlyArray<Result>, count: number): void => {
  assert.deepStrictEqual(results.filter(({ status }) => status !== "ok"), [])
  assert.deepStrictEqual(
    results.map(({ line }) => line).sort((a, b) => a - b),
    Array.from({ length: count }, (_, index) => index + 1)
  )
}
