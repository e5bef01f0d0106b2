/**
 * A turn: how a test provider responds to one request. An answer, a slow or broken one, a refusal, or silence.
 *
 * Turns are data, so they fit on one line of a test, or into a file.
 *
 * **When to use**
 *
 * To script the provider of a test: "first overloaded, then truncated, then an answer". `ScriptedModel` plays turns
 * without a socket and on the `TestClock`. `LoopbackProvider` plays them over HTTP, in the format of OpenAI or
 * Anthropic. For faults at random over many prompts, use `Script`.
 *
 * **Details**
 *
 * | turn | response |
 * |---|---|
 * | `answer`, `toolCall`, `reasoning`, `empty` | a complete answer |
 * | `noFinish` | the whole answer without a finish reason, and a clean end |
 * | `stall` | some tokens, then silence |
 * | `cut` | some tokens, then a clean end of the connection |
 * | `reset` | a connection reset, before or within the answer |
 * | `malformed` | some tokens, an event that is not JSON, and the rest |
 * | `error` | some tokens, then an error event, after status 200 |
 * | `status`, `redirect`, `html` | a response with this status, and no answer |
 * | `refusal` | an error with the status and the code that the format has for the reason |
 * | `hang` | silence |
 *
 * A token is a word with the space before it; a long word is several. A break after more tokens than the answer has
 * comes after its last one.
 *
 * A turn without `content` answers with the `answer` option of its player, by default an echo of the prompt.
 *
 * **Example** (Turns as data)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Turn from "@sluice/ai/testing/Turn"
 *
 * console.log(Turn.status(503, { retryAfter: "2 seconds" }))
 * // => { _tag: 'Status', status: 503, retryAfterMillis: 2000 }
 *
 * const fromFile = Turn.decodeAll([{ _tag: "Stall", afterTokens: 3 }, { _tag: "Answer", content: "Good morning" }])
 * console.log((await Effect.runPromise(fromFile)).length) // => 2
 *
 * const wrong = Effect.flip(Turn.decode({ _tag: "Stall", afterTokens: -3 }))
 * console.log((await Effect.runPromise(wrong)).message.includes("afterTokens")) // => true
 * ```
 *
 * @since 0.1.0
 */
// One long file, since the schema and the constructor of each turn are read together.
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Schema from "effect/Schema"

const orElse = <A>(value: A) => Schema.withDecodingDefaultKey<Schema.Codec<A, A>>(Effect.succeed(value))

const Millis = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/**
 * A piece of an answer.
 *
 * @since 0.1.0
 * @category models
 */
export const Block = Schema.Union([
  Schema.Struct({ type: Schema.tag("text"), text: Schema.String }),
  /** The model's thoughts. */
  Schema.Struct({ type: Schema.tag("reasoning"), text: Schema.String }),
  Schema.Struct({
    type: Schema.tag("tool-call"),
    name: Schema.String,
    /** The parameters. They are not checked against the tool's schema. */
    params: Schema.Unknown,
    /** Default: generated, unique to the request. */
    id: Schema.optionalKey(Schema.String)
  })
])

/**
 * @since 0.1.0
 * @category models
 */
export type Block = typeof Block.Type

/**
 * The content of an answer: a text, or several pieces.
 *
 * @since 0.1.0
 * @category models
 */
export const Content = Schema.Union([Schema.String, Schema.Array(Block)])

/**
 * @since 0.1.0
 * @category models
 */
export type Content = typeof Content.Type

/**
 * The tokens that are billed.
 *
 * @since 0.1.0
 * @category models
 */
export const Usage = Schema.Struct({ inputTokens: Count, outputTokens: Count })

/**
 * @since 0.1.0
 * @category models
 */
export type Usage = typeof Usage.Type

/**
 * The finish reason of an answer, by Effect's names. `none`: the answer has none.
 *
 * @since 0.1.0
 * @category models
 */
export const Finish: Schema.Literals<["stop", "length", "content-filter", "tool-calls", "none"]> = Schema.Literals([
  "stop",
  "length",
  "content-filter",
  "tool-calls",
  "none"
])

/**
 * @since 0.1.0
 * @category models
 */
export type Finish = typeof Finish.Type

const everyTurn = {
  /** Time before anything is sent. Default 0. */
  delayMillis: Schema.optionalKey(Millis)
}

const everyAnswer = {
  ...everyTurn,
  /** Default: the player's `answer` option. */
  content: Schema.optionalKey(Content),
  /** Time to the first token. Default: the player's pace, which is 0 by default. */
  firstTokenMillis: Schema.optionalKey(Millis),
  /** Time between tokens. Default: the player's pace, which is 0 by default. */
  tokenMillis: Schema.optionalKey(Millis),
  /** Tokens in one event of a stream. Default: the player's pace, which is 1 by default. */
  tokensPerChunk: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))),
  /** The reported token counts. `none`: the answer has no usage. Default: the tokens are counted. */
  usage: Schema.optionalKey(Schema.Union([Usage, Schema.Literal("none")])),
  /** Default `tool-calls` if there are tool calls, otherwise `stop`. */
  finish: Schema.optionalKey(Finish)
}

/**
 * How often a stream sends a keep-alive while it is silent: a comment, or Anthropic's `ping`. A consumer of parts does
 * not see it. Default: never.
 */
const pingMillis = Schema.optionalKey(Millis.check(Schema.isGreaterThan(0)))

/** How many tokens are sent before the break. Default 1. */
const afterTokens = Count.pipe(orElse(1))

/**
 * A complete answer.
 *
 * @since 0.1.0
 * @category models
 */
export const Answer = Schema.TaggedStruct("Answer", {
  ...everyAnswer,
  /** Whether a stream ends with the format's last event, `[DONE]` or `message_stop`. Default true. */
  done: Schema.Boolean.pipe(orElse(true))
})

/**
 * Some tokens, then silence.
 *
 * @since 0.1.0
 * @category models
 */
export const Stall = Schema.TaggedStruct("Stall", {
  ...everyAnswer,
  afterTokens,
  /** How long it is silent before the answer continues to its end. Default: for ever. */
  forMillis: Schema.optionalKey(Millis),
  pingMillis
})

/**
 * Some tokens, then a clean end of the connection. Without streaming: half of the answer's JSON.
 *
 * @since 0.1.0
 * @category models
 */
export const Cut = Schema.TaggedStruct("Cut", { ...everyAnswer, afterTokens })

/**
 * A connection reset.
 *
 * @since 0.1.0
 * @category models
 */
export const Reset = Schema.TaggedStruct("Reset", {
  ...everyAnswer,
  /** Resets the connection within the answer, after this many tokens. Default: before the answer. */
  afterTokens: Schema.optionalKey(Count)
})

/**
 * Some tokens, an event that is not JSON, and the rest. Without streaming: `text` alone.
 *
 * @since 0.1.0
 * @category models
 */
export const Malformed = Schema.TaggedStruct("Malformed", {
  ...everyAnswer,
  afterTokens,
  /** The text of the event. Default: the beginning of a JSON object. */
  text: Schema.String.pipe(orElse("{\"choices\":[{\"ind"))
})

/**
 * Some tokens, then an error event. Without streaming: the error with status 200.
 *
 * @since 0.1.0
 * @category models
 */
export const StreamError = Schema.TaggedStruct("Error", {
  ...everyAnswer,
  afterTokens,
  /** The provider's name for the error, such as `overloaded_error` or `server_error`. */
  type: Schema.String,
  message: Schema.String,
  /** OpenAI's format only. */
  code: Schema.optionalKey(Schema.Union([Schema.String, Schema.Int]))
})

/**
 * Fields of an error object. The others are those that the format has for the status.
 *
 * @since 0.1.0
 * @category models
 */
export const ErrorBody = Schema.Struct({
  type: Schema.optionalKey(Schema.String),
  message: Schema.optionalKey(Schema.String),
  /** OpenAI's format only. */
  code: Schema.optionalKey(Schema.NullOr(Schema.String)),
  /** OpenAI's format only. */
  param: Schema.optionalKey(Schema.NullOr(Schema.String))
})

/**
 * A whole response with this status.
 *
 * @since 0.1.0
 * @category models
 */
export const Status = Schema.TaggedStruct("Status", {
  ...everyTurn,
  status: Schema.Int.check(Schema.isBetween({ minimum: 200, maximum: 599 })),
  headers: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  /** The error in the body. Default: the one that the format has for the status. */
  error: Schema.optionalKey(ErrorBody),
  /** The body, instead of an error. */
  body: Schema.optionalKey(Schema.String),
  /** Sent as `Retry-After`, and also as `retry-after-ms` unless it is whole seconds. Default: not sent. */
  retryAfterMillis: Schema.optionalKey(Millis)
})

/**
 * Why a provider refuses a request.
 *
 * **Details**
 *
 * | why | OpenAI's format | Anthropic's format |
 * |---|---|---|
 * | `rateLimit` | 429 `rate_limit_exceeded` | 429 `rate_limit_error` |
 * | `overloaded` | 503 `server_error` | 529 `overloaded_error` |
 * | `failed` | 500 `server_error` | 500 `api_error` |
 * | `quota` | 429 `insufficient_quota` | 400 `invalid_request_error`, "credit balance is too low" |
 * | `key` | 401 `invalid_api_key` | 401 `authentication_error` |
 * | `permission` | 403 | 403 `permission_error` |
 * | `model` | 404 `model_not_found` | 404 `not_found_error` |
 * | `contextLength` | 400 `context_length_exceeded` | 400 `invalid_request_error`, "prompt is too long" |
 * | `contentPolicy` | 400 `content_policy_violation` | 400 `invalid_request_error`, "content filtering policy" |
 * | `request` | 400 `invalid_request_error` | 400 `invalid_request_error` |
 *
 * @since 0.1.0
 * @category models
 */
export const Why: Schema.Literals<
  [
    "rateLimit",
    "overloaded",
    "failed",
    "quota",
    "key",
    "permission",
    "model",
    "contextLength",
    "contentPolicy",
    "request"
  ]
> = Schema.Literals([
  "rateLimit",
  "overloaded",
  "failed",
  "quota",
  "key",
  "permission",
  "model",
  "contextLength",
  "contentPolicy",
  "request"
])

/**
 * @since 0.1.0
 * @category models
 */
export type Why = typeof Why.Type

/**
 * A refusal for this reason.
 *
 * @since 0.1.0
 * @category models
 */
export const Refusal = Schema.TaggedStruct("Refusal", {
  ...everyTurn,
  why: Why,
  /** As in `Status`. */
  retryAfterMillis: Schema.optionalKey(Millis)
})

/**
 * Silence until the client closes the connection.
 *
 * @since 0.1.0
 * @category models
 */
export const Hang = Schema.TaggedStruct("Hang", {
  ...everyTurn,
  /** Whether status 200 and the headers are sent first. Default false. */
  headers: Schema.Boolean.pipe(orElse(false)),
  /** As in `Stall`, if headers are sent. */
  pingMillis
})

/**
 * How a provider responds to one request.
 *
 * @since 0.1.0
 * @category models
 */
export const Turn = Schema.Union([Answer, Stall, Cut, Reset, Malformed, StreamError, Status, Refusal, Hang])

/**
 * @since 0.1.0
 * @category models
 */
export type Turn = typeof Turn.Type

/**
 * A turn in a file or in code: only what differs from the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export type Encoded = typeof Turn.Encoded

/**
 * The tags of the turns.
 *
 * @since 0.1.0
 * @category models
 */
export const Tag: Schema.Literals<
  ["Answer", "Stall", "Cut", "Reset", "Malformed", "Error", "Status", "Refusal", "Hang"]
> = Schema.Literals(["Answer", "Stall", "Cut", "Reset", "Malformed", "Error", "Status", "Refusal", "Hang"])

/**
 * A request, for a function that chooses turns.
 *
 * @since 0.1.0
 * @category models
 */
export interface Request {
  /** The number of the request, from 1. */
  readonly n: number
  /** The number of the attempt at this prompt: the one that the client sends, or else how often the prompt was seen. */
  readonly attempt: number
  /** The text of the last user message. */
  readonly prompt: string
  readonly model: string
  /** The format of the request. `undefined` for a `ScriptedModel`. */
  readonly wire: "openai" | "anthropic" | undefined
  readonly stream: boolean
  /** Milliseconds since the provider started, or was cleared. */
  readonly at: number
}

/**
 * The turn of each request: a list, or a function.
 *
 * **Details**
 *
 * A list is used in order, one turn for each request. Its last turn repeats. A function can choose by prompt, attempt
 * or time. If it returns `undefined`, the request is answered as if there were no turns.
 *
 * @since 0.1.0
 * @category models
 */
export type Turns = ReadonlyArray<Turn> | ((request: Request) => Turn | undefined)

// ---------- constructors

/**
 * How fast an answer is sent.
 *
 * @since 0.1.0
 * @category models
 */
export interface Pace {
  /** Time to the first token. */
  readonly firstTokenMillis?: number | undefined
  /** Time between tokens. */
  readonly tokenMillis?: number | undefined
  /** Tokens in one event of a stream. */
  readonly tokensPerChunk?: number | undefined
}

/**
 * Options for a broken answer.
 *
 * @since 0.1.0
 * @category models
 */
export interface Broken extends Pace {
  /** How many tokens are sent before the break. Default 1. */
  readonly afterTokens?: number | undefined
  /** The whole answer, of which a part is sent. Default: the player's `answer` option. */
  readonly content?: Content | undefined
}

/**
 * Options for a complete answer.
 *
 * @since 0.1.0
 * @category models
 */
export interface Ending extends Pace {
  readonly usage?: Usage | "none" | undefined
  readonly finish?: Finish | undefined
  /** Whether a stream ends with `[DONE]` or `message_stop`. Default true. */
  readonly done?: boolean | undefined
}

/**
 * A complete answer. Without content it is the player's `answer` option.
 *
 * @since 0.1.0
 * @category constructors
 */
export const answer = (content?: Content, ending?: Ending): Turn => ({
  _tag: "Answer",
  ...defined({ content }),
  ...defined({ ...ending, done: undefined }),
  done: ending?.done ?? true
})

/**
 * An answer that calls a tool. For several calls, or text beside them, pass blocks to `answer`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const toolCall = (
  name: string,
  params: unknown,
  options?: Ending & { readonly id?: string | undefined }
): Turn => {
  const { id, ...ending } = options ?? {}
  return answer([{ type: "tool-call", name, params, ...defined({ id }) }], ending)
}

/**
 * An answer with reasoning before the text.
 *
 * @since 0.1.0
 * @category constructors
 */
export const reasoning = (thoughts: string, text: string, ending?: Ending): Turn =>
  answer([{ type: "reasoning", text: thoughts }, { type: "text", text }], ending)

/**
 * A complete answer without content, as some models send it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const empty = (ending?: Ending): Turn => answer([], ending)

/**
 * The whole answer without a finish reason, and a clean end. A client cannot know that it is complete.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noFinish = (content?: Content, ending?: Omit<Ending, "finish">): Turn =>
  answer(content, { ...ending, finish: "none" })

/**
 * Some tokens, then silence for `duration`, by default for ever. With `ping` a stream sends a keep-alive this often:
 * the connection looks alive, the answer does not continue.
 *
 * @since 0.1.0
 * @category constructors
 */
export const stall = (
  options?: Broken & { readonly duration?: Duration.Input | undefined; readonly ping?: Duration.Input | undefined }
): Turn => {
  const { duration, ping, ...broken } = options ?? {}
  return { _tag: "Stall", ...breaking(broken), ...defined({ forMillis: millis(duration), pingMillis: millis(ping) }) }
}

/**
 * Some tokens, then a clean end of the connection.
 *
 * @since 0.1.0
 * @category constructors
 */
export const cut = (options?: Broken): Turn => ({ _tag: "Cut", ...breaking(options) })

/**
 * A connection reset: before the answer, or within it after `afterTokens`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const reset = (options?: Broken): Turn => ({ _tag: "Reset", ...defined({ ...options }) })

/**
 * Some tokens, an event that is not JSON, and the rest.
 *
 * @since 0.1.0
 * @category constructors
 */
export const malformed = (options?: Broken & { readonly text?: string | undefined }): Turn => {
  const { text, ...broken } = options ?? {}
  return { _tag: "Malformed", ...breaking(broken), text: text ?? "{\"choices\":[{\"ind" }
}

/**
 * Some tokens, then an error event.
 *
 * @since 0.1.0
 * @category constructors
 */
export const error = (
  options: Broken & {
    /** The provider's name for the error, such as `overloaded_error`. */
    readonly type: string
    readonly message: string
    /** OpenAI's format only. */
    readonly code?: string | number | undefined
  }
): Turn => {
  const { code, message, type, ...broken } = options
  return { _tag: "Error", ...breaking(broken), type, message, ...defined({ code }) }
}

/**
 * A response with this status. Its body is the format's error for the status, unless you pass another.
 *
 * @since 0.1.0
 * @category constructors
 */
export const status = (
  status: number,
  options?: {
    readonly headers?: { readonly [name: string]: string } | undefined
    readonly error?: typeof ErrorBody.Type | undefined
    readonly body?: string | undefined
    readonly retryAfter?: Duration.Input | undefined
  }
): Turn => {
  const { retryAfter, ...rest } = options ?? {}
  return { _tag: "Status", status, ...defined({ ...rest, retryAfterMillis: millis(retryAfter) }) }
}

/**
 * A redirect. The default status 307 makes a client repeat the request there, with key and prompt.
 *
 * @since 0.1.0
 * @category constructors
 */
export const redirect = (location: string, code = 307): Turn => status(code, { headers: { location }, body: "" })

/**
 * An HTML page instead of an answer, as a proxy or a login page sends it. Default status 200.
 *
 * @since 0.1.0
 * @category constructors
 */
export const html = (code = 200): Turn =>
  status(code, {
    headers: { "content-type": "text/html; charset=utf-8" },
    body: "<!doctype html><html><body>Please sign in</body></html>"
  })

/**
 * A refusal for this reason, as the request's format reports it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const refusal = (why: Why, options?: { readonly retryAfter?: Duration.Input | undefined }): Turn => ({
  _tag: "Refusal",
  why,
  ...defined({ retryAfterMillis: millis(options?.retryAfter) })
})

/**
 * Silence until the client closes the connection. With `headers` it comes after status 200 and the headers, and with
 * `ping` it has keep-alives.
 *
 * @since 0.1.0
 * @category constructors
 */
export const hang = (
  options?: { readonly headers?: boolean | undefined; readonly ping?: Duration.Input | undefined }
): Turn => ({
  _tag: "Hang",
  headers: options?.headers ?? false,
  ...defined({ pingMillis: millis(options?.ping) })
})

// ---------- combinators

/**
 * Delays a turn. Nothing is sent before it.
 *
 * @since 0.1.0
 * @category combinators
 */
export const delay: {
  (duration: Duration.Input): (self: Turn) => Turn
  (self: Turn, duration: Duration.Input): Turn
} = dual(2, (self: Turn, duration: Duration.Input): Turn => ({
  ...self,
  delayMillis: (self.delayMillis ?? 0) + Duration.toMillis(Duration.fromInputUnsafe(duration))
}))

/**
 * Repeats a turn, for a list of turns.
 *
 * @since 0.1.0
 * @category combinators
 */
export const repeat: {
  (times: number): (self: Turn) => ReadonlyArray<Turn>
  (self: Turn, times: number): ReadonlyArray<Turn>
} = dual(2, (self: Turn, times: number): ReadonlyArray<Turn> => Array.from({ length: times }, () => self))

// ---------- decoding

const strict = { onExcessProperty: "error", errors: "all" } as const

/**
 * Decodes a turn. An unknown field is an error, since it would have no effect.
 *
 * @since 0.1.0
 * @category decoding
 */
export const decode: (turn: unknown) => Effect.Effect<Turn, Schema.SchemaError> = Schema.decodeUnknownEffect(
  Turn,
  strict
)

/**
 * Decodes a list of turns.
 *
 * @since 0.1.0
 * @category decoding
 */
export const decodeAll: (turns: unknown) => Effect.Effect<ReadonlyArray<Turn>, Schema.SchemaError> = Schema
  .decodeUnknownEffect(Schema.Array(Turn), strict)

type Defined<A> = { [K in keyof A]: Exclude<A[K], undefined> }

// Drops the keys without a value. Exact optional properties do not accept `undefined`.
const defined = <A extends object>(fields: A): Partial<Defined<A>> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Partial<Defined<A>>

const breaking = (options: Broken | undefined) => ({
  ...defined({ ...options, afterTokens: undefined }),
  afterTokens: options?.afterTokens ?? 1
})

const millis = (duration: Duration.Input | undefined): number | undefined =>
  duration === undefined ? undefined : Duration.toMillis(Duration.fromInputUnsafe(duration))
