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
import * as Failure from "../wire/failure.ts"
import * as WholeAnswer from "../wire/wholeAnswer.ts"
import * as OpenAi from "./openAi.ts"
import * as Refusals from "./refusals.ts"
import * as Speech from "./speech.ts"
import { pause } from "./turns.ts"

// Plays turns as a model that has no wire: the same parts and the same errors as OpenAiCompatible makes of that wire.

export type Draft = Mutable<ScriptedModel.Call>

/** One call while it runs. */
export interface Performance {
  readonly call: Draft
  readonly turn: Turn.Turn
  /** What is said where the turn says nothing. */
  readonly otherwise: string
  readonly inputTokens: number
  readonly pace: Speech.Pace
  readonly streamErrors: "parts" | "failures"
  readonly now: () => number
  /** Notes how it ended. Only the first end counts. */
  readonly end: (ending: ScriptedModel.Call["ending"]) => void
}

const host = "scripted.invalid"
const url = `http://${host}/v1/chat/completions`

const originOf = ({ call }: Performance): Failure.Origin => ({
  module: "OpenAiCompatible",
  provider: host,
  method: call.method === "streamText" ? "streamText" : "generateText",
  model: call.model,
  url,
  hasKey: true,
  mask: (text) => text,
  excerptLength: 2048,
  maxRetryAfter: Duration.days(1)
})

const bounds: Bounds = { answerSize: 2 ** 30, eventSize: 2 ** 30, jsonDepth: 64 }

const ok = (call: Draft, type = "application/json"): Failure.Answer => ({
  status: 200,
  headers: HttpHeaders.fromInput({ "content-type": type, "x-request-id": `req-scripted-${call.n}` })
})

// ---------- in one piece

/** The answer of one call, or the error that it fails with. */
export const whole = (performance: Performance): Effect.Effect<Array<Response.PartEncoded>, AiError.AiError> =>
  Effect.onExit(
    Effect.andThen(pause(performance.turn.delayMillis), Effect.suspend(() => wholeInTime(performance))),
    (exit) => Effect.sync(() => performance.end(endingOf(exit)))
  )

const endingOf = (exit: Exit.Exit<unknown, unknown>): ScriptedModel.Call["ending"] => {
  if (Exit.isSuccess(exit)) return "complete"
  return Cause.hasInterruptsOnly(exit.cause) ? "interrupted" : "failed"
}

const wholeInTime = (performance: Performance): Effect.Effect<Array<Response.PartEncoded>, AiError.AiError> => {
  const { turn } = performance
  switch (turn._tag) {
    case "Hang":
      return Effect.never
    case "Status":
    case "Refusal":
      return notAnswered(performance, turn)
    default:
      return spokenWhole(performance, turn)
  }
}

const spokenWhole = (performance: Performance, turn: Speech.Spoken) => {
  const { call } = performance
  if (turn._tag === "Reset" && turn.afterTokens === undefined) return Effect.fail(lost(performance))
  const speech = speechOf(performance, turn)
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
          return Effect.fail(Failure.notJson(originOf(performance), ok(call), half(performance, speech)))
        case "Reset":
          return Effect.fail(lost(performance))
        case "Malformed":
          return Effect.fail(Failure.notJson(originOf(performance), ok(call), turn.text))
        case "Error":
          return Effect.fail(streamError(performance, turn))
      }
      call.firstPartAt = performance.now()
      const parts: Array<Response.PartEncoded> = [metadata(performance)]
      for (const block of speech.blocks) {
        parts.push(block.type === "tool-call" ? toolCall(block) : { type: block.type, text: block.text })
      }
      parts.push(finish(speech, speech.finish === "none" ? "unknown" : speech.finish))
      return Effect.succeed(parts)
    })
  )
}

/** As much of an answer as comes over a wire that is cut. */
const half = ({ call, now }: Performance, speech: Speech.Speech): string => {
  const head = { n: call.n, model: call.model, created: Math.floor(now() / 1000), withUsage: false }
  const whole = JSON.stringify(OpenAi.dialect.whole(head, speech))
  return whole.slice(0, whole.length / 2)
}

/** A whole response that is no answer, or is one all the same if its body says so. */
const notAnswered = (
  performance: Performance,
  turn: Extract<Turn.Turn, { readonly _tag: "Status" | "Refusal" }>
): Effect.Effect<Array<Response.PartEncoded>, AiError.AiError> =>
  Effect.suspend(() => {
    const { call } = performance
    const origin = originOf(performance)
    const { body, headers, status } = Refusals.response("openai", turn, call.model)
    if (turn.retryAfterMillis !== undefined) call.retryAfterMillis = turn.retryAfterMillis
    const answer: Failure.Answer = { status, headers: HttpHeaders.fromInput(headers) }
    return status < 200 || status > 299
      ? Effect.fail(Failure.fromStatus(origin, answer, body, performance.now()))
      : Effect.fromResult(WholeAnswer.read(origin, answer, bounds, `call_${call.n}`, body))
  })

// ---------- in parts

type Part = Response.StreamPartEncoded
type Step = Pull.Pull<Arr.NonEmptyReadonlyArray<Part>, AiError.AiError>

/** The parts of one call, as they come. */
export const streamed = (performance: Performance): Stream.Stream<Part, AiError.AiError> =>
  Stream.onExit(
    Stream.unwrap(Effect.map(pause(performance.turn.delayMillis), () => streamedInTime(performance))),
    // What ends by itself has noted how; whoever else ends it interrupts it.
    (exit) => Effect.sync(() => performance.end(hasFailed(exit) ? "failed" : "interrupted"))
  )

const hasFailed = (exit: Exit.Exit<unknown, unknown>): boolean => Exit.isFailure(exit) && Cause.hasFails(exit.cause)

const streamedInTime = (performance: Performance): Stream.Stream<Part, AiError.AiError> => {
  const { call, turn } = performance
  switch (turn._tag) {
    case "Hang":
      return Stream.never
    case "Status":
    case "Refusal":
      return Stream.unwrap(Effect.flatMap(notAnswered(performance, turn), () =>
        Effect.fail(
          Failure.incompatible(originOf(performance), ok(call), "a whole answer, where a stream was asked for")
        )))
    default:
      return spokenInParts(performance, turn)
  }
}

const spokenInParts = (performance: Performance, turn: Speech.Spoken): Stream.Stream<Part, AiError.AiError> => {
  if (turn._tag === "Reset" && turn.afterTokens === undefined) return Stream.fail(lost(performance))
  const { call, streamErrors } = performance
  const origin = originOf(performance)
  const streaming = ok(call, "text/event-stream")
  const speech = speechOf(performance, turn)
  const steps = Speech.steps(turn, speech)
  let open: number | undefined
  let ready: Array<Part> = [metadata(performance)]
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

  // What is ready goes before whatever comes next.
  let then: Step | undefined
  const flushed = (step: Step): Step => {
    const [first, ...rest] = ready
    if (first === undefined) return step
    ready = []
    then = step
    parts += 1 + rest.length
    call.firstPartAt ??= performance.now()
    return Effect.succeed([first, ...rest] as const)
  }
  const fail = (error: () => AiError.AiError): Step =>
    flushed(Effect.suspend(() => {
      performance.end("failed")
      return Effect.fail(error())
    }))
  const done: Step = Effect.suspend(() => {
    performance.end("failed")
    return Cause.done()
  })
  const truncated = (): Step =>
    streamErrors === "parts"
      ? flushed(done)
      : fail(() => Failure.truncated(origin, streaming, { events, parts, hadOutput: events > 0 }))

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
        return fail(() => lost(performance, "connection lost within the answer: terminated"))
      case "Malformed":
        return fail(() => Failure.malformed(origin, streaming, step.text))
      case "Error": {
        const { code, message, type } = step.turn
        if (streamErrors === "failures") return fail(() => streamError(performance, step.turn))
        ready.push({ type: "error", error: { type, message, ...(code === undefined ? {} : { code }) } })
        performance.end("failed")
        return flushed(next)
      }
      case "End":
        close()
        if (speech.finish === "none") return truncated()
        bill(call, speech, speech.length)
        ready.push(finish(speech, speech.finish))
        // From here on nothing that its reader does makes it less than complete.
        performance.end("complete")
        return flushed(next)
    }
  })

  return Stream.unwrap(Effect.as(pause(speech.pace.firstTokenMillis), Stream.fromPull(Effect.succeed(next))))
}

// ---------- what both have in common

const speechOf = ({ call, inputTokens, otherwise, pace }: Performance, turn: Speech.Spoken): Speech.Speech => {
  const speech = Speech.fromTurn(turn, otherwise, inputTokens, pace, (n) => `call_${call.n}_${n}`)
  call.inputTokens = speech.billed.input
  return speech
}

/** What was produced so far, shared out over its tokens. */
const bill = (call: Draft, { billed, length }: Speech.Speech, upTo: number): void => {
  call.outputTokens = length === 0 ? billed.output : Math.round(billed.output * upTo / length)
}

const metadata = ({ call, now }: Performance): Response.ResponseMetadataPartEncoded => ({
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

const lost = (performance: Performance, description = "ECONNRESET: socket hang up"): AiError.AiError =>
  Failure.make(
    originOf(performance),
    new AiError.NetworkError({ reason: "TransportError", method: "POST", url, description })
  )

const streamError = (
  performance: Performance,
  turn: Extract<Turn.Turn, { readonly _tag: "Error" }>
): AiError.AiError => {
  const { code, message, type } = turn
  const body = Refusals.body("openai", { type, message, code })
  const error = { type, message, code }
  return Failure.fromStream(originOf(performance), ok(performance.call), error, body)
}
