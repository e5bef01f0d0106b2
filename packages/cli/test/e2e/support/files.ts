import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Result } from "../../../src/run/Result.ts"

/** A folder for one test, with a space in its name. */
export const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "sluice run "))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** So many lines, all of them different, unless told how many different ones there are. */
export const lines = (count: number, different = count): ReadonlyArray<string> =>
  Array.from(
    { length: count },
    (_, index) => JSON.stringify({ id: `p${index + 1}`, prompt: promptOf(index, different) })
  )

const promptOf = (index: number, different: number): string => `Question ${index % different + 1}`

/** Writes them into a new file, and tells its path. */
export const write = (path: string, content: ReadonlyArray<string>): string => {
  writeFileSync(path, content.map((line) => `${line}\n`).join(""))
  return path
}

/** The results in a file, every line of it whole. */
export const resultsIn = (path: string): ReadonlyArray<Result> => resultsOf(readFileSync(path, "utf8"))

/** The results that this text is, every line of it whole. */
export const resultsOf = (text: string): ReadonlyArray<Result> => {
  if (text === "") return []
  assert.isTrue(text.endsWith("\n"), "the last line is not whole")
  // What the command writes down is what is tested here.
  return text.trimEnd().split("\n").map((line): Result => JSON.parse(line))
}

/** Every line was answered, just once. */
export const allAnswered = (results: ReadonlyArray<Result>, count: number): void => {
  assert.deepStrictEqual(results.filter(({ status }) => status !== "ok"), [])
  assert.deepStrictEqual(
    results.map(({ line }) => line).sort((a, b) => a - b),
    Array.from({ length: count }, (_, index) => index + 1)
  )
}
