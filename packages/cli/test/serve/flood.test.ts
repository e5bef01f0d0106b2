import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { createHash } from "node:crypto"
import { request } from "node:http"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { startScript } from "../support/command.ts"
import { folder } from "../support/files.ts"
import type { Gateway } from "../support/gateway.ts"
import { start } from "../support/gateway.ts"
import { begin, finish, head, type Received, streamingProvider, word } from "../support/streamingProvider.ts"
import { processTimeout } from "../support/timeouts.ts"
import { memory, within } from "../support/witness.ts"

type Edge = Pick<Gateway, "command" | "port" | "token">

const floodBytes = 200_000_000
/** How fast the reader is. */
const megabytesPerSecond = Number(process.env["SLUICE_READER_MB"] ?? 200)
/** As much as it takes before it pauses. */
const burstBytes = 1_000_000

/** Writes the flood as fast as it is taken, and counts its bytes. */
const flood = () => {
  const hash = createHash("sha256").update(head)
  let sent = head.length
  const send = async ({ response }: Received) => {
    for (let n = 0; sent < floodBytes && !response.destroyed; n++) {
      const text = word(`${n} ${"x".repeat(30_000)}`)
      hash.update(text)
      sent += text.length
      if (!response.write(text)) await new Promise((resolve) => response.once("drain", resolve))
    }
    hash.update(finish)
    sent += finish.length
    response.end(finish)
  }
  return { send, sent: () => sent, digest: () => hash.digest("hex") }
}

/** Reads a stream in bursts with pauses, and returns its hash and the most that was under way. */
const readSlowly = ({ port, token }: Edge, sent: () => number, look: () => void) =>
  Effect.promise((signal) =>
    new Promise<{ readonly digest: string; readonly read: number; readonly underWay: number }>((resolve, reject) => {
      const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" }
      const asked = request(
        { port, signal, method: "POST", path: "/v1/chat/completions", headers, agent: false },
        async (response) => {
          const hash = createHash("sha256")
          let read = 0
          let burst = 0
          let underWay = 0
          try {
            for await (const chunk of response) {
              hash.update(chunk)
              read += chunk.length
              burst += chunk.length
              if (burst < burstBytes) continue
              burst = 0
              await sleep(1_000 / megabytesPerSecond)
              underWay = Math.max(underWay, sent() - read)
              look()
            }
            resolve({ digest: hash.digest("hex"), read, underWay })
          } catch (error) {
            reject(error)
          }
        }
      )
      asked.on("error", reject)
      asked.end(JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "Hello" }] }))
    })
  )

const edges: ReadonlyArray<readonly [name: string, open: (url: string) => Effect.Effect<Edge, never, Scope.Scope>]> = [
  ["sluice serve", (url) => Effect.flatMap(folder, (directory) => start(directory, ["--target", `a=${url}`]))],
  ["the Web handler", (url) =>
    Effect.gen(function*() {
      const script = fileURLToPath(new URL("../support/webEdge.ts", import.meta.url))
      const command = yield* Effect.acquireRelease(
        Effect.sync(() => startScript(script, [], { env: { TARGET: url } })),
        ({ process }) => Effect.sync(() => process.kill("SIGKILL"))
      )
      const said = yield* Effect.promise(() => command.says("."))
      return { command, port: Number(/\d+/.exec(said)?.[0]), token: "" }
    })]
]

describe("200 MB for a slow reader", { timeout: processTimeout }, () => {
  for (const [name, open] of edges) {
    it.live(`${name} passes every byte, and keeps little of it in memory`, () =>
      Effect.gen(function*() {
        const { digest, send, sent } = flood()
        const provider = yield* streamingProvider((received, n) => {
          begin(received)
          if (n === 1) received.response.end(word("fine") + finish)
          else void send(received)
        })
        const edge = yield* open(provider.url)
        // So that its code is loaded.
        yield* within("a first answer", readSlowly(edge, sent, () => {}))
        const before = memory(edge).now
        let peak = 0
        const got = yield* within(
          "the flood",
          readSlowly(edge, sent, () => peak = Math.max(peak, memory(edge).now)),
          "120 seconds"
        )
        const figures = `MB: ${before} before, ${peak} at most; ${got.underWay} bytes under way`
        assert.strictEqual(got.digest, digest())
        assert.strictEqual(got.read, sent())
        // The system keeps some megabytes for each of the two connections.
        assert.isBelow(got.underWay, 40_000_000, figures)
        // Most of it is garbage.
        assert.isBelow(peak - before, 150, figures)
      }))
  }
})
