/** Traces, metrics and logs by OTLP, as the usual variables `OTEL_...` say. */
import * as Layer from "effect/Layer"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Otlp from "effect/observability/Otlp"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"

type Environment = { readonly [name: string]: string | undefined }

const isSet = (env: Environment, name: string): boolean => (env[name] ?? "") !== ""

/** Exports nothing unless an endpoint is set, since no collector listens at the default one on most machines. */
export const layer = (env: Environment): Layer.Layer<never> =>
  ["OTEL_EXPORTER_OTLP_ENDPOINT", ...signals].some((name) => isSet(env, name))
    ? Layer.provide(
      Otlp.layerFromConfig(isSet(env, "OTEL_SERVICE_NAME") ? undefined : { resource: { serviceName: "sluice" } }),
      Layer.mergeAll(FetchHttpClient.layer, OtlpSerialization.layerProtobuf)
    )
    : Layer.empty

const signals = ["TRACES", "METRICS", "LOGS"].map((signal) => `OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`)
