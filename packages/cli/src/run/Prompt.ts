/** Reads a record of the input as a prompt. */
import * as BoundedJson from "@sluice/core/BoundedJson"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as Fields from "./Fields.ts"
import type { Message } from "./Messages.ts"
import * as Messages from "./Messages.ts"
import type { Record } from "./Records.ts"
import type { Row } from "./Table.ts"
import type { Template } from "./Template.ts"

/** A line that is a prompt. */
export interface Prompt {
  readonly _tag: "Prompt"
  /** Counted from 1. */
  readonly line: number
  /** The number of the sample, from 1. `undefined` without `--samples`. */
  readonly sample?: number | undefined
  /** The line's own id. Printed only, never used as a key or path. */
  readonly id: string | undefined
  /** At least one message. */
  readonly messages: ReadonlyArray<Message>
  /** The line's own model, which overrides the flag. */
  readonly model: string | undefined
  /** The line's other request fields, under the names that the line gives them. They override the flags. */
  readonly body: Fields.Fields | undefined
  /** The line as it was read, for its result. */
  readonly input?: Schema.Json | undefined
}

/** A line that is no prompt, and why. */
export interface Malformed {
  readonly _tag: "Malformed"
  readonly line: number
  readonly id: string | undefined
  readonly message: string
  readonly input?: Schema.Json | undefined
}

export interface Format {
  readonly system?: string | undefined
  /** Makes the prompt of each line from its fields. */
  readonly template?: Template | undefined
  /** Keeps each line for its result. */
  readonly includeInput?: boolean | undefined
}

/** Limits the nesting of JSON. A request has about a dozen levels. */
const maxDepth = 64

/** Longer cells of a table are not repeated in its results, unless the whole input is. */
const maxCell = 1_000

export const read = (format: Format, record: Record): Prompt | Malformed => {
  switch (record._tag) {
    case "Unreadable":
      return { _tag: "Malformed", line: record.line, id: undefined, message: record.why }
    case "Row":
      return readRow(format, record)
    case "Line":
      return record.isPlain ? readText(format, record) : readJson(format, record)
  }
}

interface Source {
  readonly line: number
  readonly id: string | undefined
  /** Repeated in the result. `undefined`: the result does not have it. */
  readonly input: Schema.Json | undefined
}

const made = (
  { system }: Format,
  { id, input, line }: Source,
  request: Result.Result<Request, string>
): Prompt | Malformed => {
  if (Result.isFailure(request)) {
    const malformed = { _tag: "Malformed", line, id, message: oneLine(request.failure) } as const
    return input === undefined ? malformed : { ...malformed, input }
  }
  const { body, messages, model } = request.success
  const prompt = {
    _tag: "Prompt",
    line,
    id,
    messages: system === undefined ? messages : [systemMessage(system), ...messages],
    model,
    body
  } as const
  return input === undefined ? prompt : { ...prompt, input }
}

/** A message may quote the line, which may be long. */
const oneLine = (message: string): string => message.replaceAll(/\s+/g, " ").slice(0, 200)

const systemMessage = (content: string): Message => ({ role: "system", content })

type Request = Pick<Prompt, "messages" | "model" | "body">

const fromText = (text: string): Result.Result<Request, string> =>
  text.trim() === ""
    ? Result.fail("prompt must not be empty")
    : Result.succeed({ messages: userMessage(text), model: undefined, body: undefined })

const userMessage = (content: string): ReadonlyArray<Message> => [{ role: "user", content }]

/** The name of a plain line in a template. */
const textField = "text"

const readText = (format: Format, { line, text }: { readonly line: number; readonly text: string }) => {
  const prompt = format.template === undefined ? Result.succeed(text) : format.template.render({
    names: [textField],
    valueOf: (name) => name === textField ? text : undefined
  })
  const input = format.includeInput === true ? text : undefined
  return made(format, { line, id: undefined, input }, Result.flatMap(prompt, fromText))
}

/** Reads a row. Its columns are the user's own, so none but `prompt` and those of the template changes the request. */
const readRow = (format: Format, { cells, line, problem }: Row): Prompt | Malformed => {
  const names = Object.keys(cells)
  const idColumn = names.find((name) => name.toLowerCase() === "id")
  const source = {
    line,
    id: (idColumn === undefined ? undefined : cells[idColumn]) || undefined,
    input: format.includeInput === true
      ? cells
      : Object.fromEntries(Object.entries(cells).filter(([, cell]) => cell.length <= maxCell))
  }
  if (problem !== undefined) return made(format, source, Result.fail(problem))
  const prompt = format.template === undefined
    ? Result.succeed(cells["prompt"] ?? "")
    : format.template.render({ names, valueOf: (name) => cells[name] })
  return made(format, source, Result.flatMap(prompt, fromText))
}

const readJson = (format: Format, { line, text }: { readonly line: number; readonly text: string }) => {
  const parsed = parse(text)
  const source = {
    line,
    id: Result.isSuccess(parsed) ? idOf(parsed.success) : undefined,
    input: format.includeInput === true ? Result.getOrElse(parsed, () => text) : undefined
  }
  const { template } = format
  return made(
    format,
    source,
    Result.flatMap(parsed, template === undefined ? fromJson : (json) => fromFields(json, template))
  )
}

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
  return Result.isFailure(messages) ? Result.fail(messages.failure) : withFields(json, messages.success)
}

/** Adds the system message and the request fields that are beside the messages. */
const withFields = (json: Json, messages: ReadonlyArray<Message>): Result.Result<Request, string> => {
  const system = textOf(json, "system", "system")
  if (Result.isFailure(system)) return Result.fail(system.failure)
  return requestOf(
    json,
    "line",
    "model",
    system.success === undefined ? messages : [systemMessage(system.success), ...messages]
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

/** Makes the prompt by the template. Fields that the template uses are no request fields. */
const fromFields = (json: Json, template: Template): Result.Result<Request, string> => {
  const prompt = template.render({ names: Object.keys(json), valueOf: (name) => shown(own(json, name)) })
  if (Result.isFailure(prompt)) return Result.fail(prompt.failure)
  const request = fromText(prompt.success)
  if (Result.isFailure(request)) return request
  const others = Object.fromEntries(Object.entries(json).filter(([name]) => !template.fields.includes(name)))
  return Object.hasOwn(others, "messages")
    ? Result.fail("the line has messages, which --prompt-template does not send")
    : withFields(others, request.success.messages)
}

/** A value in a template. */
const shown = (value: Schema.Json | undefined): string | undefined =>
  value === undefined || typeof value === "string" ? value : value === null ? "" : JSON.stringify(value)

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
    : Result.succeed(userMessage(prompt.success))
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
