import { globSync, readFileSync } from "node:fs"
import { join, sep } from "node:path"

/** A fenced block of TypeScript, in a page or in a comment of a module. */
export interface Snippet {
  /** Relative to the repository. */
  readonly file: string
  /** The line number of its first line. */
  readonly line: number
  readonly code: string
  /** The lines that it has to print: the comments after `// =>`. */
  readonly expected: ReadonlyArray<string>
}

/** The snippets of all files that match the patterns, in the order of the files. */
export const snippetsOf = (root: string, patterns: ReadonlyArray<string>): ReadonlyArray<Snippet> =>
  globSync([...patterns], { cwd: root, exclude: ["**/node_modules/**"] })
    .map((file) => file.split(sep).join("/"))
    .toSorted()
    .flatMap((file) => snippetsIn(file, readFileSync(join(root, file), "utf8")))

/** The snippets of a file. In a `.ts` file they are in comments. */
export const snippetsIn = (file: string, text: string): ReadonlyArray<Snippet> => {
  const snippets: Array<Snippet> = []
  let open: { readonly fence: string; readonly line: number; readonly lines: Array<string> } | undefined
  for (const [index, raw] of text.split("\n").entries()) {
    const line = file.endsWith(".ts") ? fromComment(raw) : raw
    if (open === undefined) {
      const fence = /^\s*(`{3,})(?:ts|typescript)\s*$/.exec(line ?? "")?.[1]
      if (fence !== undefined) open = { fence, line: index + 2, lines: [] }
    } else if (line === undefined || line.trim() === open.fence) {
      const code = open.lines.join("\n")
      snippets.push({ file, line: open.line, code, expected: expectedOf(code) })
      open = undefined
    } else {
      open.lines.push(line)
    }
  }
  if (open !== undefined) throw new Error(`${file}:${open.line}: the block is not closed`)
  return snippets
}

const fromComment = (line: string): string | undefined => /^\s*\*(?!\/) ?(.*)$/.exec(line)?.[1]

const expectedOf = (code: string): ReadonlyArray<string> =>
  code.split("\n").flatMap((line) => /\/\/ => ?(.*)$/.exec(line)?.[1] ?? [])
