import type * as AiError from "effect/ai/AiError"
import * as Failure from "./failure.ts"
import * as Json from "./json.ts"

/**
 * The error that a response with status 200 has in its `error` field. `undefined` if it has none: some servers send
 * the field empty with every answer.
 */
export const inField = (json: Json.JsonObject): unknown => {
  const { error } = json
  if (typeof error === "string" && error !== "") {
    // TGI sends the type beside the message.
    const type = Json.text(json["error_type"]) ?? Json.text(json["type"])
    return type === undefined && json["code"] === undefined ? error : { message: error, type, code: json["code"] }
  }
  if (error === true) return json
  if (Array.isArray(error)) return error[0]
  return Json.isObject(error) && Object.keys(error).length > 0 ? inner(error) : undefined
}

/** Some gateways wrap the error of their upstream: `{ error: { error: { ... } } }`. */
const inner = (error: Json.JsonObject): unknown =>
  error["message"] === undefined && Json.isObject(error["error"]) ? error["error"] : error

/**
 * The error that a response without an answer is as a whole. Servers with status 200 name it `errors`, `detail`,
 * `base_resp` or `{ code, message }`, or send a list of one error.
 */
export const asWhole = (json: unknown): unknown => {
  if (Array.isArray(json)) {
    const first = Json.object(json[0])
    return first === undefined ? undefined : inField(first)
  }
  if (!Json.isObject(json)) return undefined
  const field = inField(json)
  if (field !== undefined) return field
  const { base_resp, code, detail, errors, object, status, type } = json
  if (Array.isArray(errors) && errors.length > 0) return errors[0]
  if (object === "error" || type === "error") return json
  if (Json.isObject(base_resp) && base_resp["status_code"] !== 0 && base_resp["status_code"] !== undefined) {
    return { code: base_resp["status_code"], message: base_resp["status_msg"] }
  }
  const message = Json.text(json["message"]) ?? Json.text(json["msg"]) ?? Json.text(json["error_msg"])
  const named = code ?? json["error_code"] ?? json["errorCode"] ?? (status === "success" ? undefined : status)
  if (message !== undefined && Json.text(named) !== undefined) return { code: named, type, message }
  return detail === undefined || detail === null
    ? undefined
    : { message: typeof detail === "string" ? detail : JSON.stringify(detail) }
}

/** The error for a finish reason that reports a failure of the provider. */
export const brokeOff = (origin: Failure.Origin, response: Failure.ResponseHead, sent: string): AiError.AiError =>
  sent === "error"
    ? Failure.endedInError(origin, response)
    : Failure.fromStream(origin, response, { code: sent, message: "the provider broke off the answer" }, "")

/** The error for a finish reason that reports an unreadable tool call. Another answer may have a readable one. */
export const badCall = (origin: Failure.Origin): AiError.AiError =>
  Failure.badArguments(origin, "", "the provider could not read the tool call that the model wrote")
