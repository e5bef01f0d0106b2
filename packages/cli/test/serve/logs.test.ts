import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, openSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { Logs } from "../../src/serve/Logs.ts"
import { folder } from "../support/files.ts"
import { ask, over, start } from "../support/gateway.ts"
import { processTimeout } from "../support/timeouts.ts"

const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

const bin = fileURLToPath(new URL("../../src/bin.ts", import.meta.url))

describe("logs of a gateway", () => {
  it.effect("the lines of one turn are written together and in order, and each is sent", () =>
    Effect.gen(function*() {
      const writes: Array<string> = []
      const sent: Array<unknown> = []
      const logs = new Logs("json", {
        write: (lines) => writes.push(lines),
        send: (level, event, fields) => sent.push([level, event, fields])
      })
      logs.info("a", { n: 1 })
      logs.warn("b")
      assert.lengthOf(writes, 0)
      yield* turn
      logs.error("c")
      logs.flush()
      yield* turn
      assert.deepStrictEqual(
        writes.map((lines) => lines.trim().split("\n").map((line) => JSON.parse(line).event)),
        [["a", "b"], ["c"]]
      )
      assert.deepStrictEqual(sent, [["info", "a", { n: 1 }], ["warn", "b", {}], ["error", "c", {}]])
    }))

  it.live(
    "requests are answered after the readers of standard error and output have gone",
    () =>
      Effect.gen(function*() {
        const { args, env } = over(yield* LoopbackProvider.make({}))
        const gateway = yield* start(yield* folder, args, env)
        gateway.command.process.stderr.destroy()
        gateway.command.process.stdout.destroy()
        for (let calls = 0; calls < 3; calls++) assert.strictEqual((yield* ask(gateway, gateway.token)).status, 200)
        gateway.command.process.kill("SIGTERM")
        assert.strictEqual((yield* Effect.promise(() => gateway.command.ended)).code, 0)
      }),
    processTimeout
  )

  it.live.skipIf(!existsSync("/dev/full"))(
    "requests are answered while the disk of the log is full",
    () =>
      Effect.gen(function*() {
        const { args, env } = over(yield* LoopbackProvider.make({}))
        const directory = yield* folder
        const child = yield* Effect.acquireRelease(
          Effect.sync(() =>
            spawn(process.execPath, ["--conditions=@sluice/source", bin, "serve", "--port", "0", ...args], {
              cwd: directory,
              env: { PATH: process.env["PATH"], ...env },
              stdio: ["ignore", "pipe", openSync("/dev/full", "w")]
            })
          ),
          (child) => Effect.sync(() => child.kill("SIGKILL"))
        )
        const welcome = yield* Effect.promise(async () => {
          let text = ""
          for await (const data of child.stdout ?? []) {
            text += String(data)
            if (text.includes("Ctrl-C stops it.")) return text
          }
          return text
        })
        const [, port] = /:(\d+)/.exec(welcome) ?? []
        const [token = ""] = /sluice_[\w-]+/.exec(welcome) ?? []
        for (let calls = 0; calls < 3; calls++) {
          assert.strictEqual((yield* ask({ port: Number(port) }, token)).status, 200)
        }
        const ended = once(child, "exit")
        child.kill("SIGTERM")
        assert.deepStrictEqual(yield* Effect.promise(() => ended), [0, null])
      }),
    processTimeout
  )
})
