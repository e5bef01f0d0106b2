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
  const parsed = format.isPlain ? undefined : parse(text)
  const id = parsed === undefined ? undefined : idOf(parsed)
  const request = parsed === undefined ? Result.succeed(fromText(text)) : Result.flatMap(parsed, fromJson)
  if (Result.isFailure(request)) return { _tag: "Malformed", line, id, message: oneLine(request.failure) }
  const { messages, ...fields } = request.success
  return { _tag: "Prompt", line, id, ...fields, messages: [...systemMessage(format.system), ...messages] }
}

/** A message may quote the line, which may be long. */
const oneLine = (message: string): string => message.replaceAll(/\s+/g, " ").slice(0, 200)

const systemMessage = (system: string | undefined): ReadonlyArray<Message> =>
  system === undefined ? [] : [{ role: "system", content: system }]

type Request = Pick<Prompt, "messages" | "model" | "body">

const fromText = (text: string): Request => ({
  messages: [{ role: "user", content: text }],
  model: undefined,
  body: undefined
})

/** As `JSON.parse` returns it. */
type Json = { readonly [key: string]: Schema.Json }

const isRecord = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

const parse = (text: string): Result.Result<Json, string> =>
  Result.flatMap(
    Result.mapError(BoundedJson.parse(text, maxDepth), (why) =>
      why === "TooDeep" ? `the JSON nests more than ${maxDepth} levels deep` : "the line is not JSON"),
    (json) =>
      isRecord(json) ? Result.succeed(json) : Result.fail("the line is JSON, but not an object")
  )

/** Reads the id even if the rest of the line is wrong, so that users can find the line. */
const idOf = (parsed: Result.Result<Json, string>): string | undefined => {
  if (Result.isFailure(parsed)) return undefined
  const ids = ["custom_id", "id"].map((name) => own(parsed.success, name))
  const id = ids.find((id) => typeof id === "string" || typeof id === "number")
  return id === undefined ? undefined : String(id)
}

/** A field of the line itself. `__proto__` and `constructor` are none. */
const own = (json: Json, name: string): Schema.Json | undefined => Object.hasOwn(json, name) ? json[name] : undefined

// ---------- the forms of a line

const fromJson = (json: Json): Result.Result<Request, string> => {
  if (Object.hasOwn(json, "body")) return fromBatch(json)
  return Result.gen(function*() {
    const messages = yield* messagesOf(json)
    const system = yield* textOf(json, "system", "system")
    return {
      messages: [...systemMessage(system), ...messages],
      model: yield* textOf(json, "model", "model"),
      body: yield* Fields.read(json, "line")
    }
  })
}

const messagesOf = (json: Json): Result.Result<ReadonlyArray<Message>, string> => {
  const hasPrompt = Object.hasOwn(json, "prompt")
  if (Object.hasOwn(json, "messages")) {
    return hasPrompt
      ? Result.fail(`the line has both "prompt" and "messages"`)
      : Messages.read(json["messages"], "messages")
  }
  if (!hasPrompt) return Result.fail(`the line has neither "prompt" nor "messages" nor "body"`)
  return Result.flatMap(
    textOf(json, "prompt", "prompt"),
    (prompt) => prompt === undefined ? Result.fail("prompt must be a text") : Result.succeed(fromText(prompt).messages)
  )
}

/** A text that is not empty. `undefined` if it is absent or null. */
const textOf = (json: Json, name: string, path: string): Result.Result<string | undefined, string> => {
  const value = own(json, name)
  if (value === undefined || value === null) return Result.succeed(undefined)
  if (typeof value !== "string") return Result.fail(`${path} must be a text`)
  return value.trim() === "" ? Result.fail(`${path} must not be empty`) : Result.succeed(value)
}

const path = "/chat/completions"

const fromBatch = (json: Json): Result.Result<Request, string> =>
  Result.gen(function*() {
    const { body, ...line } = json
    if (!isRecord(body)) return yield* Result.fail("body must be an object")
    const url = yield* textOf(line, "url", "url")
    if (url !== undefined && !url.endsWith(path)) return yield* Result.fail(`url must end in ${path}`)
    const misplaced = Fields.misplaced(line)
    if (misplaced !== undefined) return yield* Result.fail(misplaced)
    return {
      messages: yield* Messages.read(own(body, "messages"), "body.messages"),
      model: yield* textOf(body, "model", "body.model"),
      body: yield* Fields.read(body, "body")
    }
  })
