/**
 * What one request meets: a good answer, a slow one, a broken one, a refusal, or silence. Turns are data, so that a test says
 * in one line what its provider does, and a file can hold them.
 *
 * **When to use**
 *
 * In a test of a policy that you wrote: "first it is overloaded, then it stops within the answer, then it is well". The same
 * turns are played by `ScriptedModel`, without a socket and on the `TestClock`, and by `LoopbackProvider`, over HTTP and in
 * the format of OpenAI or of Anthropic, whichever was asked. For faults that are spread over many prompts by their rates, see
 * `Script`.
 *
 * **Details**
 *
 * | turn | what is met |
 * |---|---|
 * | `answer`, `toolCall`, `reasoning`, `empty` | a complete answer, at the pace that it names |
 * | `noFinish` | all of the answer and a tidy end, without the reason why it ended |
 * | `stall` | some tokens, then silence |
 * | `cut` | some tokens, then a tidy end of the connection |
 * | `reset` | the connection is reset, before or within the answer |
 * | `malformed` | some tokens, an event that is no JSON, and the rest |
 * | `error` | some tokens, then an error within the stream, long after its status was 200 |
 * | `status`, `redirect`, `html` | a whole response with this status, and no answer |
 * | `refusal` | the same, in the words in which the format that was asked tells this reason |
 * | `hang` | silence |
 *
 * Tokens are words with the space before them. What a turn counts in tokens is bounded by its content: a cut after 100 tokens
 * of an answer of three comes after the third.
 *
 * A turn without `content` says what the one who plays it says anyway: an echo of the prompt, or its option `answer`.
 *
 * **Example** (The same as data)
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
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Schema from "effect/Schema"

const orElse = <A>(value: A) => Schema.withDecodingDefaultKey<Schema.Codec<A, A>>(Effect.succeed(value))

const Millis = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/**
 * One piece of an answer.
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
    /** What the tool is called with. As it is, whatever the tool's schema says. */
    params: Schema.Unknown,
    /** Left out: one that is unique to the request. */
    id: Schema.optionalKey(Schema.String)
  })
])

/**
 * @since 0.1.0
 * @category models
 */
export type Block = typeof Block.Type

/**
 * What an answer says: a text, or several pieces.
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
 * Tokens that are billed.
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
 * Why an answer ended, in Effect's words; each format has its own for it. `none`: it does not say.
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
  /** Time in which nothing at all is sent, before anything else. Left out: none. */
  delayMillis: Schema.optionalKey(Millis)
}

const everyAnswer = {
  ...everyTurn,
  /** What is said. Left out: what is said anyway, see above. */
  content: Schema.optionalKey(Content),
  /** Time to the first token. Left out: as the one who plays it is paced, which is at once by default. */
  firstTokenMillis: Schema.optionalKey(Millis),
  /** Time from token to token. Left out: as above. */
  tokenMillis: Schema.optionalKey(Millis),
  /** How many tokens go in one event of a stream. Left out: as above, which is one by default. */
  tokensPerChunk: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))),
  /** Token counts that are reported, or `none` for an answer without. Left out: words are counted. */
  usage: Schema.optionalKey(Schema.Union([Usage, Schema.Literal("none")])),
  /** Why the answer ended, if it gets so far. Left out: `tool-calls` if there are any, else `stop`. */
  finish: Schema.optionalKey(Finish)
}

/**
 * How often a sign of life is sent in the silence of a stream: a comment, or Anthropic's `ping`. It is nothing that a reader of
 * parts sees. Left out: never.
 */
const pingMillis = Schema.optionalKey(Millis.check(Schema.isGreaterThan(0)))

/** After how many tokens it happens. Default 1: the answer has begun. */
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
  /** After this the answer goes on, to its good end. Left out: never. */
  forMillis: Schema.optionalKey(Millis),
  pingMillis
})

/**
 * Some tokens, then a tidy end of the connection. Of an answer that is no stream: half of its JSON.
 *
 * @since 0.1.0
 * @category models
 */
export const Cut = Schema.TaggedStruct("Cut", { ...everyAnswer, afterTokens })

/**
 * The connection is reset.
 *
 * @since 0.1.0
 * @category models
 */
export const Reset = Schema.TaggedStruct("Reset", {
  ...everyAnswer,
  /** Within the answer, after so many tokens. Left out: before any answer. */
  afterTokens: Schema.optionalKey(Count)
})

/**
 * Some tokens, an event that is no JSON, and the rest to its good end. Of an answer that is no stream: nothing but this.
 *
 * @since 0.1.0
 * @category models
 */
export const Malformed = Schema.TaggedStruct("Malformed", {
  ...everyAnswer,
  afterTokens,
  /** What comes instead of JSON. Default: the beginning of an object. */
  text: Schema.String.pipe(orElse("{\"choices\":[{\"ind"))
})

/**
 * Some tokens, then an error within the stream. Of an answer that is no stream: the error with status 200.
 *
 * @since 0.1.0
 * @category models
 */
export const StreamError = Schema.TaggedStruct("Error", {
  ...everyAnswer,
  afterTokens,
  /** What kind of error, in the provider's words: `overloaded_error`, `server_error`. */
  type: Schema.String,
  message: Schema.String,
  /** In OpenAI's format only. */
  code: Schema.optionalKey(Schema.Union([Schema.String, Schema.Int]))
})

/**
 * An error object, as far as it is told. What is left out is what the format that was asked says with the status.
 *
 * @since 0.1.0
 * @category models
 */
export const ErrorBody = Schema.Struct({
  type: Schema.optionalKey(Schema.String),
  message: Schema.optionalKey(Schema.String),
  /** In OpenAI's format only. */
  code: Schema.optionalKey(Schema.NullOr(Schema.String)),
  /** In OpenAI's format only. */
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
  /** The error in its body. Left out: the one that goes with the status. */
  error: Schema.optionalKey(ErrorBody),
  /** The whole body as it is, instead of an error. */
  body: Schema.optionalKey(Schema.String),
  /** Sent as `Retry-After`, and as `retry-after-ms` too if it is no whole number of seconds. Left out: not sent. */
  retryAfterMillis: Schema.optionalKey(Millis)
})

/**
 * Why a provider refuses a request, whatever it is called in its format.
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
 * Silence that lasts until the client has had enough.
 *
 * @since 0.1.0
 * @category models
 */
export const Hang = Schema.TaggedStruct("Hang", {
  ...everyTurn,
  /** Whether status 200 and the headers come before it. Default false. */
  headers: Schema.Boolean.pipe(orElse(false)),
  /** As in `Stall`, after the headers. */
  pingMillis
})

/**
 * What one request meets.
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
 * A turn as it is written down: only what differs from the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export type Encoded = typeof Turn.Encoded

/**
 * The names of the turns.
 *
 * @since 0.1.0
 * @category models
 */
export const Tag: Schema.Literals<
  ["Answer", "Stall", "Cut", "Reset", "Malformed", "Error", "Status", "Refusal", "Hang"]
> = Schema.Literals(["Answer", "Stall", "Cut", "Reset", "Malformed", "Error", "Status", "Refusal", "Hang"])

/**
 * What a function that chooses turns is told of a request.
 *
 * @since 0.1.0
 * @category models
 */
export interface Request {
  /** Counts the requests from 1, in the order in which they came. */
  readonly n: number
  /** Which attempt at its prompt it is, as the client says, or else as its prompts are counted. */
  readonly attempt: number
  /** The text of the last message of the user. */
  readonly prompt: string
  readonly model: string
  /** The format that was asked; none where there is no wire. */
  readonly wire: "openai" | "anthropic" | undefined
  readonly stream: boolean
  /** Milliseconds since the provider began, or was cleared. */
  readonly at: number
}

/**
 * Which turn each request meets: a list, or a function.
 *
 * **Details**
 *
 * A list is used one turn per request, in the order in which they come, and its last one for all that follow. A function may
 * decide by prompt, attempt or time, and says `undefined` for a request that is answered as if there were no turns.
 *
 * @since 0.1.0
 * @category models
 */
export type Turns = ReadonlyArray<Turn> | ((request: Request) => Turn | undefined)

// ---------- constructors

/**
 * How an answer is given, whatever becomes of it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Pace {
  /** Time to the first token. */
  readonly firstTokenMillis?: number | undefined
  /** Time from token to token. */
  readonly tokenMillis?: number | undefined
  /** How many tokens go in one event of a stream. */
  readonly tokensPerChunk?: number | undefined
}

/**
 * An answer that something becomes of.
 *
 * @since 0.1.0
 * @category models
 */
export interface Broken extends Pace {
  /** After how many tokens it happens. Default 1. */
  readonly afterTokens?: number | undefined
  /** What would have been said. Left out: what is said anyway. */
  readonly content?: Content | undefined
}

/**
 * The end of an answer.
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
 * A complete answer. Without content it is what is said anyway.
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
 * An answer that calls a tool. For several, or for text before it, give `answer` its blocks.
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
 * An answer that thinks first.
 *
 * @since 0.1.0
 * @category constructors
 */
export const reasoning = (thoughts: string, text: string, ending?: Ending): Turn =>
  answer([{ type: "reasoning", text: thoughts }, { type: "text", text }], ending)

/**
 * A complete answer that says nothing, as some models give it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const empty = (ending?: Ending): Turn => answer([], ending)

/**
 * All of the answer and a tidy end, but not why it ended: a client cannot know that it was all.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noFinish = (content?: Content, ending?: Omit<Ending, "finish">): Turn =>
  answer(content, { ...ending, finish: "none" })

/**
 * Some tokens, then silence, for `duration` or for ever. With `ping` a stream sends a sign of life this often, so that the
 * connection looks alive and the answer is not.
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
 * Some tokens, then a tidy end of the connection.
 *
 * @since 0.1.0
 * @category constructors
 */
export const cut = (options?: Broken): Turn => ({ _tag: "Cut", ...breaking(options) })

/**
 * A reset connection: before any answer, or within it if `afterTokens` is given.
 *
 * @since 0.1.0
 * @category constructors
 */
export const reset = (options?: Broken): Turn => ({ _tag: "Reset", ...defined({ ...options }) })

/**
 * Some tokens, an event that is no JSON, and the rest.
 *
 * @since 0.1.0
 * @category constructors
 */
export const malformed = (options?: Broken & { readonly text?: string | undefined }): Turn => {
  const { text, ...broken } = options ?? {}
  return { _tag: "Malformed", ...breaking(broken), text: text ?? "{\"choices\":[{\"ind" }
}

/**
 * Some tokens, then an error within the stream.
 *
 * @since 0.1.0
 * @category constructors
 */
export const error = (
  options: Broken & {
    /** In the provider's words, such as `overloaded_error`. */
    readonly type: string
    readonly message: string
    /** In OpenAI's format only. */
    readonly code?: string | number | undefined
  }
): Turn => {
  const { code, message, type, ...broken } = options
  return { _tag: "Error", ...breaking(broken), type, message, ...defined({ code }) }
}

/**
 * A whole response with this status, with an error as the format has it, or with a body of your own.
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
 * A redirection to another place. Default status 307, which asks for the same request there, with its key and its prompt.
 *
 * @since 0.1.0
 * @category constructors
 */
export const redirect = (location: string, code = 307): Turn => status(code, { headers: { location }, body: "" })

/**
 * A page where an answer should be, as a proxy or a login in between sends it. Default status 200.
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
 * A refusal for this reason, in the words of the format that was asked.
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
 * Silence until the client has had enough; after status 200 and headers if `headers` is true, and then with the signs of life
 * that `ping` says.
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
 * The same turn, later: nothing at all is sent before it.
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
 * The same turn several times, for a list of turns.
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
 * Reads a turn. A field that it does not know is an error, as it would do nothing.
 *
 * @since 0.1.0
 * @category decoding
 */
export const decode: (turn: unknown) => Effect.Effect<Turn, Schema.SchemaError> = Schema.decodeUnknownEffect(
  Turn,
  strict
)

/**
 * Reads a list of turns.
 *
 * @since 0.1.0
 * @category decoding
 */
export const decodeAll: (turns: unknown) => Effect.Effect<ReadonlyArray<Turn>, Schema.SchemaError> = Schema
  .decodeUnknownEffect(Schema.Array(Turn), strict)

type Defined<A> = { [K in keyof A]: Exclude<A[K], undefined> }

// Only what has a value is a key; the rest is then a partial of it, which exact optional properties take.
const defined = <A extends object>(fields: A): Partial<Defined<A>> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Partial<Defined<A>>

const breaking = (options: Broken | undefined) => ({
  ...defined({ ...options, afterTokens: undefined }),
  afterTokens: options?.afterTokens ?? 1
})

const millis = (duration: Duration.Input | undefined): number | undefined =>
  duration === undefined ? undefined : Duration.toMillis(Duration.fromInputUnsafe(duration))
