import * as BoundedJson from "@sluice/core/BoundedJson"
import * as Result from "effect/Result"

/**
 * The codes and messages of a provider's error. Only fields at known places are read: the rest of a body may quote the prompt.
 *
 * The known places are `error`, `errors`, `detail` and `message`, arrays of these, `details` of Google, `innererror` of Azure,
 * `metadata` of OpenRouter, and a whole error as JSON in a string, in which gateways wrap the error of their upstream.
 */
export interface ErrorBody {
  /** The messages, the outermost first. */
  readonly messages: ReadonlyArray<string>
  /** The words in the code and type fields, the outermost first. None has spaces. */
  readonly codes: ReadonlyArray<string>
  /** The first HTTP status in a code field. */
  readonly status: number | undefined
  /** The code to show. */
  readonly code: string | undefined
  readonly param: string | undefined
  /** The objects that were read, which can also have a wait. */
  readonly objects: ReadonlyArray<Fields>
}

export interface Fields {
  readonly [name: string]: unknown
}

/** A longer body is not parsed. */
const longestBody = 65_536
/** Longer messages are cut. */
const longestMessage = 4096
const maxJsonDepth = 32
/** Enough for a gateway's error that wraps the upstream's error, which wraps a JSON string, each with `error` and `details`. */
const maxDepth = 8
const maxObjects = 24

/** Reads the body of an error response. A text that is no JSON is a message, unless it is a page. */
export const parse = (body: string): ErrorBody => {
  const reader = new Reader()
  reader.text(body, 0)
  return reader
}

/** Reads an error that is parsed already. */
export const read = (error: unknown): ErrorBody => {
  const reader = new Reader()
  reader.value(error, 0)
  return reader
}

/** Whether a text is a page and not the answer of an API. */
export const isPage = (text: string): boolean => /^\s*<[!?a-z]/i.test(text)

const isWord = /^[\w.-]{1,64}$/

/** The names of code fields. `status` is Google's, `reason` is in its details, `__type` is Amazon's. */
const codeFields = ["code", "type", "status", "reason", "error_type", "error_code", "errorCode", "__type"]
const messageFields = ["message", "msg", "Message"]
const nestedFields = [
  "error",
  "errors",
  "detail",
  "innererror",
  "provider_specific_fields",
  "details",
  "metadata",
  "raw"
]

class Reader implements ErrorBody {
  readonly messages: Array<string> = []
  readonly codes: Array<string> = []
  readonly objects: Array<Fields> = []
  status: number | undefined
  code: string | undefined
  param: string | undefined

  /** Reads a text: an error as JSON, or a message. */
  text(text: string, depth: number): void {
    const first = text.trimStart()[0]
    if (first === undefined || isPage(text)) return
    if ((first === "{" || first === "[") && text.length <= longestBody) {
      const json = BoundedJson.parse(text, maxJsonDepth)
      if (Result.isSuccess(json)) return this.value(json.success, depth + 1)
    }
    const message = text.slice(0, longestMessage)
    if (!this.messages.includes(message)) this.messages.push(message)
  }

  value(value: unknown, depth: number): void {
    if (depth > maxDepth || this.objects.length >= maxObjects) return
    if (typeof value === "string") return this.text(value, depth)
    if (Array.isArray(value)) return value.slice(0, maxDepth).forEach((each) => this.value(each, depth + 1))
    if (isFields(value)) this.fields(value, depth)
  }

  private fields(fields: Fields, depth: number): void {
    this.objects.push(fields)
    for (const name of codeFields) this.codeField(fields[name])
    for (const name of messageFields) {
      const message = fields[name]
      if (typeof message === "string") this.text(message, depth + 1)
    }
    // OpenRouter's refusal of a prompt has no code of its own.
    if (typeof fields["flagged_input"] === "string") this.codes.push("moderation")
    this.param ??= typeof fields["param"] === "string" && fields["param"] !== "" ? fields["param"] : undefined
    for (const name of nestedFields) this.value(fields[name], depth + 1)
  }

  private codeField(value: unknown): void {
    const text = typeof value === "number" ? String(value) : value
    if (typeof text !== "string" || text === "") return
    const number = Number(text)
    if (number >= 400 && number < 600) this.status ??= number
    if (text === "error") return
    // A code explains more than a type or a status. An inner code explains more than the number that a gateway assigns.
    if (this.code === undefined || (isNumber.test(this.code) && !isNumber.test(text))) this.code = text
    if (isWord.test(text)) this.codes.push(text)
  }
}

const isNumber = /^\d+$/

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** The fields of an object whose values are strings or numbers, by lower-case name. */
export const headersOf = (fields: unknown): { readonly [name: string]: string } => {
  const headers: Record<string, string> = {}
  if (!isFields(fields)) return headers
  for (const [name, value] of Object.entries(fields)) {
    if (typeof value === "string" || typeof value === "number") headers[name.toLowerCase()] = String(value)
  }
  return headers
}
