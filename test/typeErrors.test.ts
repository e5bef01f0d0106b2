/** Messages of the compiler for common mistakes. Each has to name the fix. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { compile } from "./support/compile.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

const head = `import * as Deduplicator from "@sluice/core/Deduplicator"
import * as Sluice from "@sluice/core/Sluice"
import { Effect, Stream } from "effect"

declare const gpt: Sluice.Sluice
declare const deduplicator: Deduplicator.Deduplicator["Service"]
declare const call: Effect.Effect<string, "503">
declare const stream: Stream.Stream<string, "503">

const Undeclared = Deduplicator.operation<string>()("ask", { key: (prompt: string) => prompt })
const Declared = Deduplicator.operation<string, "503" | "429">()("ask", { key: (prompt: string) => prompt })
`

const undeclared = "Declare every error of the effect in the second type argument of operation<A, E>()"
const parentheses = "Write Service<Self>()(id, options), with empty parentheses first"

const mistakes: ReadonlyArray<readonly [mistake: string, code: string, hint: string]> = [
  ["protect, data first", `gpt.protect(call, { dedupe: Undeclared("x") })`, undeclared],
  ["protect, piped", `call.pipe(gpt.protect({ dedupe: Undeclared("x") }))`, undeclared],
  ["protectStream, data first", `gpt.protectStream(stream, { dedupe: Undeclared("x") })`, undeclared],
  ["protectStream, piped", `stream.pipe(gpt.protectStream({ dedupe: Undeclared("x") }))`, undeclared],
  ["dedupe, data first", `deduplicator.dedupe(call, Undeclared("x"))`, undeclared],
  ["dedupe, piped", `call.pipe(deduplicator.dedupe(Undeclared("x")))`, undeclared],
  ["dedupeStream, data first", `deduplicator.dedupeStream(stream, Undeclared("x"))`, undeclared],
  ["dedupeStream, piped", `stream.pipe(deduplicator.dedupeStream(Undeclared("x")))`, undeclared],
  ["Service without ()", `class Gpt extends Sluice.Service<Gpt>("app/Gpt", { name: "gpt" }) {}`, parentheses]
]

const correct: ReadonlyArray<string> = [
  `call.pipe(gpt.protect({ dedupe: Declared("x"), classify: (exit) => exit._tag === "Success" ? undefined : undefined }))`,
  `gpt.protect(call, { dedupe: Declared("x") })`,
  `stream.pipe(gpt.protectStream({ dedupe: Declared("x"), isComplete: (part) => part.length > 3 }))`,
  `call.pipe(deduplicator.dedupe(Declared("x")))`,
  `deduplicator.dedupe(Effect.succeed("x"), Undeclared("x"))`,
  `Effect.succeed("x").pipe(gpt.protect({ dedupe: Undeclared("x") }))`,
  `class Gpt extends Sluice.Service<Gpt>()("app/Gpt", { name: "gpt" }) {}`
]

describe("errors of the compiler", () => {
  const messages = new Map<string, string>()
  beforeAll(async () => {
    mkdirSync(join(root, "build"), { recursive: true })
    const folder = mkdtempSync(join(root, "build", "type-errors-"))
    try {
      const files = [...mistakes.map(([, code]) => code), ...correct]
      files.forEach((code, index) => writeFileSync(join(folder, `${index}.ts`), `${head}\n${code}\n`))
      for (const { file, text } of await compile(folder)) {
        const code = files[Number.parseInt(file, 10)] ?? ""
        messages.set(code, `${messages.get(code) ?? ""}${text}\n`)
      }
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }, 120_000)

  for (const [mistake, code, hint] of mistakes) {
    it(`the error of ${mistake} names the fix`, () => assert.include(messages.get(code) ?? "no error", hint))
  }

  for (const code of correct) {
    it(`${code} compiles`, () => assert.isUndefined(messages.get(code)))
  }
})
