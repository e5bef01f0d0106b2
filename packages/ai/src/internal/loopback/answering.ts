import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as LoopbackProvider from "../../testing/LoopbackProvider.ts"
import * as Script from "../../testing/Script.ts"
import type * as Turn from "../../testing/Turn.ts"
import * as Hash from "../kit/hash.ts"
import { type Attempts, stated } from "./attempts.ts"
import * as Conversation from "./conversation.ts"
import { type ChatRequest, type Dialect, type Head, malformed } from "./dialect.ts"
import * as Embeddings from "./embeddings.ts"
import type { Exchange } from "./exchange.ts"
import type { Limits } from "./limits.ts"
import type { Outages } from "./outages.ts"
import type { Draft } from "./recorder.ts"
import * as Refusals from "./refusals.ts"
import * as Speech from "./speech.ts"
import { pause, type Turns } from "./turns.ts"

/** What answering a request needs: the options and the state of the provider. */
export interface Answering<R> {
  readonly script: Script.Script
  readonly turns: Turns
  readonly pace: Speech.Pace
  readonly models: ReadonlyArray<string> | undefined
  readonly answer: LoopbackProvider.Answer<R>
  readonly keepPrompts: boolean
  readonly attempts: Attempts
  readonly outages: Outages
  readonly limits: Limits
  /** When the provider began or was cleared, in milliseconds of the monotonic clock. */
  readonly began: () => number
}

/** Answers a chat request in its own format, or refuses it. */
export const complete = <R>(
  answering: Answering<R>,
  exchange: Exchange,
  entry: Draft,
  dialect: Dialect,
  body: string
): Effect.Effect<void, never, R> => {
  const { headers } = exchange.request
  const read = dialect.read(body, headers)
  if (read._tag === "Failure") return refuse(exchange, 400, read.failure)

  const chat = read.success
  const { conversation } = chat
  entry.model = conversation.model
  entry.digest = conversation.digest
  entry.stream = chat.stream
  if (answering.keepPrompts) entry.prompt = conversation.prompt
  if (answering.models !== undefined && !answering.models.includes(conversation.model)) {
    return send(exchange, entry, { _tag: "Refusal", why: "model" })
  }

  entry.attempt = answering.attempts.next(conversation.digest, stated(headers))
  const inputTokens = Conversation.countTokens(conversation.messages)
  return outageOrLimit(answering, exchange, entry, inputTokens) ??
    Effect.ensuring(
      playTurn(answering, exchange, entry, dialect, chat, inputTokens),
      Effect.sync(() => answering.limits.leave(entry.outputTokens, exchange.now().monotonic))
    )
}

/** Answers a request for embeddings. Outages and limits apply; turns and scripts do not. */
export const embed = <R>(
  answering: Answering<R>,
  exchange: Exchange,
  entry: Draft,
  body: string
): Effect.Effect<void> => {
  const read = decodeEmbeddings(body)
  if (read._tag === "Failure") {
    return refuse(exchange, 400, { type: "invalid_request_error", message: "not a request for embeddings" })
  }
  const { input, model } = read.success
  const inputs: ReadonlyArray<string> = typeof input === "string" ? [input] : input
  entry.model = model
  entry.digest = Hash.digest(JSON.stringify(inputs))
  if (answering.keepPrompts) entry.prompt = inputs.join("\n")
  if (answering.models !== undefined && !answering.models.includes(model)) {
    return send(exchange, entry, { _tag: "Refusal", why: "model" })
  }
  entry.attempt = answering.attempts.next(entry.digest, stated(exchange.request.headers))
  const inputTokens = inputs.reduce((sum, text) => sum + Conversation.tokens(text).length, 0)
  return outageOrLimit(answering, exchange, entry, inputTokens) ?? Effect.sync(() => {
    entry.inputTokens = inputTokens
    exchange.send(200, Embeddings.answer(read.success, inputTokens), "complete")
    answering.limits.leave(0, exchange.now().monotonic)
  })
}

const decodeEmbeddings = Schema.decodeUnknownResult(Embeddings.Request)

const refuse = (exchange: Exchange, status: number, details: Refusals.ErrorDetails): Effect.Effect<void> =>
  Effect.sync(() => exchange.refuse(status, details))

/** Refuses a request because of an outage or a limit. `undefined` if neither applies. */
const outageOrLimit = <R>(
  { limits, outages }: Answering<R>,
  exchange: Exchange,
  entry: Draft,
  inputTokens: number
): Effect.Effect<void> | undefined => {
  const down = outages.next(entry.attempt, entry.received.monotonic)
  if (down !== undefined) {
    entry.down = true
    if (down.how === "reset") return reset(exchange, "reset")
    return send(exchange, entry, { _tag: "Status", status: 503, ...retryAfter(down.retryAfterSeconds) })
  }
  const limited = limits.enter(inputTokens, exchange.now().monotonic)
  exchange.always = limits.headers(exchange.wire, exchange.now())
  if (limited === undefined) return undefined
  entry.limited = limited.limit
  return send(exchange, entry, { _tag: "Refusal", why: "rateLimit", retryAfterMillis: limited.retryAfterMillis })
}

const retryAfter = (seconds: number | undefined) => seconds === undefined ? {} : { retryAfterMillis: seconds * 1000 }

const reset = (exchange: Exchange, ending: "reset" | "hang"): Effect.Effect<void> =>
  Effect.sync(() => exchange.reset(ending))

/** Sends a whole response without an answer. */
const send = (
  exchange: Exchange,
  entry: Draft,
  turn: Extract<Turn.Turn, { readonly _tag: "Status" | "Refusal" }>
): Effect.Effect<void> =>
  Effect.sync(() => {
    if (turn.retryAfterMillis !== undefined) entry.retryAfterMillis = Math.round(turn.retryAfterMillis)
    const { body, headers, status } = Refusals.response(exchange.wire, turn, entry.model)
    exchange.send(status, body, status < 300 ? "complete" : "refused", headers)
  })

/** Plays the request's turn. Without one it plays the script. */
const playTurn = <R>(
  answering: Answering<R>,
  exchange: Exchange,
  entry: Draft,
  dialect: Dialect,
  chat: ChatRequest,
  inputTokens: number
): Effect.Effect<void, never, R> => {
  const { attempt, model, n } = entry
  const { prompt } = chat.conversation
  const at = entry.received.monotonic - answering.began()
  const turn = answering.turns.next({ n, attempt, prompt, model, wire: dialect.wire, stream: chat.stream, at })
  if (turn !== undefined) entry.turn = turn._tag
  const context: RequestContext<R> = { answering, exchange, entry, dialect, chat, inputTokens }
  return turn === undefined
    ? playScript(context)
    : Effect.andThen(pause(turn.delayMillis), Effect.suspend(() => perform(context, turn)))
}

/** One request that no outage or limit has refused. */
interface RequestContext<R> {
  readonly answering: Answering<R>
  readonly exchange: Exchange
  readonly entry: Draft
  readonly dialect: Dialect
  readonly chat: ChatRequest
  readonly inputTokens: number
}

const perform = <R>(context: RequestContext<R>, turn: Turn.Turn): Effect.Effect<void, never, R> => {
  const { answering, entry, exchange } = context
  switch (turn._tag) {
    case "Hang":
      return Effect.suspend(() => {
        if (!turn.headers) return Effect.never
        begin(context)
        exchange.flush()
        return silence(context, turn.pingMillis)
      })
    case "Status":
    case "Refusal":
      return send(exchange, entry, turn)
    case "Reset":
      if (turn.afterTokens === undefined) return reset(exchange, "reset")
  }
  return turn.content === undefined
    ? withAnswer(
      context,
      ({ finish, text, usage }) => sendAnswer(context, { finish, usage, ...turn }, text, answering.pace)
    )
    : sendAnswer(context, turn, "", answering.pace)
}

/** Plays the script's fault of the request. Without one it sends a complete answer. */
const playScript = <R>(context: RequestContext<R>): Effect.Effect<void, never, R> => {
  const { answering: { pace, script }, entry, exchange } = context
  const fault = Script.fault(script, entry.digest, entry.attempt)
  if (fault !== undefined) entry.fault = fault
  switch (fault) {
    case "rateLimit":
      return send(exchange, entry, { _tag: "Refusal", why: "rateLimit", ...retryAfter(script.retryAfterSeconds) })
    case "unavailable":
      return send(exchange, entry, { _tag: "Status", status: 503 })
    case "reset":
      return reset(exchange, "reset")
    case "hang":
      return Effect.andThen(pause(script.hangMillis), reset(exchange, "hang"))
  }
  const late = fault === "slowStart" ? script.slowStartMillis : 0
  return withAnswer(context, ({ finish, text, tokens, usage }) => {
    const turn: Speech.AnswerTurn = fault === "cut"
      ? { _tag: "Cut", finish, usage, afterTokens: Script.cutAfter(script, entry.digest, entry.attempt, tokens) }
      : { _tag: "Answer", finish, usage, done: true }
    return sendAnswer(context, turn, text, { ...pace, firstTokenMillis: pace.firstTokenMillis + late })
  })
}

/** An answer of the `answer` option, for a turn without content and for the script. */
interface Generated {
  readonly text: string
  readonly tokens: number
  readonly finish: "stop" | "length"
  readonly usage: Turn.Usage
}

const withAnswer = Effect.fnUntraced(function*<R>(
  { answering, chat, exchange, inputTokens }: RequestContext<R>,
  then: (given: Generated) => Effect.Effect<void>
) {
  const { messages, model, prompt } = chat.conversation
  const answered = yield* Effect.result(answering.answer({ prompt, model, messages }))
  if (answered._tag === "Failure") {
    const { message, status } = answered.failure
    return yield* refuse(exchange, status, { type: Refusals.typeOf(exchange.wire, status), message })
  }
  const { text } = answered.success
  const whole = Conversation.tokens(text)
  const tokens = whole.slice(0, Math.max(0, chat.maxTokens))
  // The answerer's token count is for the whole answer. It is distributed over the tokens that are sent.
  const perToken = answered.success.outputTokens === undefined
    ? 1
    : answered.success.outputTokens / Math.max(1, whole.length)
  return yield* then({
    text: tokens.join(""),
    tokens: tokens.length,
    finish: tokens.length < whole.length ? "length" : "stop",
    usage: {
      inputTokens: answered.success.inputTokens ?? inputTokens,
      outputTokens: Math.round(tokens.length * perToken)
    }
  })
})

// ---------- sending an answer, or a part of it

const sendAnswer = <R>(
  context: RequestContext<R>,
  turn: Speech.AnswerTurn,
  defaultText: string,
  pace: Speech.Pace
): Effect.Effect<void> => {
  const { chat, dialect, entry, inputTokens } = context
  const id = dialect.wire === "openai" ? "call_" : "toolu_"
  const speech = Speech.fromTurn(turn, defaultText, inputTokens, pace, (n) => `${id}loopback_${entry.n}_${n}`)
  const head: Head = {
    n: entry.n,
    model: entry.model,
    created: Math.floor(entry.received.epoch / 1000),
    withUsage: chat.withUsage
  }
  return Effect.andThen(
    pause(speech.pace.firstTokenMillis),
    Effect.suspend(() => {
      entry.inputTokens = speech.billed.input
      return chat.stream ? streamed(context, turn, speech, head) : inOnePiece(context, turn, speech, head)
    })
  )
}

const bill = (entry: Draft, { billed, length }: Speech.Speech, upTo: number): void => {
  entry.outputTokens = length === 0 ? billed.output : Math.round(billed.output * upTo / length)
}

const digestOf = ({ blocks }: Speech.Speech): string => Hash.digest(blocks.map(({ text }) => text).join(""))

const begin = <R>({ chat, dialect, entry, exchange }: RequestContext<R>): void =>
  exchange.head(200, {
    "content-type": chat.stream ? "text/event-stream; charset=utf-8" : "application/json",
    ...(chat.stream ? { "cache-control": "no-cache" } : {}),
    [dialect.requestId]: `req-loopback-${entry.n}`
  })

/** Sends nothing but pings until the client closes the connection. */
const silence = <R>(
  { chat, dialect, exchange }: RequestContext<R>,
  pingMillis: number | undefined
): Effect.Effect<never> =>
  pingMillis === undefined || !chat.stream
    ? Effect.never
    : Effect.forever(Effect.andThen(Effect.sleep(pingMillis), Effect.suspend(() => exchange.write(dialect.ping))))

/** How long a reset waits after the last write. A client that sees both at once may discard what it has not read. */
const resetDelayMillis = 20

const streamed = Effect.fnUntraced(
  function*<R>(context: RequestContext<R>, turn: Speech.AnswerTurn, speech: Speech.Speech, head: Head) {
    const { dialect, entry, exchange } = context
    const writer = dialect.writer(head, speech)
    begin(context)
    let ready = writer.start()
    for (const step of Speech.steps(turn, speech)) {
      switch (step._tag) {
        case "Pause":
          yield* exchange.write(ready)
          ready = ""
          yield* pause(step.millis)
          break
        case "Piece": {
          const block = speech.blocks[step.block]
          bill(entry, speech, step.upTo)
          if (block !== undefined) ready += writer.piece(step.block, block, step.text)
          break
        }
        case "Malformed":
          ready += malformed(step.text)
          break
        case "Error":
          yield* exchange.write(ready + writer.error(step.turn))
          return exchange.finish("cut")
        case "Silence":
          yield* exchange.write(ready)
          return yield* silence(context, step.pingMillis)
        case "Ping":
          ready += dialect.ping
          break
        case "Cut":
          yield* exchange.write(ready)
          return exchange.finish("cut")
        case "Reset":
          yield* exchange.write(ready)
          yield* pause(resetDelayMillis)
          return exchange.reset("reset")
        case "End":
          bill(entry, speech, speech.length)
          yield* exchange.write(ready + writer.end(speech.finish, step.done))
          entry.answer = digestOf(speech)
          return exchange.finish("complete")
      }
    }
  }
)

const inOnePiece = Effect.fnUntraced(function*<R>(
  context: RequestContext<R>,
  turn: Speech.AnswerTurn,
  speech: Speech.Speech,
  head: Head
) {
  const { dialect, entry, exchange } = context
  const tokens = Speech.produced(turn, speech)
  yield* pause(speech.pace.tokenMillis * tokens + (turn._tag === "Stall" ? turn.forMillis ?? 0 : 0))
  bill(entry, speech, tokens)
  const whole = JSON.stringify(dialect.whole(head, speech))
  const half = whole.slice(0, whole.length / 2)
  const id = { [dialect.requestId]: `req-loopback-${entry.n}` }
  switch (turn._tag) {
    case "Cut":
      return exchange.send(200, half, "cut", id)
    case "Malformed":
      return exchange.send(200, turn.text, "cut", id)
    case "Error":
      return exchange.send(200, Refusals.body(dialect.wire, turn), "cut", id)
    case "Reset":
      begin(context)
      yield* exchange.write(half)
      yield* pause(resetDelayMillis)
      return exchange.reset("reset")
    case "Stall":
      if (turn.forMillis !== undefined) break
      begin(context)
      yield* exchange.write(half)
      return yield* Effect.never
  }
  entry.answer = digestOf(speech)
  exchange.send(200, whole, "complete", id)
})
