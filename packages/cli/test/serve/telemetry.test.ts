import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import { collector } from "../support/collector.ts"
import { folder } from "../support/files.ts"
import { ask, over, start } from "../support/gateway.ts"
import { processTimeout } from "../support/timeouts.ts"

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
