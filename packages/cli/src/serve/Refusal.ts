/** Refusals of the gateway itself, in the form that the client's API has for errors. */
import type { OutgoingHttpHeaders, ServerResponse } from "node:http"
import { hasBody } from "./Checks.ts"

export interface Refusal {
  readonly status: number
  readonly code: string
  readonly message: string
  /** The field of the request that is wrong. */
  readonly param?: string | undefined
  readonly headers?: OutgoingHttpHeaders | undefined
}

/** A refusal as an error of an effect. */
export class Refused {
  readonly _tag = "Refused"
  readonly refusal: Refusal

  constructor(status: number, code: string, message: string, param?: string) {
    this.refusal = { status, code, message, param }
  }
}

/** Of a defect. The next try would end the same way. */
export const defect: Refusal = {
  status: 500,
  code: "internal_error",
  message: "The gateway cannot answer this request.",
  headers: { "x-should-retry": "false" }
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
export const bodyOf = (path: string, { code, message, param, status }: Refusal): string =>
  JSON.stringify(
    /^\/v1\/messages(?:[/?]|$)/.test(path)
      ? { type: "error", error: { type: types.get(status) ?? "invalid_request_error", message } }
      : { error: { message, type: "sluice_error", code, param: param ?? null } }
  )

/** How long a client may pause in the rest of a body that is not read, and how long the rest may be. */
const lingerMillis = 1_000
const lingerBytes = 32 * 2 ** 20

/**
 * Answers a request whose body was not read, and closes its connection. A client that still sends has the answer at once, but the
 * connection closes only when it has finished or pauses: the system drops an answer that is not read yet if it closes before.
 */
export const send = (response: ServerResponse, path: string, refusal: Refusal): void => {
  const { req: request } = response
  const body = bodyOf(path, refusal)
  response.writeHead(refusal.status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    connection: "close",
    ...refusal.headers
  })
  if (request.complete || !hasBody(request)) return void response.end(body)
  response.write(body)
  const end = (): void => void response.end()
  const timer = setTimeout(end, lingerMillis)
  response.once("close", () => clearTimeout(timer))
  let bytes = 0
  request.on("data", (data: Buffer) => {
    bytes += data.length
    if (bytes > lingerBytes) end()
    else timer.refresh()
  })
  request.once("end", end)
  request.resume()
}
