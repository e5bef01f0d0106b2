/** Traces, metrics and logs by OTLP, as the usual variables `OTEL_...` say. */
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as OtlpLogger from "effect/observability/OtlpLogger"
import * as OtlpMetrics from "effect/observability/OtlpMetrics"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as OtlpTracer from "effect/observability/OtlpTracer"
import type * as Scope from "effect/Scope"
import type { Outputs } from "./Logs.ts"

type Environment = { readonly [name: string]: string | undefined }

/** The defaults of OpenTelemetry's specification, and the name of the service. */
const defaults: Environment = {
  OTEL_TRACES_EXPORTER: "otlp",
  OTEL_METRICS_EXPORTER: "otlp",
  OTEL_LOGS_EXPORTER: "otlp",
  OTEL_SERVICE_NAME: "sluice"
}

const endpoints = ["", "TRACES_", "METRICS_", "LOGS_"].map((signal) => `OTEL_EXPORTER_OTLP_${signal}ENDPOINT`)

const withoutEmpty = (env: Environment): Environment =>
  Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""))

const isSet = (env: Environment): boolean => endpoints.some((name) => (env[name] ?? "") !== "")

const exporting = (env: Environment) =>
  Layer.mergeAll(
    FetchHttpClient.layer,
    OtlpSerialization.layerProtobuf,
    ConfigProvider.layer(ConfigProvider.fromEnvRecord({ ...defaults, ...withoutEmpty(env) }))
  )

/** Exports nothing unless an endpoint is set, since no collector listens at the default one on most machines. */
export const layer = (env: Environment): Layer.Layer<never> =>
  isSet(env)
    ? Layer.provide(Layer.merge(OtlpMetrics.layerFromConfig(), OtlpTracer.layerFromConfig()), exporting(env))
    : Layer.empty

const levels = { info: "Info", warn: "Warn", error: "Error" } as const

/**
 * Sends lines of the log until the scope closes. `undefined` if they are not exported. Its logger gets nothing else, since the cause of
 * what the front logs could quote a request.
 */
export const logs = (env: Environment): Effect.Effect<Outputs["send"], never, Scope.Scope> =>
  Effect.gen(function*() {
    if (!isSet(env)) return undefined
    const context = yield* Layer.build(
      OtlpLogger.layerFromConfig().pipe(Layer.provideMerge(Logger.layer([])), Layer.provide(exporting(env)))
    )
    if (Context.get(context, Logger.CurrentLoggers).size === 0) return undefined
    return (level, event, fields) => {
      const known = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
      Effect.runForkWith(context)(Effect.annotateLogs(Effect.logWithLevel(levels[level])(event), known))
    }
  })
