/** Traces and metrics by OTLP, as the usual variables `OTEL_...` say. */
import * as ConfigProvider from "effect/ConfigProvider"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as OtlpMetrics from "effect/observability/OtlpMetrics"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as OtlpTracer from "effect/observability/OtlpTracer"

type Environment = { readonly [name: string]: string | undefined }

/** The defaults of OpenTelemetry's specification, and the name of the service. */
const defaults: Environment = {
  OTEL_TRACES_EXPORTER: "otlp",
  OTEL_METRICS_EXPORTER: "otlp",
  OTEL_SERVICE_NAME: "sluice"
}

const endpoints = ["", "TRACES_", "METRICS_"].map((signal) => `OTEL_EXPORTER_OTLP_${signal}ENDPOINT`)

const withoutEmpty = (env: Environment): Environment =>
  Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""))

/** Exports nothing unless an endpoint is set, since no collector listens at the default one on most machines. */
export const layer = (env: Environment): Layer.Layer<never> =>
  endpoints.every((name) => (env[name] ?? "") === "")
    ? Layer.empty
    : Layer.merge(OtlpMetrics.layerFromConfig(), OtlpTracer.layerFromConfig()).pipe(
      Layer.provide([
        FetchHttpClient.layer,
        OtlpSerialization.layerProtobuf,
        ConfigProvider.layer(ConfigProvider.fromEnvRecord({ ...defaults, ...withoutEmpty(env) }))
      ])
    )
