import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { refused, run } from "../support/command.ts"
import { folder } from "../support/files.ts"
import { processTimeout } from "../support/timeouts.ts"

const unreachable = "postgres://me@127.0.0.1:1/batches"

/** The arguments of a command, and what its only line on standard error names. */
const refusals: ReadonlyArray<readonly [args: ReadonlyArray<string>, ...parts: ReadonlyArray<string>]> = [
  [["batch", "submit", "prompts.jsonl"], "line 2 names no model; set --model or SLUICE_MODEL"],
  [
    ["batch", "status", "batch_1"],
    "there is no file sluice-batches.sqlite",
    "`sluice batch submit FILE` makes it"
  ],
  [
    ["batch", "status", "--batches", "sqlite:none/b.sqlite"],
    "there is no file none/b.sqlite"
  ],
  [["batch", "status", "--batches", unreachable], "postgres://127.0.0.1:1/batches: no server answers there"],
  [["migrate", "sqlite:none/b.sqlite"], "cannot use sqlite:none/b.sqlite: there is no such folder"],
  [["migrate", unreachable], "cannot use postgres://127.0.0.1:1/batches: no server answers there"]
]

describe("sluice batch and sluice migrate", { timeout: processTimeout }, () => {
  it.live.each(refusals)("%j is refused with what is wrong and where", ([args, ...parts]) =>
    Effect.gen(function*() {
      const directory = yield* folder
      writeFileSync(join(directory, "prompts.jsonl"), `{"prompt":"a","model":"m"}\n{"prompt":"b"}\n`)
      refused(yield* Effect.promise(() => run(args, {}, directory)), ...parts)
    }))
})
