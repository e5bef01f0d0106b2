/**
 * The mutants: patches that each break one thing, and the tests that are to notice.
 *
 * A patch begins with two lines, then comes a unified diff:
 *
 * ```
 * Breaks: a nested deadline may extend the outer one
 * Caught by: packages/core/test/Deadline.test.ts
 * ```
 */
import { globSync, readFileSync } from "node:fs"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"

export const root: string = fileURLToPath(new URL("../..", import.meta.url))

export interface Mutant {
  readonly name: string
  readonly breaks: string
  /** Files of tests, relative to the repository. */
  readonly caughtBy: ReadonlyArray<string>
  /** The sources that it changes, relative to the repository. */
  readonly changes: ReadonlyArray<string>
  /** Where the patch is. */
  readonly path: string
}

const readMutant = (path: string): Mutant => {
  const text = readFileSync(path, "utf8")
  const line = (title: string): string => new RegExp(`^${title}: *(.+)$`, "m").exec(text)?.[1] ?? ""
  return {
    name: basename(path, ".patch"),
    breaks: line("Breaks"),
    caughtBy: line("Caught by").split(" ").filter((file) => file !== ""),
    changes: [...text.matchAll(/^\+\+\+ b\/(.+)$/gm)].map(([, file = ""]) => file),
    path
  }
}

/** All of them, by name. */
export const mutants: ReadonlyArray<Mutant> = globSync(join(root, "test/mutants/*.patch")).toSorted().map(readMutant)
