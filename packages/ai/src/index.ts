/**
 * Language models over any OpenAI-compatible URL.
 *
 * @since 0.1.0
 */
export * as AiOutcome from "./AiOutcome.ts"
export * as HttpTransport from "./HttpTransport.ts"
export * as OpenAiCompatible from "./OpenAiCompatible.ts"
export * as RetryAfter from "./RetryAfter.ts"
