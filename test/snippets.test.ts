import { assert, beforeAll, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { basename, join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { type Snippet, snippetsIn, snippetsOf } from "./support/snippets.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const snippets = snippetsOf(root, ["*.md", "docs/**/*.md", "packages/*/README.md", "packages/*/src/**/*.ts"])

/** What became of a snippet: the complaints of the compiler, and what it did when it ran. */
interface Verdict {
  readonly complaints: ReadonlyArray<string>
  readonly printed: ReadonlyArray<string>
  readonly error: string | undefined
}

describe("every snippet of the documentation compiles, runs, and prints what it says", () => {
  let verdicts: ReadonlyMap<Snippet, Verdict> = new Map()
  beforeAll(async () => {
    verdicts = await judge(snippets)
  }, 120_000)

  for (const snippet of snippets) {
    it(`${snippet.file}:${snippet.line}`, () => {
      const verdict = verdicts.get(snippet)
      assert.deepStrictEqual(verdict?.complaints, [])
      assert.strictEqual(verdict?.error, undefined)
      if (snippet.promises.length > 0) assert.deepStrictEqual(verdict?.printed, snippet.promises)
    })
  }
})

describe("the check itself", () => {
  it("finds fences in pages and in comments, with their lines and promises", () => {
    const page = ["# Title", "```ts", "console.log(1) // => 1", "```", "```sh", "ls", "```"].join("\n")
    assert.deepStrictEqual(snippetsIn("page.md", page), [
      { file: "page.md", line: 3, code: "console.log(1) // => 1", promises: ["1"] }
    ])
    const module = ["/**", " * ```ts", " * console.log(1)", " * // => 1", " * ```", " */"].join("\n")
    assert.deepStrictEqual(snippetsIn("module.ts", module), [
      { file: "module.ts", line: 3, code: "console.log(1)\n// => 1", promises: ["1"] }
    ])
  })

  it("refuses a fence that is never closed", () => {
    assert.throws(() => snippetsIn("page.md", "```ts\nconst a = 1"), /page\.md:2/)
  })

  it("sees wrong types, a throw and wrong output", { timeout: 60_000 }, async () => {
    const wrong = [
      "```ts",
      "const a: string = 1",
      "```",
      "```ts",
      "throw new Error(\"thrown\")",
      "```",
      "```ts",
      "console.log([2])",
      "```"
    ]
    const found = snippetsIn("wrong.md", wrong.join("\n"))
    const [type, thrown, output] = [...(await judge(found)).values()]
    assert.match(type?.complaints.join() ?? "", /^wrong\.md:2: .*TS2322/)
    assert.match(thrown?.error ?? "", /thrown/)
    assert.deepStrictEqual(output?.printed, ["[ 2 ]"])
  })
})

// Within the repository, so that a snippet finds the packages as a user's file would; on the sources, so that no build is needed.
const judge = async (snippets: ReadonlyArray<Snippet>): Promise<ReadonlyMap<Snippet, Verdict>> => {
  mkdirSync(join(root, "build"), { recursive: true })
  const folder = mkdtempSync(join(root, "build", "snippets-"))
  try {
    const files = snippets.map((snippet, index) => {
      const file = join(folder, `${index}.ts`)
      writeFileSync(file, snippet.code)
      return file
    })
    const [complaints, runs] = await Promise.all([compile(folder), run(files)])
    return new Map(snippets.map((snippet, index) => {
      const name = `${index}.ts`
      const ofThis = complaints.filter((complaint) => complaint.file === name)
      const ran = runs.find((result) => basename(result.file) === name)
      return [snippet, {
        complaints: ofThis.map(({ line, text }) => `${snippet.file}:${snippet.line + line - 1}: ${text}`),
        printed: ran?.printed ?? [],
        error: ran === undefined ? "it did not run: one before it ended the process, or never ended" : ran.error
      }]
    }))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

interface Complaint {
  readonly file: string
  readonly line: number
  readonly text: string
}

const compile = async (folder: string): Promise<ReadonlyArray<Complaint>> => {
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({
      extends: relative(folder, join(root, "tsconfig.base.json")),
      compilerOptions: {
        types: ["node"],
        noEmit: true,
        composite: false,
        incremental: false,
        declaration: false,
        declarationMap: false,
        // What a snippet shows need not be used.
        noUnusedLocals: false
      },
      include: ["*.ts"]
    })
  )
  const output = await outputOf(join(root, "node_modules", ".bin", "tsc"), ["-p", folder, "--pretty", "false"], folder)
  const complaints = [...output.matchAll(/^(\S[^\n]*?)\((\d+),\d+\): (error [^\n]*(?:\n +[^\n]*)*)/gm)].map((
    match
  ) => ({
    file: match[1] ?? "",
    line: Number(match[2]),
    text: match[3] ?? ""
  }))
  if (complaints.length === 0 && output.trim() !== "") throw new Error(output)
  return complaints
}

interface Run {
  readonly file: string
  readonly printed: ReadonlyArray<string>
  readonly error: string | undefined
}

const run = async (files: ReadonlyArray<string>): Promise<ReadonlyArray<Run>> => {
  const runner = fileURLToPath(new URL("support/runSnippets.ts", import.meta.url))
  const output = await outputOf(process.execPath, ["--conditions=@sluice/source", runner, ...files], root)
  return output.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line) as Run)
}

// Standard output, also of a program that says by its exit code that it found something.
const outputOf = async (program: string, args: ReadonlyArray<string>, cwd: string): Promise<string> => {
  try {
    return (await promisify(execFile)(program, [...args], { cwd, timeout: 60_000 })).stdout
  } catch (error) {
    if (error instanceof Error && "stdout" in error && typeof error.stdout === "string") return error.stdout
    throw error
  }
}
