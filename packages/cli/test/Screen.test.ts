import { assert, describe, it } from "@effect/vitest"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Effect, Layer } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Screen from "../src/Screen.ts"
import { folder } from "./support/files.ts"
import { processTimeout } from "./support/timeouts.ts"

const bin = fileURLToPath(new URL("../src/bin.ts", import.meta.url))

describe("a screen", () => {
  it("a frame begins at the top, erases what it does not overwrite, and leaves the last column free", () => {
    assert.strictEqual(
      Screen.frame("a line\nanother\n", { columns: 5, rows: 2 }),
      "\x1b[Ha l…\x1b[K\r\nano…\x1b[K\x1b[J"
    )
  })

  it("a text with more lines than the window says how many it leaves out, and does not scroll", () => {
    assert.strictEqual(
      Screen.frame("1\n2\n3\n4\n5\n", { columns: 80, rows: 3 }),
      "\x1b[H1\x1b[K\r\n2\x1b[K\r\n… 3 more lines, which a higher window shows\x1b[K\x1b[J"
    )
  })

  // `script` gives the command a terminal.
  const hasTerminal = spawnSync("script", ["--version"], { encoding: "utf8" }).stdout?.includes("util-linux") === true
  const withTerminal = it.live.skipIf(!hasTerminal)

  /** What `sluice circuits watch` writes on a terminal until it has drawn twice and is sent Ctrl-C. */
  const watched = Effect.gen(function*() {
    const url = `sqlite:${join(yield* folder, "fleet.sqlite")}`
    yield* Effect.scoped(Layer.build(Layer.provide(SqlStores.layerMigrate(), SqlDatabase.layer({ url }))))
    const command = `'${process.execPath}' --conditions=@sluice/source '${bin}' circuits watch`
    const terminal = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn("script", ["-qec", `stty rows 10 cols 60; exec ${command}`, "/dev/null"], {
          env: { PATH: process.env["PATH"] ?? "", TERM: "xterm", SLUICE_STORE: url },
          stdio: ["pipe", "pipe", "ignore"]
        })
      ),
      (terminal) => Effect.sync(() => void terminal.kill("SIGKILL"))
    )
    let written = ""
    let presses = 0
    terminal.stdout.on("data", (data: Buffer) => {
      written += data.toString()
      if (presses === 0 && written.split("No circuits").length > 2) terminal.stdin.write("\x03".repeat(++presses))
    })
    const code = yield* Effect.promise(() => new Promise<number | null>((resolve) => terminal.on("close", resolve)))
    return { code, written }
  })

  withTerminal("Ctrl-C gives the terminal back as it was, with the last table below", () =>
    Effect.gen(function*() {
      const { code, written } = yield* watched
      assert.strictEqual(code, 0)
      assert.isTrue(written.startsWith("\x1b[?1049h\x1b[?25l\x1b[HNo circuits"), JSON.stringify(written))
      const [, after = ""] = written.split("\x1b[?25h\x1b[?1049l")
      assert.match(after, /^No circuits: no call was made lately\.\r\n$/)
    }), processTimeout)
})
