/** The lines of a batch: requests and responses in the form of OpenAI's Batch API. */
import * as BoundedJson from "@sluice/core/BoundedJson"
import * as Result from "effect/Result"

/** A request. */
export interface Line {
  readonly customId: string
  readonly url: string
  readonly model: string
  /** The body of the request, as JSON. */
  readonly body: string
}

/** Paths that a line can ask. */
export const endpoints = ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages"] as const

const maxDepth = 64

/** Reads a line that was validated when it was submitted. `undefined` if it is none. */
export const read = (line: string): Line | undefined => {
  const parsed = parse(line)
  if (!isObject(parsed) || !isObject(parsed["body"])) return undefined
  const { body, custom_id: customId, url } = parsed
  if (typeof customId !== "string" || typeof url !== "string") return undefined
  return {
    customId,
    url,
    model: typeof body["model"] === "string" ? body["model"] : "",
    body: JSON.stringify(body)
  }
}

/** Encodes a response for the result of a request. Its body stays as it came, if it is JSON. */
export const encodeResponse = (
  { body, requestId, status }: {
    readonly status: number
    readonly requestId: string | undefined
    readonly body: string
  }
): string => {
  const json = parse(body) === undefined ? JSON.stringify(body) : body
  return `{"status_code":${status},"request_id":${JSON.stringify(requestId ?? "")},"body":${json}}`
}

/** Reads a response. `undefined` for a result that is none, such as a request that was never sent. */
export const readResponse = (
  body: string
): { readonly status: number; readonly requestId: string; readonly body: unknown } | undefined => {
  const parsed = parse(body)
  if (!isObject(parsed) || typeof parsed["status_code"] !== "number") return undefined
  return { status: parsed["status_code"], requestId: textOf(parsed["request_id"]) ?? "", body: parsed["body"] }
}

/** The code and the message of an error. */
export const errorOf = (body: string): { readonly code: string | undefined; readonly message: string | undefined } => {
  const parsed = parse(body)
  const error = isObject(parsed) ? parsed["error"] : undefined
  return isObject(error)
    ? { code: textOf(error["code"]), message: textOf(error["message"]) }
    : { code: undefined, message: undefined }
}

/** The text of a chat completion, and why it ended. */
export const answerOf = (
  body: unknown
): { readonly text: string | undefined; readonly model: string | undefined; readonly finish: string | undefined } => {
  const nothing = { text: undefined, model: undefined, finish: undefined }
  if (!isObject(body)) return nothing
  const choice: unknown = Array.isArray(body["choices"]) ? body["choices"][0] : undefined
  if (!isObject(choice) || !isObject(choice["message"])) return nothing
  return {
    text: textOf(choice["message"]["content"]),
    model: textOf(body["model"]),
    finish: textOf(choice["finish_reason"])
  }
}

const textOf = (value: unknown): string | undefined => typeof value === "string" ? value : undefined

const parse = (text: string): unknown => {
  const parsed = BoundedJson.parse(text, maxDepth)
  return Result.isSuccess(parsed) ? parsed.success : undefined
}

const isObject = (value: unknown): value is { readonly [name: string]: unknown } =>
  typeof value === "object" && value !== null && !Array.isArray(value)
