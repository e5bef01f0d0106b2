import { assert, beforeAll, describe, it } from "@effect/vitest"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"
import { compile, outputOf } from "./support/compile.ts"
import { type Snippet, snippetsIn, snippetsOf } from "./support/snippets.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const snippets = snippetsOf(root, ["*.md", "docs/**/*.md", "packages/*/README.md", "packages/*/src/**/*.ts"])

/** The result of a snippet: errors of the compiler, and the output of its run. */
interface Result {
  readonly complaints: ReadonlyArray<string>
  readonly printed: ReadonlyArray<string>
  readonly error: string | undefined
}

describe("every snippet of the documentation compiles, runs, and prints its expected lines", () => {
  let results: ReadonlyMap<Snippet, Result> = new Map()
  beforeAll(async () => {
    results = await check(snippets)
  }, 120_000)

  for (const snippet of snippets) {
    it(`${snippet.file}:${snippet.line}`, () => {
      const result = results.get(snippet)
      assert.deepStrictEqual(result?.complaints, [])
      assert.strictEqual(result?.error, undefined)
      if (snippet.expected.length > 0) assert.deepStrictEqual(result?.printed, snippet.expected)
    })
  }
})

describe("the check of snippets", () => {
  it("snippets are found in pages and in comments, with line numbers and expected output", () => {
    const page = ["# Title", "```ts", "console.log(1) // => 1", "```", "```sh", "ls", "```"].join("\n")
    assert.deepStrictEqual(snippetsIn("page.md", page), [
      { file: "page.md", line: 3, code: "console.log(1) // => 1", expected: ["1"] }
    ])
    const module = ["/**", " * ```ts", " * console.log(1)", " * // => 1", " * ```", " */"].join("\n")
    assert.deepStrictEqual(snippetsIn("module.ts", module), [
      { file: "module.ts", line: 3, code: "console.log(1)\n// => 1", expected: ["1"] }
    ])
  })

  it("a block that is not closed is an error", () => {
    assert.throws(() => snippetsIn("page.md", "```ts\nconst a = 1"), /page\.md:2/)
  })

  it("a wrong type, a throw and wrong output are reported", { timeout: 60_000 }, async () => {
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
    const [type, thrown, output] = [...(await check(found)).values()]
    assert.match(type?.complaints.join() ?? "", /^wrong\.md:2: .*TS2322/)
    assert.match(thrown?.error ?? "", /thrown/)
    assert.deepStrictEqual(output?.printed, ["[ 2 ]"])
  })
})

// The snippets are written into the repository, so that they find the packages. They run on the sources, without a build.
const check = async (snippets: ReadonlyArray<Snippet>): Promise<ReadonlyMap<Snippet, Result>> => {
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
      const own = complaints.filter((complaint) => complaint.file === name)
      const ran = runs.find((result) => basename(result.file) === name)
      return [snippet, {
        complaints: own.map(({ line, text }) => `${snippet.file}:${snippet.line + line - 1}: ${text}`),
        printed: ran?.printed ?? [],
        error: ran === undefined ? "it did not run: an earlier snippet ended the process or did not end" : ran.error
      }]
    }))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
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
