import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Effect from "effect/Effect"
import type * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { OnMalformedEvent } from "../stream/malformed.ts"
import * as Body from "./body.ts"
import { type BodyKind, kindOf, linesOf, withoutDone } from "./bodyKind.ts"
import type { Bounds } from "./bounds.ts"
import type { RequestConfig } from "./config.ts"
import * as Failure from "./failure.ts"
import { toStream, toWhole } from "./partsForms.ts"
import { peek } from "./peek.ts"
import * as ResponseStream from "./responseStream.ts"
import type { Wire, WireRequest, WireResponse } from "./wire.ts"

type Bytes = Stream.Stream<Uint8Array, HttpClientError.HttpClientError>

/** A response in its actual form, which may differ from the requested one. */
export type Answer =
  | { readonly _tag: "Whole"; readonly parts: Array<Response.PartEncoded> }
  | { readonly _tag: "Streamed"; readonly parts: Stream.Stream<Response.StreamPartEncoded, AiError.AiError> }

/** The parts of an answer to a request for a whole response. */
export const wholeParts = (answer: Answer): Effect.Effect<Array<Response.PartEncoded>, AiError.AiError> =>
  answer._tag === "Whole" ? Effect.succeed(answer.parts) : Effect.map(Stream.runCollect(answer.parts), toWhole)

/** The parts of an answer to a request for a stream. */
export const streamedParts = (answer: Answer): Stream.Stream<Response.StreamPartEncoded, AiError.AiError> =>
  answer._tag === "Streamed" ? answer.parts : Stream.fromArray(toStream(answer.parts))

/**
 * Reads a response by the format of its body: events are a stream, and JSON is a whole response. The request and the content type
 * decide only if the format is unclear.
 */
export const read = <C extends RequestConfig>(
  wire: Wire<C>,
  request: WireRequest<C>,
  received: WireResponse,
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<Answer, AiError.AiError, Scope.Scope> => {
  const { origin } = request
  const streamed = (bytes: Bytes): Effect.Effect<Answer> =>
    Effect.map(OnMalformedEvent, (onMalformedEvent) => {
      const reader = wire.streamedResponse(request, received)
      reader.onMalformedEvent = onMalformedEvent
      return { _tag: "Streamed", parts: ResponseStream.make(bytes, reader) }
    })
  const whole = (body: string): Effect.Effect<Answer, AiError.AiError> => {
    const lines = linesOf(body)
    if (lines !== undefined) return streamed(Stream.succeed(eventsOf(lines)))
    return Effect.map(
      Effect.fromResult(wire.response(request, received, withoutDone(body))),
      (parts) => ({ _tag: "Whole", parts })
    )
  }
  return Effect.flatMap(
    peek(response.stream, kindOf),
    ({ bytes, kind }) =>
      isStream(kind, origin, response)
        ? streamed(bytes)
        : Effect.flatMap(text(origin, received.bounds, response, bytes), whole)
  )
}

/** Whether a response is a stream, by the format of its body. */
export const isStream = (
  kind: BodyKind | undefined,
  { method }: Failure.Origin,
  { headers }: Failure.ResponseHead
): boolean => {
  if (kind === "events" || kind === "json") return kind === "events"
  const type = headers["content-type"] ?? ""
  return method === "streamText" && !type.includes("json") && !type.includes("html")
}

/** Reads a whole body as text. Fails if it is too large, or the connection is lost. */
export const text = (
  origin: Failure.Origin,
  { answerSize }: Pick<Bounds, "answerSize">,
  response: HttpClientResponse.HttpClientResponse,
  bytes: Bytes
): Effect.Effect<string, AiError.AiError> =>
  Body.text(bytes, answerSize).pipe(
    Effect.catch((error) =>
      Effect.fail(
        error._tag === "TooLarge"
          ? Failure.incompatible(origin, response, `a response of more than ${answerSize} bytes`)
          : Failure.cut(origin, response, error)
      )
    )
  )

/** Converts JSON texts, one a line, to the events of a stream. */
export const eventsOf = (lines: ReadonlyArray<string>): Uint8Array =>
  new TextEncoder().encode(lines.map((line) => `data: ${line}\n\n`).join(""))
