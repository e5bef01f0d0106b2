/** Reads a line of the input as a prompt. */
import * as BoundedJson from "@sluice/core/BoundedJson"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as Fields from "./Fields.ts"
import type { Message } from "./Messages.ts"
import * as Messages from "./Messages.ts"

/** A line that is a prompt. */
export interface Prompt {
  readonly _tag: "Prompt"
  /** Counted from 1. */
  readonly line: number
  /** The line's own id. Printed only, never used as a key or path. */
  readonly id: string | undefined
  /** At least one message. */
  readonly messages: ReadonlyArray<Message>
  /** The line's own model, which overrides the flag. */
  readonly model: string | undefined
  /** The line's other request fields, under the names that the line gives them. They override the flags. */
  readonly body: Fields.Fields | undefined
}

/** A line that is no prompt, and why. */
export interface Malformed {
  readonly _tag: "Malformed"
  readonly line: number
  readonly id: string | undefined
  readonly message: string
}

export interface Format {
  readonly isPlain: boolean
  readonly system?: string | undefined
}

/** Limits the nesting of JSON. A request has about a dozen levels. */
const maxDepth = 64

export const read = (format: Format, line: number, text: string): Prompt | Malformed => {
  if (format.isPlain) return promptOf(format, line, undefined, fromText(text))
  const parsed = parse(text)
  if (Result.isFailure(parsed)) return malformed(line, undefined, parsed.failure)
  const id = idOf(parsed.success)
  const request = fromJson(parsed.success)
  return Result.isFailure(request)
    ? malformed(line, id, request.failure)
    : promptOf(format, line, id, request.success)
}

const promptOf = (
  { system }: Format,
  line: number,
  id: string | undefined,
  { body, messages, model }: Request
): Prompt => ({
  _tag: "Prompt",
  line,
  id,
  messages: system === undefined ? messages : [systemMessage(system), ...messages],
  model,
  body
})

const malformed = (line: number, id: string | undefined, message: string): Malformed => ({
  _tag: "Malformed",
  line,
  id,
  message: oneLine(message)
})

/** A message may quote the line, which may be long. */
const oneLine = (message: string): string => message.replaceAll(/\s+/g, " ").slice(0, 200)

const systemMessage = (content: string): Message => ({ role: "system", content })

type Request = Pick<Prompt, "messages" | "model" | "body">

const fromText = (text: string): Request => ({
  messages: [{ role: "user", content: text }],
  model: undefined,
  body: undefined
})

/** As `JSON.parse` returns it. */
type Json = { readonly [key: string]: Schema.Json }

const isRecord = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

const parse = (text: string): Result.Result<Json, string> => {
  const parsed = BoundedJson.parse(text, maxDepth)
  if (Result.isFailure(parsed)) {
    return Result.fail(
      parsed.failure === "TooDeep" ? `the JSON nests more than ${maxDepth} levels deep` : "the line is not JSON"
    )
  }
  return isRecord(parsed.success)
    ? Result.succeed(parsed.success)
    : Result.fail("the line is JSON, but not an object")
}

/** Reads the id even if the rest of the line is wrong, so that users can find the line. */
const idOf = (json: Json): string | undefined => idIn(json, "custom_id") ?? idIn(json, "id")

const idIn = (json: Json, name: string): string | undefined => {
  const id = own(json, name)
  return typeof id === "string" || typeof id === "number" ? String(id) : undefined
}

/** A field of the line itself. `__proto__` and `constructor` are none. */
const own = (json: Json, name: string): Schema.Json | undefined => Object.hasOwn(json, name) ? json[name] : undefined

// ---------- the forms of a line

// Every line of a file passes here, twice if a run is resumed. A generator would cost more than parsing the line.
const fromJson = (json: Json): Result.Result<Request, string> => {
  if (Object.hasOwn(json, "body")) return fromBatch(json)
  const messages = messagesOf(json)
  if (Result.isFailure(messages)) return Result.fail(messages.failure)
  const system = textOf(json, "system", "system")
  if (Result.isFailure(system)) return Result.fail(system.failure)
  return requestOf(
    json,
    "line",
    "model",
    system.success === undefined ? messages.success : [systemMessage(system.success), ...messages.success]
  )
}

/** Reads the model and the request fields beside these messages. */
const requestOf = (
  json: Json,
  place: Fields.Place,
  modelPath: string,
  messages: ReadonlyArray<Message>
): Result.Result<Request, string> => {
  const model = textOf(json, "model", modelPath)
  if (Result.isFailure(model)) return Result.fail(model.failure)
  const body = Fields.read(json, place)
  if (Result.isFailure(body)) return Result.fail(body.failure)
  return Result.succeed({ messages, model: model.success, body: body.success })
}

const messagesOf = (json: Json): Result.Result<ReadonlyArray<Message>, string> => {
  const hasPrompt = Object.hasOwn(json, "prompt")
  if (Object.hasOwn(json, "messages")) {
    return hasPrompt
      ? Result.fail(`the line has both "prompt" and "messages"`)
      : Messages.read(json["messages"], "messages")
  }
  if (!hasPrompt) return Result.fail(`the line has neither "prompt" nor "messages" nor "body"`)
  const prompt = textOf(json, "prompt", "prompt")
  if (Result.isFailure(prompt)) return Result.fail(prompt.failure)
  return prompt.success === undefined
    ? Result.fail("prompt must be a text")
    : Result.succeed(fromText(prompt.success).messages)
}

/** A text that is not empty. `undefined` if it is absent or null. */
const textOf = (json: Json, name: string, path: string): Result.Result<string | undefined, string> => {
  const value = own(json, name)
  if (value === undefined || value === null) return absent
  if (typeof value !== "string") return Result.fail(`${path} must be a text`)
  return value.trim() === "" ? Result.fail(`${path} must not be empty`) : Result.succeed(value)
}

const absent: Result.Result<undefined, string> = Result.succeed(undefined)

const path = "/chat/completions"

const fromBatch = (json: Json): Result.Result<Request, string> => {
  const { body, ...line } = json
  if (!isRecord(body)) return Result.fail("body must be an object")
  const url = textOf(line, "url", "url")
  if (Result.isFailure(url)) return Result.fail(url.failure)
  if (url.success !== undefined && !url.success.endsWith(path)) return Result.fail(`url must end in ${path}`)
  const misplaced = Fields.misplaced(line)
  if (misplaced !== undefined) return Result.fail(misplaced)
  const messages = Messages.read(own(body, "messages"), "body.messages")
  return Result.isFailure(messages)
    ? Result.fail(messages.failure)
    : requestOf(body, "body", "body.model", messages.success)
}
