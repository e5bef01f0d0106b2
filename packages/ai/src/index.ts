/**
 * Resilient language models for Effect.
 *
 * @since 0.1.0
 */
export * as AiOutcome from "./AiOutcome.ts"
export * as AiRejection from "./AiRejection.ts"
export * as AnthropicMessages from "./AnthropicMessages.ts"
export * as CallLog from "./CallLog.ts"
export * as Front from "./Front.ts"
export * as GenAiTelemetry from "./GenAiTelemetry.ts"
export * as HttpTransport from "./HttpTransport.ts"
export * as IdempotencyKey from "./IdempotencyKey.ts"
export * as OpenAiCompatible from "./OpenAiCompatible.ts"
export * as RateLimits from "./RateLimits.ts"
export * as ResilientModel from "./ResilientModel.ts"
export * as RetryAfter from "./RetryAfter.ts"
export * as TextModel from "./TextModel.ts"
