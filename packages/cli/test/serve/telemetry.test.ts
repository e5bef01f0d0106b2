import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import type { AddressInfo } from "node:net"
import { createServer } from "node:http"
import { folder } from "../support/files.ts"
import { ask, over, start } from "../support/gateway.ts"
import { processTimeout } from "../support/timeouts.ts"

/** A collector of OTLP, which keeps what it gets by path. */
const collector = Effect.acquireRelease(
  Effect.promise(() =>
    new Promise<{ readonly url: string; readonly got: Map<string, string>; readonly close: () => void }>((resolve) => {
      const got = new Map<string, string>()
      const server = createServer((request, response) => {
        const chunks: Array<Buffer> = []
        request.on("data", (chunk: Buffer) => chunks.push(chunk))
        request.on("end", () => {
          const path = request.url ?? ""
          got.set(path, (got.get(path) ?? "") + Buffer.concat(chunks).toString("latin1"))
          response.end()
        })
      })
      server.listen(0, "127.0.0.1", () =>
        // It listens on a port, so its address is no path.
        resolve({
          got,
          url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
          close: () => server.close()
        }))
    })
  ),
  ({ close }) => Effect.sync(close)
)

describe("OpenTelemetry of sluice serve", { timeout: processTimeout }, () => {
  it.live("traces, metrics and logs are sent to the endpoint of the variable, without prompts", () =>
    Effect.gen(function*() {
      const { got, url } = yield* collector
      const provider = yield* LoopbackProvider.make({})
      const { args, env } = over(provider)
      const gateway = yield* start(yield* folder, args, { ...env, OTEL_EXPORTER_OTLP_ENDPOINT: url })
      const { status } = yield* ask(gateway, gateway.token, { messages: [{ role: "user", content: "canary-81c2" }] })
      assert.strictEqual(status, 200)
      gateway.command.process.kill("SIGTERM")
      const { code, stderr } = yield* Effect.promise(() => gateway.command.ended)
      assert.strictEqual(code, 0, stderr)
      assert.include(got.get("/v1/metrics"), "gen_ai.client.operation.duration")
      assert.include(got.get("/v1/metrics"), "sluice_gateway_requests_total")
      assert.include(got.get("/v1/traces"), "gen_ai.operation.name")
      for (const part of ["started", "request", "outputTokens", "stopped"]) assert.include(got.get("/v1/logs"), part)
      for (const text of got.values()) assert.notInclude(text, "canary")
    }))

  it.live("a signal whose exporter is none is not sent", () =>
    Effect.gen(function*() {
      const { got, url } = yield* collector
      const { args, env } = over(yield* LoopbackProvider.make({}))
      const gateway = yield* start(yield* folder, args, {
        ...env,
        OTEL_EXPORTER_OTLP_ENDPOINT: url,
        OTEL_LOGS_EXPORTER: "none"
      })
      assert.strictEqual((yield* ask(gateway, gateway.token)).status, 200)
      gateway.command.process.kill("SIGTERM")
      assert.strictEqual((yield* Effect.promise(() => gateway.command.ended)).code, 0)
      assert.deepStrictEqual([...got.keys()].toSorted(), ["/v1/metrics", "/v1/traces"])
    }))
})
