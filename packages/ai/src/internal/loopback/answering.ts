import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as LoopbackProvider from "../../testing/LoopbackProvider.ts"
import * as Script from "../../testing/Script.ts"
import * as Hash from "../hash.ts"
import type { Attempts } from "./attempts.ts"
import * as Completion from "./completion.ts"
import * as Conversation from "./conversation.ts"
import type { Exchange } from "./exchange.ts"
import type { Outages } from "./outages.ts"
import type { Draft } from "./recorder.ts"

/** How fast an answer is given, with every default filled in. */
export interface Pace {
  readonly firstTokenMillis: number
  readonly tokenMillis: number
  readonly tokensPerChunk: number
}

/** What requests are answered with. */
export interface Answering<R> {
  readonly script: Script.Script
  readonly pace: Pace
  readonly models: ReadonlyArray<string> | undefined
  readonly answer: LoopbackProvider.Answer<R>
  readonly keepPrompts: boolean
  readonly attempts: Attempts
  readonly outages: Outages
}

const decode = Schema.decodeUnknownResult(Conversation.ChatRequest)

/** Answers a request for a chat completion, or refuses it. */
export const complete = <R>(
  answering: Answering<R>,
  exchange: Exchange,
  entry: Draft,
  body: string
): Effect.Effect<void, never, R> => {
  const request = decode(body)
  if (request._tag === "Failure") {
    return refuse(exchange, 400, Completion.error("no chat request", invalidRequest, null))
  }

  const conversation = Conversation.fromRequest(request.success)
  entry.model = conversation.model
  entry.digest = conversation.digest
  if (answering.keepPrompts) entry.prompt = conversation.prompt

  if (answering.models !== undefined && !answering.models.includes(conversation.model)) {
    const message = `The model \`${conversation.model}\` does not exist`
    return refuse(exchange, 404, Completion.error(message, invalidRequest, "model_not_found", "model"))
  }

  entry.attempt = answering.attempts.next(conversation.digest, exchange.request.headers)
  return failOnPurpose(answering.outages, answering.script, exchange, entry) ??
    give(answering, exchange, entry, request.success, conversation)
}

const invalidRequest = "invalid_request_error"

const refuse = (exchange: Exchange, status: number, error: unknown): Effect.Effect<void> =>
  Effect.sync(() => exchange.send(status, error, "refused"))

/** What the script does to a request, unless it lets it through to an answer. */
const failOnPurpose = (
  outages: Outages,
  script: Script.Script,
  exchange: Exchange,
  entry: Draft
): Effect.Effect<void> | undefined => {
  const down = outages.next(entry.attempt, entry.received.monotonic)
  if (down !== undefined) {
    entry.down = true
    return down.how === "reset" ? reset(exchange, "reset") : turnAway(exchange, entry, 503, down.retryAfterSeconds)
  }
  const fault = Script.fault(script, entry.digest, entry.attempt)
  if (fault !== undefined) entry.fault = fault
  switch (fault) {
    case "rateLimit":
      return turnAway(exchange, entry, 429, script.retryAfterSeconds)
    case "unavailable":
      return turnAway(exchange, entry, 503, undefined)
    case "reset":
      return reset(exchange, "reset")
    case "hang":
      return Effect.andThen(pause(script.hangMillis), reset(exchange, "hang"))
    default:
      return undefined
  }
}

const reset = (exchange: Exchange, ending: "reset" | "hang"): Effect.Effect<void> =>
  Effect.sync(() => exchange.reset(ending))

// A timer of no time takes a millisecond.
const pause = (millis: number): Effect.Effect<void> => millis > 0 ? Effect.sleep(millis) : Effect.void

const turnAway = (
  exchange: Exchange,
  entry: Draft,
  status: 429 | 503,
  retryAfterSeconds: number | undefined
): Effect.Effect<void> => {
  const error = status === 429
    ? Completion.error("Rate limit reached", "requests", "rate_limit_exceeded")
    : Completion.error("The server is overloaded or not ready yet", "server_error", null)
  if (retryAfterSeconds === undefined) return refuse(exchange, status, error)
  const millis = Math.round(retryAfterSeconds * 1000)
  entry.retryAfterMillis = millis
  return Effect.sync(() =>
    exchange.send(status, error, "refused", {
      "retry-after": String(Math.ceil(retryAfterSeconds)),
      ...(Number.isInteger(retryAfterSeconds) ? {} : { "retry-after-ms": String(millis) })
    })
  )
}

/** An answer, or as much of it as is sent. */
interface Reply {
  readonly exchange: Exchange
  readonly entry: Draft
  readonly pace: Pace
  readonly head: Completion.Head
  readonly tokens: ReadonlyArray<string>
  readonly isCut: boolean
  readonly reason: Completion.FinishReason
  readonly outputPerToken: number
  readonly withUsage: boolean
}

const give = Effect.fnUntraced(function*<R>(
  { answer, pace, script }: Answering<R>,
  exchange: Exchange,
  entry: Draft,
  request: Conversation.ChatRequest,
  { digest, messages, model, prompt }: Conversation.Conversation
) {
  const answered = yield* Effect.result(answer({ prompt, model, messages }))
  if (answered._tag === "Failure") {
    const { message, status } = answered.failure
    return yield* refuse(
      exchange,
      status,
      Completion.error(message, status < 500 ? invalidRequest : "server_error", null)
    )
  }
  const { inputTokens, outputTokens, text } = answered.success
  const whole = Conversation.tokens(text)
  const most = request.max_completion_tokens ?? request.max_tokens ?? Number.POSITIVE_INFINITY
  const tokens = whole.slice(0, Math.max(0, most))
  const isCut = entry.fault === "cut"
  const reply: Reply = {
    exchange,
    entry,
    pace,
    head: { id: `chatcmpl-loopback-${entry.n}`, created: Math.floor(entry.received.epoch / 1000), model },
    tokens: isCut ? tokens.slice(0, Script.cutAfter(script, digest, entry.attempt, tokens.length)) : tokens,
    isCut,
    reason: tokens.length < whole.length ? "length" : "stop",
    // What the answerer says of the whole, shared out over the tokens that are sent.
    outputPerToken: outputTokens === undefined ? 1 : outputTokens / Math.max(1, whole.length),
    withUsage: request.stream_options?.include_usage === true
  }
  yield* pause(pace.firstTokenMillis + (entry.fault === "slowStart" ? script.slowStartMillis : 0))
  entry.inputTokens = inputTokens ?? countTokens(messages)
  yield* request.stream === true ? streamed(reply) : inOnePiece(reply)
})

const countTokens = (messages: ReadonlyArray<Conversation.Message>): number =>
  messages.reduce((sum, { content }) => sum + Conversation.tokens(content).length, 0)

const produced = ({ entry, outputPerToken }: Reply, tokens: number): void => {
  entry.outputTokens = Math.round(tokens * outputPerToken)
}

const counts = ({ entry }: Reply): Completion.Counts => ({ input: entry.inputTokens, output: entry.outputTokens })

const streamed = Effect.fnUntraced(function*(reply: Reply) {
  const { entry, exchange, head, isCut, pace, tokens } = reply
  exchange.head(200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-request-id": `req-loopback-${entry.n}`
  })
  let ready = Completion.first(head)
  for (let i = 0; i < tokens.length; i += pace.tokensPerChunk) {
    if (i > 0 && pace.tokenMillis > 0) {
      yield* exchange.write(ready)
      ready = ""
      yield* pause(pace.tokenMillis * pace.tokensPerChunk)
    }
    const piece = tokens.slice(i, i + pace.tokensPerChunk)
    produced(reply, i + piece.length)
    ready += Completion.delta(head, piece.join(""))
  }
  if (!isCut) ready += Completion.last(head, reply.reason, reply.withUsage ? counts(reply) : undefined)
  yield* exchange.write(ready)
  if (!isCut) entry.answer = Hash.digest(tokens.join(""))
  exchange.finish(isCut ? "cut" : "complete")
})

const inOnePiece = Effect.fnUntraced(function*(reply: Reply) {
  const { exchange, head, isCut, pace, tokens } = reply
  yield* pause(pace.tokenMillis * tokens.length)
  produced(reply, tokens.length)
  const whole = JSON.stringify(Completion.whole(head, tokens.join(""), reply.reason, counts(reply)))
  if (!isCut) reply.entry.answer = Hash.digest(tokens.join(""))
  exchange.send(200, isCut ? whole.slice(0, whole.length / 2) : whole, isCut ? "cut" : "complete")
})
