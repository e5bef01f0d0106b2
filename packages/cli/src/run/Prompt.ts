/** Reads a line of the input as a prompt. */
import * as BoundedJson from "@sluice/core/BoundedJson"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

export interface Message {
  readonly role: "system" | "user" | "assistant"
  readonly content: string
}

/** A line that is a prompt. */
export interface Prompt {
  readonly _tag: "Prompt"
  /** Counted from 1. */
  readonly line: number
  /** The line's own id. Printed only, never used as a key or path. */
  readonly id: string | undefined
  /** At least one message. */
  readonly messages: ReadonlyArray<Message>
  /** The line's own settings, which override the flags. */
  readonly model: string | undefined
  readonly temperature: number | undefined
  readonly maxTokens: number | undefined
  /** Other request fields, from an allowlist. */
  readonly body: { readonly [field: string]: Schema.Json } | undefined
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
  if (Result.isFailure(request)) return { _tag: "Malformed", line, id, message: request.failure }
  const { messages, ...fields } = request.success
  const system = format.system === undefined ? [] : [{ role: "system" as const, content: format.system }]
  return { _tag: "Prompt", line, id, ...fields, messages: [...system, ...messages] }
}

type Request = Omit<Prompt, "_tag" | "line" | "id">

const fromText = (text: string, messages: ReadonlyArray<Message> = [{ role: "user", content: text }]): Request => ({
  messages,
  model: undefined,
  temperature: undefined,
  maxTokens: undefined,
  body: undefined
})

type Json = { readonly [key: string]: unknown }

const fromJson = (json: Json): Result.Result<Request, string> => {
  const form = forms.find(({ field }) => Object.hasOwn(json, field))
  return form === undefined
    ? Result.fail(`the line has neither "prompt" nor "messages" nor "body"`)
    : form.read(json)
}

const isRecord = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

const parse = (text: string): Result.Result<Json, string> =>
  Result.flatMap(
    Result.mapError(BoundedJson.parse(text, maxDepth), (why) =>
      why === "TooDeep" ? `the JSON nests more than ${maxDepth} levels deep` : "the line is not JSON"),
    (json) =>
      isRecord(json) ? Result.succeed(json) : Result.fail("the line is JSON, but not an object")
  )

// ---------- ids

const Id = Schema.Union([Schema.String, Schema.Finite])
const decodeId = Schema.decodeUnknownOption(Schema.Struct({
  id: Schema.optional(Id),
  custom_id: Schema.optional(Id)
}))

/** Reads the id even if the rest of the line is wrong, so that users can find the line. */
const idOf = (parsed: Result.Result<Json, string>): string | undefined => {
  const ids = Result.isSuccess(parsed) ? Option.getOrUndefined(decodeId(parsed.success)) : undefined
  const id = ids?.custom_id ?? ids?.id
  return id === undefined ? undefined : String(id)
}

// ---------- the forms of a line

const NonEmpty = Schema.String.check(Schema.makeFilter((text) => text.trim() !== "" || "must not be empty"))

const TextPart = Schema.Struct({ type: Schema.Literal("text"), text: Schema.String })
const WireMessage = Schema.Struct({
  role: Schema.Literals(["system", "developer", "user", "assistant"]),
  content: Schema.Union([Schema.String, Schema.Array(TextPart)])
})
const WireMessages = Schema.Array(WireMessage).check(
  Schema.makeFilter((messages) => messages.some(({ role }) => role === "user") || "must include a user message")
)

const LineWithId = { id: Schema.optional(Id) }
const PromptLine = Schema.Struct({ ...LineWithId, prompt: NonEmpty })
const MessagesLine = Schema.Struct({ ...LineWithId, messages: WireMessages })

const Tokens = Schema.optional(Schema.NullOr(Schema.Int.check(Schema.isGreaterThan(0))))
const Body = Schema.Struct({
  messages: WireMessages,
  model: Schema.optional(NonEmpty),
  temperature: Schema.optional(Schema.NullOr(Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 2 })))),
  max_tokens: Tokens,
  max_completion_tokens: Tokens
})
const BatchLine = Schema.Struct({
  custom_id: Schema.optional(Id),
  url: Schema.optional(Schema.String.check(
    Schema.makeFilter((url) => url.endsWith("/chat/completions") || "must end in /chat/completions")
  )),
  body: Schema.Record(Schema.String, Schema.Json)
})

const decode = <A, I>(schema: Schema.Codec<A, I>) => {
  const decodeResult = Schema.decodeUnknownResult(schema)
  return (value: unknown): Result.Result<A, string> =>
    Result.mapError(decodeResult(value), (error) => oneLine(error.message))
}

// A message may quote the line, which may be long.
const oneLine = (message: string): string => message.replaceAll(/\s*\n\s*/g, " ").slice(0, 200)

const decodePromptLine = decode(PromptLine)
const decodeMessagesLine = decode(MessagesLine)
const decodeBatchLine = decode(BatchLine)
const decodeBody = decode(Body)

const toMessage = ({ content, role }: typeof WireMessage.Type): Message => ({
  role: role === "developer" ? "system" : role,
  content: typeof content === "string" ? content : content.map((part) => part.text).join("")
})

const fromBatch = (json: unknown): Result.Result<Request, string> =>
  Result.gen(function*() {
    const { body: fields } = yield* decodeBatchLine(json)
    const body = yield* decodeBody(fields)
    const further = yield* furtherFields(fields)
    return {
      messages: body.messages.map(toMessage),
      model: body.model,
      temperature: body.temperature ?? undefined,
      maxTokens: body.max_completion_tokens ?? body.max_tokens ?? undefined,
      body: further
    }
  })

const forms: ReadonlyArray<{
  readonly field: string
  readonly read: (json: unknown) => Result.Result<Request, string>
}> = [
  { field: "body", read: fromBatch },
  {
    field: "messages",
    read: (json) => Result.map(decodeMessagesLine(json), ({ messages }) => fromText("", messages.map(toMessage)))
  },
  { field: "prompt", read: (json) => Result.map(decodePromptLine(json), ({ prompt }) => fromText(prompt)) }
]

// ---------- other fields of a batch line

/** Read above, or without influence on an answer. */
const known = new Set([
  "messages",
  "model",
  "temperature",
  "max_tokens",
  "max_completion_tokens",
  "stream",
  "stream_options",
  "store",
  "metadata",
  "user"
])

const passedOn = new Set([
  "top_p",
  "seed",
  "stop",
  "presence_penalty",
  "frequency_penalty",
  "response_format",
  "reasoning_effort"
])

/** Returns the fields to pass on. Fails for any other field, since the answer without it would not be the one requested. */
const furtherFields = (
  fields: { readonly [field: string]: Schema.Json }
): Result.Result<Prompt["body"], string> => {
  const further = Object.entries(fields).filter(([name]) => !known.has(name))
  const refused = further.find(([name]) => !passedOn.has(name))
  if (refused !== undefined) return Result.fail(`body.${refused[0].slice(0, 40)} is not supported`)
  return Result.succeed(further.length === 0 ? undefined : Object.fromEntries(further))
}
