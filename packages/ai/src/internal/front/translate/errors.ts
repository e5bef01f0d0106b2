import * as ErrorBody from "../../kit/errorBody.ts"

// The errors of providers in the form of the other wire.

/** The types of Anthropic's errors by their status. */
const types = new Map([
  [400, "invalid_request_error"],
  [401, "authentication_error"],
  [402, "billing_error"],
  [403, "permission_error"],
  [404, "not_found_error"],
  [408, "timeout_error"],
  [413, "request_too_large"],
  [429, "rate_limit_error"],
  [503, "overloaded_error"],
  [504, "timeout_error"],
  [529, "overloaded_error"]
])

/** The type of an error of messages. */
export const messagesType = (status: number): string =>
  types.get(status) ?? (status >= 400 && status < 500 ? "invalid_request_error" : "api_error")

const chatTypes = new Map([
  [401, "authentication_error"],
  [402, "insufficient_quota"],
  [403, "permission_error"],
  [429, "rate_limit_error"]
])

const chatType = (status: number): string =>
  chatTypes.get(status) ?? (status >= 400 && status < 500 ? "invalid_request_error" : "server_error")

/** The status that the other wire has for an overload: only Anthropic has 529. */
export const chatStatus = (status: number): number => status === 529 ? 503 : status
export const messagesStatus = (status: number): number => status === 503 ? 529 : status

const statuses = new Map([...types].map(([status, type]) => [type, chatStatus(status)]))

const messageOf = ({ messages }: ErrorBody.ErrorBody): string => messages[0] ?? "The provider sent no message."

/** An error as chat completions send it, from a parsed body. `status`: by default what its code says. */
export const errorToChat = (body: unknown, status?: number): object => {
  const error = ErrorBody.read(body)
  const known = status ?? error.status ?? statuses.get(error.code ?? "") ?? 500
  return {
    error: {
      message: messageOf(error),
      type: chatType(known),
      param: error.param ?? null,
      code: error.code ?? null
    }
  }
}

/** An error as messages send it, from a parsed body. `status`: by default what its code says. */
export const errorToMessages = (body: unknown, status?: number): object => {
  const error = ErrorBody.read(body)
  return { type: "error", error: { type: messagesType(status ?? error.status ?? 500), message: messageOf(error) } }
}
