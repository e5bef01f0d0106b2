/** Refusals of the gateway itself, in the form that the client's API has for errors. */
import type { OutgoingHttpHeaders, ServerResponse } from "node:http"

export interface Refusal {
  readonly status: number
  readonly code: string
  readonly message: string
  readonly headers?: OutgoingHttpHeaders | undefined
}

/** Anthropic's type of an error, by the status. */
const types = new Map([
  [400, "invalid_request_error"],
  [401, "authentication_error"],
  [403, "permission_error"],
  [404, "not_found_error"],
  [413, "request_too_large"],
  [429, "rate_limit_error"],
  [503, "overloaded_error"]
])

/** The body of a refusal: Anthropic's form for its paths, else OpenAI's. */
export const bodyOf = (path: string, { code, message, status }: Refusal): string =>
  JSON.stringify(
    /^\/v1\/messages(?:[/?]|$)/.test(path)
      ? { type: "error", error: { type: types.get(status) ?? "invalid_request_error", message } }
      : { error: { message, type: "sluice_error", code, param: null } }
  )

/** Answers a request whose body was not read, so its connection cannot be used again. */
export const send = (response: ServerResponse, path: string, refusal: Refusal): void => {
  const body = bodyOf(path, refusal)
  response.writeHead(refusal.status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    connection: "close",
    ...refusal.headers
  })
  response.end(body)
}
