import * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HttpHeaders from "effect/http/Headers"
import type * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"
import type { Mutable } from "effect/Types"
import type * as ScriptedModel from "../../testing/ScriptedModel.ts"
import type * as Turn from "../../testing/Turn.ts"
import type { Bounds } from "../wire/bounds.ts"
import { OnMalformedEvent } from "../stream/malformed.ts"
import * as Failure from "../wire/failure.ts"
import * as WholeResponse from "../wire/openai/response.ts"
import * as OpenAi from "./openAi.ts"
import * as Refusals from "./refusals.ts"
import * as Speech from "./speech.ts"
import { pause } from "./turns.ts"

// Plays turns without a wire: with the parts and the errors that OpenAiCompatible makes of the same turns.

export type Draft = Mutable<ScriptedModel.Call>

/** One call while it runs. */
export interface Run {
  readonly call: Draft
  readonly turn: Turn.Turn
  /** The text of a turn without content. */
  readonly defaultText: string
  readonly inputTokens: number
  readonly pace: Speech.Pace
  readonly streamErrors: "parts" | "failures"
  readonly now: () => number
  /** Records how it ended. The first ending counts. */
  readonly end: (ending: ScriptedModel.Call["ending"]) => void
}

const host = "scripted.invalid"
const url = `http://${host}/v1/chat/completions`

const originOf = ({ call, now }: Run): Failure.Origin => ({
  module: "OpenAiCompatible",
  provider: host,
  method: call.method === "streamText" ? "streamText" : "generateText",
  model: call.model,
  url,
  hasKey: true,
  mask: (text) => text,
  excerptLength: 2048,
  maxRetryAfter: Duration.days(1),
  now
})

const bounds: Bounds = { answerSize: 2 ** 30, eventSize: 2 ** 30, jsonDepth: 64 }

const ok = (call: Draft, type = "application/json"): Failure.ResponseHead => ({
  status: 200,
  headers: HttpHeaders.fromInput({ "content-type": type, "x-request-id": `req-scripted-${call.n}` })
})

// ---------- a whole answer

export const whole = (run: Run): Effect.Effect<Array<Response.PartEncoded>, AiError.AiError> =>
  Effect.onExit(
    Effect.andThen(pause(run.turn.delayMillis), Effect.suspend(() => wholeAfterDelay(run))),
    (exit) => Effect.sync(() => run.end(endingOf(exit)))
  )

const endingOf = (exit: Exit.Exit<unknown, unknown>): ScriptedModel.Call["ending"] => {
  if (Exit.isSuccess(exit)) return "complete"
  return Cause.hasInterruptsOnly(exit.cause) ? "interrupted" : "failed"
}

const wholeAfterDelay = (run: Run): Effect.Effect<Array<Response.PartEncoded>, AiError.AiError> => {
  const { turn } = run
  switch (turn._tag) {
    case "Hang":
      return Effect.never
    case "Status":
    case "Refusal":
      return withoutAnswer(run, turn)
    default:
      return answerWhole(run, turn)
  }
}

const answerWhole = (run: Run, turn: Speech.AnswerTurn) => {
  const { call } = run
  if (turn._tag === "Reset" && turn.afterTokens === undefined) return Effect.fail(lost(run))
  const speech = speechOf(run, turn)
  const tokens = Speech.produced(turn, speech)
  const takes = speech.pace.firstTokenMillis + speech.pace.tokenMillis * tokens +
    (turn._tag === "Stall" ? turn.forMillis ?? 0 : 0)
  return Effect.andThen(
    pause(takes),
    Effect.suspend((): Effect.Effect<Array<Response.PartEncoded>, AiError.AiError> => {
      bill(call, speech, tokens)
      switch (turn._tag) {
        case "Stall":
          if (turn.forMillis === undefined) return Effect.never
          break
        case "Cut":
          return Effect.fail(Failure.notJson(originOf(run), ok(call), firstHalf(run, speech)))
        case "Reset":
          return Effect.fail(
            Failure.truncated(originOf(run), ok(call), { parts: 0, hadOutput: false }, "terminated")
          )
        case "Malformed":
          return Effect.fail(Failure.notJson(originOf(run), ok(call), turn.text))
        case "Error":
          return Effect.fail(streamError(run, turn))
      }
      call.firstPartAt = run.now()
      const parts: Array<Response.PartEncoded> = [metadata(run)]
      for (const block of speech.blocks) {
        parts.push(block.type === "tool-call" ? toolCall(block) : { type: block.type, text: block.text })
      }
      parts.push(finish(speech, speech.finish === "none" ? "unknown" : speech.finish))
      return Effect.succeed(parts)
    })
  )
}

/** The first half of an answer's JSON, as a cut connection delivers it. */
const firstHalf = ({ call, now }: Run, speech: Speech.Speech): string => {
  const head = { n: call.n, model: call.model, created: Math.floor(now() / 1000), withUsage: false }
  const whole = JSON.stringify(OpenAi.dialect.whole(head, speech))
  return whole.slice(0, whole.length / 2)
}

/** Reads the response of a turn without an answer. Its body can be an answer all the same, with status 200. */
const withoutAnswer = (
  run: Run,
  turn: Extract<Turn.Turn, { readonly _tag: "Status" | "Refusal" }>
): Effect.Effect<Array<Response.PartEncoded>, AiError.AiError> =>
  Effect.suspend(() => {
    const { call } = run
    const origin = originOf(run)
    const { body, headers, status } = Refusals.response("openai", turn, call.model)
    if (turn.retryAfterMillis !== undefined) call.retryAfterMillis = turn.retryAfterMillis
    const response: Failure.ResponseHead = { status, headers: HttpHeaders.fromInput(headers) }
    return status < 200 || status > 299
      ? Effect.fail(Failure.fromStatus(origin, response, body, run.now()))
      : Effect.fromResult(WholeResponse.read({ origin }, { response, bounds, newId: `call_${call.n}` }, body))
  })

// ---------- a streamed answer

type Part = Response.StreamPartEncoded
type Step = Pull.Pull<Arr.NonEmptyReadonlyArray<Part>, AiError.AiError>

export const streamed = (run: Run): Stream.Stream<Part, AiError.AiError> =>
  Stream.onExit(
    Stream.unwrap(Effect.map(pause(run.turn.delayMillis), () => streamedAfterDelay(run))),
    // A stream that ends by itself has recorded its ending. Otherwise its consumer has interrupted it.
    (exit) => Effect.sync(() => run.end(hasFailed(exit) ? "failed" : "interrupted"))
  )

const hasFailed = (exit: Exit.Exit<unknown, unknown>): boolean => Exit.isFailure(exit) && Cause.hasFails(exit.cause)

const streamedAfterDelay = (run: Run): Stream.Stream<Part, AiError.AiError> => {
  const { call, turn } = run
  switch (turn._tag) {
    case "Hang":
      return Stream.never
    case "Status":
    case "Refusal":
      return Stream.unwrap(Effect.flatMap(withoutAnswer(run, turn), () =>
        Effect.fail(
          Failure.incompatible(originOf(run), ok(call), "a whole response, where a stream was requested")
        )))
    default:
      return answerInParts(run, turn)
  }
}

const answerInParts = (run: Run, turn: Speech.AnswerTurn): Stream.Stream<Part, AiError.AiError> => {
  if (turn._tag === "Reset" && turn.afterTokens === undefined) return Stream.fail(lost(run))
  const { call, streamErrors } = run
  const origin = originOf(run)
  const streaming = ok(call, "text/event-stream")
  const speech = speechOf(run, turn)
  const steps = Speech.steps(turn, speech)
  let open: number | undefined
  let ready: Array<Part> = [metadata(run)]
  let parts = 0
  let events = 0

  const close = () => {
    const block = open === undefined ? undefined : speech.blocks[open]
    open = undefined
    if (block === undefined) return
    if (block.type === "tool-call") ready.push({ type: "tool-params-end", id: block.id }, toolCall(block))
    else ready.push({ type: `${block.type}-end`, id: String(speech.blocks.indexOf(block)) })
  }

  const piece = (at: number, text: string) => {
    const block = speech.blocks[at]
    if (block === undefined) return
    const isNew = open !== at
    if (isNew) close()
    open = at
    const id = block.type === "tool-call" ? block.id : String(at)
    if (block.type === "tool-call") {
      if (isNew) ready.push({ type: "tool-params-start", id, name: block.name })
      ready.push({ type: "tool-params-delta", id, delta: text })
    } else {
      if (isNew) ready.push({ type: `${block.type}-start`, id })
      ready.push({ type: `${block.type}-delta`, id, delta: text })
    }
  }

  // Emits the ready parts first, then runs the step.
  let then: Step | undefined
  const flushed = (step: Step): Step => {
    const [first, ...rest] = ready
    if (first === undefined) return step
    ready = []
    then = step
    parts += 1 + rest.length
    call.firstPartAt ??= run.now()
    return Effect.succeed([first, ...rest] as const)
  }
  const fail = (error: () => AiError.AiError): Step =>
    flushed(Effect.suspend(() => {
      run.end("failed")
      return Effect.fail(error())
    }))
  const done: Step = Effect.suspend(() => {
    run.end("failed")
    return Cause.done()
  })
  const truncated = (): Step =>
    streamErrors === "parts"
      ? flushed(done)
      : fail(() => Failure.truncated(origin, streaming, { parts, hadOutput: events > 0 }))

  const hasToolCall = () => speech.blocks.slice(0, (open ?? -1) + 1).some(({ type }) => type === "tool-call")

  let at = 0
  const next: Step = Effect.suspend((): Step => {
    if (then !== undefined) {
      const step = then
      then = undefined
      return step
    }
    const step = steps[at++]
    switch (step?._tag) {
      case undefined:
        return Cause.done()
      case "Pause":
        return flushed(Effect.andThen(pause(step.millis), next))
      case "Piece":
        events++
        bill(call, speech, step.upTo)
        piece(step.block, step.text)
        return flushed(next)
      case "Ping":
        return next
      case "Silence":
        return flushed(Effect.never)
      case "Cut":
        return truncated()
      case "Reset":
        // Other adapters name the socket's error.
        return fail(() =>
          streamErrors === "parts"
            ? lost(run)
            : Failure.truncated(origin, streaming, { parts, hadOutput: events > 0 }, "terminated")
        )
      case "Malformed":
        return Effect.flatMap(OnMalformedEvent, (onMalformedEvent) => {
          if (onMalformedEvent === undefined || hasToolCall()) {
            return fail(() => Failure.malformed(origin, streaming, step.text))
          }
          onMalformedEvent()
          return next
        })
      case "Error": {
        const { code, message, type } = step.turn
        if (streamErrors === "failures") return fail(() => streamError(run, step.turn))
        ready.push({ type: "error", error: { type, message, ...(code === undefined ? {} : { code }) } })
        run.end("failed")
        return flushed(next)
      }
      case "End":
        close()
        if (speech.finish === "none") return truncated()
        bill(call, speech, speech.length)
        ready.push(finish(speech, speech.finish))
        // The call is complete, even if its consumer leaves now.
        run.end("complete")
        return flushed(next)
    }
  })

  return Stream.unwrap(Effect.as(pause(speech.pace.firstTokenMillis), Stream.fromPull(Effect.succeed(next))))
}

// ---------- both

const speechOf = ({ call, inputTokens, defaultText, pace }: Run, turn: Speech.AnswerTurn): Speech.Speech => {
  const speech = Speech.fromTurn(turn, defaultText, inputTokens, pace, (n) => `call_${call.n}_${n}`)
  call.inputTokens = speech.billed.input
  return speech
}

/** Bills the tokens so far. The billed output is distributed over the answer's tokens. */
const bill = (call: Draft, { billed, length }: Speech.Speech, upTo: number): void => {
  call.outputTokens = length === 0 ? billed.output : Math.round(billed.output * upTo / length)
}

const metadata = ({ call, now }: Run): Response.ResponseMetadataPartEncoded => ({
  type: "response-metadata",
  id: `chatcmpl-scripted-${call.n}`,
  modelId: call.model,
  timestamp: DateTime.formatIso(DateTime.makeUnsafe(now()))
})

const toolCall = (block: Extract<Speech.Block, { readonly type: "tool-call" }>): Response.ToolCallPartEncoded => ({
  type: "tool-call",
  id: block.id,
  name: block.name,
  params: JSON.parse(block.text)
})

const finish = ({ reported }: Speech.Speech, reason: Response.FinishReason): Response.FinishPartEncoded => ({
  type: "finish",
  reason,
  usage: {
    inputTokens: { total: reported?.input, uncached: reported?.input, cacheRead: undefined, cacheWrite: undefined },
    outputTokens: { total: reported?.output, text: reported?.output, reasoning: undefined }
  },
  response: undefined
})

const lost = (run: Run): AiError.AiError =>
  Failure.make(
    originOf(run),
    new AiError.NetworkError({
      reason: "TransportError",
      method: "POST",
      url,
      description: "ECONNRESET: socket hang up"
    })
  )

const streamError = (
  run: Run,
  turn: Extract<Turn.Turn, { readonly _tag: "Error" }>
): AiError.AiError => {
  const { code, message, type } = turn
  const body = Refusals.body("openai", { type, message, code })
  const error = { type, message, code }
  return Failure.fromStream(originOf(run), ok(run.call), error, body)
}
