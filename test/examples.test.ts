import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { globSync, readFileSync } from "node:fs"
import { join, sep } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const root = fileURLToPath(new URL("..", import.meta.url))
const run = promisify(execFile)

/** The lines that a program has to print: the comments after `// =>`. */
const expectedOf = (program: string): ReadonlyArray<string> =>
  [...readFileSync(join(root, program), "utf8").matchAll(/\/\/ => ?(.*)$/gm)].map(([, line = ""]) => line)

const programs = globSync("examples/**/*.ts", { cwd: root })
  .map((file) => file.split(sep).join("/"))
  .filter((file) => expectedOf(file).length > 0)
  .toSorted()

// They are compiled with the tests.
describe("the examples print what their comments say, without a key or a network", () => {
  it("all examples are found", () => {
    assert.deepStrictEqual(programs, [
      "examples/front/ai-sdk.ts",
      "examples/front/anthropic.ts",
      "examples/front/express.ts",
      "examples/front/fastify.ts",
      "examples/front/hono.ts",
      "examples/front/langchain.ts",
      "examples/front/openai.ts",
      "examples/front/servers.ts"
    ])
  })

  for (const program of programs) {
    it.concurrent(program, async () => {
      const { stdout } = await run(process.execPath, ["--conditions=@sluice/source", program], {
        cwd: root,
        timeout: 50_000
      })
      assert.deepStrictEqual(stdout.trimEnd().split("\n"), [...expectedOf(program)])
    })
  }
})
