import type * as Turn from "../../testing/Turn.ts"

export type Wire = "openai" | "anthropic"

/** A whole response without an answer. */
export interface Response {
  readonly status: number
  readonly headers: { readonly [name: string]: string }
  readonly body: string
}

/** An error before it is encoded. Anthropic's format has no code and no param. */
export interface ErrorDetails {
  readonly type: string
  readonly message: string
  readonly code?: string | number | null | undefined
  readonly param?: string | null | undefined
}

export const body = (wire: Wire, { code, message, param, type }: ErrorDetails, requestId?: string): string =>
  JSON.stringify(
    wire === "openai"
      ? { error: { message, type, param: param ?? null, code: code ?? null } }
      : { type: "error", error: { type, message }, ...(requestId === undefined ? {} : { request_id: requestId }) }
  )

/** The response of a turn without an answer. */
export const response = (
  wire: Wire,
  turn: Extract<Turn.Turn, { readonly _tag: "Status" | "Refusal" }>,
  model: string
): Response => {
  const { error, status } = turn._tag === "Status" ? turn : refusal(wire, turn.why)
  return {
    status,
    headers: {
      "content-type": "application/json",
      ...retryAfter(turn.retryAfterMillis),
      ...(turn._tag === "Status" ? lowerCase(turn.headers ?? {}) : {})
    },
    body: turn._tag === "Status" && turn.body !== undefined
      ? turn.body
      : body(wire, { ...byStatus(wire, status, model), ...error })
  }
}

const lowerCase = (headers: { readonly [name: string]: string }): { readonly [name: string]: string } =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))

export const retryAfter = (millis: number | undefined): { readonly [name: string]: string } => {
  if (millis === undefined) return {}
  const whole = Math.round(millis)
  return {
    "retry-after": String(Math.ceil(whole / 1000)),
    ...(whole % 1000 === 0 ? {} : { "retry-after-ms": String(whole) })
  }
}

interface Refusal {
  readonly status: number
  readonly error?: Partial<ErrorDetails> | undefined
}

const refusal = (wire: Wire, why: Turn.Why): Refusal => {
  switch (why) {
    case "rateLimit":
      return { status: 429 }
    case "overloaded":
      return { status: wire === "openai" ? 503 : 529 }
    case "failed":
      return { status: 500 }
    case "key":
      return { status: 401 }
    case "permission":
      return { status: 403 }
    case "model":
      return { status: 404 }
    case "request":
      return { status: 400 }
    case "quota":
      return wire === "openai"
        ? {
          status: 429,
          error: {
            type: "insufficient_quota",
            code: "insufficient_quota",
            message: "You exceeded your current quota, please check your plan and billing details."
          }
        }
        : { status: 400, error: { message: "Your credit balance is too low to access the Anthropic API." } }
    case "contextLength":
      return wire === "openai"
        ? {
          status: 400,
          error: {
            code: "context_length_exceeded",
            param: "messages",
            message:
              "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
          }
        }
        : { status: 400, error: { message: "prompt is too long: 200001 tokens > 200000 maximum" } }
    case "contentPolicy":
      return wire === "openai"
        ? {
          status: 400,
          error: {
            code: "content_policy_violation",
            message: "Your request was rejected as a result of our safety system."
          }
        }
        : { status: 400, error: { message: "Output blocked by content filtering policy" } }
  }
}

export const typeOf = (wire: Wire, status: number): string => byStatus(wire, status, "").type

const byStatus = (wire: Wire, status: number, model: string): ErrorDetails =>
  wire === "openai" ? openAi(status, model) : anthropic(status, model)

const openAi = (status: number, model: string): ErrorDetails => {
  const type = "invalid_request_error"
  switch (status) {
    case 401:
      return { type, code: "invalid_api_key", message: "Incorrect API key provided" }
    case 402:
      return { type: "insufficient_quota", code: "insufficient_quota", message: "Insufficient balance" }
    case 403:
      return { type, code: "permission_denied", message: "You do not have access to this" }
    case 404:
      return { type, code: "model_not_found", param: "model", message: `The model \`${model}\` does not exist` }
    case 408:
      return { type: "timeout", message: "The request timed out" }
    case 409:
      return { type, message: "The request conflicts with another one" }
    case 413:
      return { type, message: "The request is too large" }
    case 429:
      return { type: "requests", code: "rate_limit_exceeded", message: "Rate limit reached" }
  }
  if (status < 500) return { type, message: `The request was refused with status ${status}` }
  if (status === 503) return { type: "server_error", message: "The server is overloaded or not ready yet" }
  return { type: "server_error", message: "The server had an error while processing the request" }
}

const anthropic = (status: number, model: string): ErrorDetails => {
  switch (status) {
    case 401:
      return { type: "authentication_error", message: "invalid x-api-key" }
    case 402:
      return { type: "billing_error", message: "There is an issue with your billing" }
    case 403:
      return { type: "permission_error", message: "Your API key does not have permission to use this" }
    case 404:
      return { type: "not_found_error", message: `model: ${model}` }
    case 413:
      return { type: "request_too_large", message: "Request exceeds the maximum size" }
    case 429:
      return { type: "rate_limit_error", message: "This request would exceed your rate limit" }
    case 504:
      return { type: "timeout_error", message: "Request timed out" }
    case 529:
      return { type: "overloaded_error", message: "Overloaded" }
  }
  return status < 500
    ? { type: "invalid_request_error", message: `The request was refused with status ${status}` }
    : { type: "api_error", message: "Internal server error" }
}
