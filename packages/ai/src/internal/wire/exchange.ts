import type * as AiError from "effect/ai/AiError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { constTrue } from "effect/Function"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import type * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import { OnHeaders } from "../kit/onHeaders.ts"
import * as Body from "./body.ts"
import type { Bounds } from "./bounds.ts"
import type { Endpoint } from "./endpoint.ts"
import * as Failure from "./failure.ts"
import * as Headers from "./headers.ts"

/** How much of an error's body is read for its code and message. */
export const errorBodyBytes = 64 * 1024

/**
 * Sends a request in a span of this module. Fails on every status but 2xx.
 *
 * The client's own span would hold the request, with prompt and key, for every tracer that looks into results, and the
 * URL's query. It would also send `traceparent`, which tells the provider which of its customer's requests belong together.
 */
export const send = (
  client: HttpClient.HttpClient.With<HttpClientError.HttpClientError, Scope.Scope>,
  origin: Failure.Origin,
  endpoint: Endpoint,
  request: HttpClientRequest.HttpClientRequest,
  propagateTrace: boolean
): Effect.Effect<HttpClientResponse.HttpClientResponse, AiError.AiError, Scope.Scope> =>
  Effect.suspend(() => {
    let received: HttpClientResponse.HttpClientResponse | undefined
    const exchange = (span: Tracer.Span) =>
      client.execute(propagateTrace ? HttpClientRequest.setHeaders(request, HttpTraceContext.toHeaders(span)) : request)
        .pipe(
          Effect.provideService(HttpClient.TracerDisabledWhen, constTrue),
          Effect.matchEffect({
            onFailure: (error) => connectionLost(origin, error),
            onSuccess: (response) => {
              received = response
              addStatus(span, response.status)
              return headersArrived(response)
            }
          })
        )
    return Effect.flatMap(
      Effect.useSpan("http.client POST", spanOptions(endpoint), exchange),
      () => {
        if (received === undefined) return Effect.die("a request succeeded without a response")
        const isOk = received.status >= 200 && received.status <= 299
        return isOk ? Effect.succeed(received) : rejected(origin, received)
      }
    )
  })

/** How the span of a request begins. */
export const spanOptions = ({ host, port, shown }: Endpoint): Tracer.SpanOptions => ({
  kind: "client",
  attributes: {
    "http.request.method": "POST",
    "url.full": shown,
    "server.address": host,
    "server.port": port
  }
})

export const addStatus = (span: Tracer.Span, status: number): void => {
  span.attribute("http.response.status_code", status)
  if (status >= 400) span.attribute("error.type", String(status))
}

const headersArrived = ({ headers }: HttpClientResponse.HttpClientResponse): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    fiber.getRef(OnHeaders)?.(headers)
    return Effect.void
  })

/** Fails because the request was not sent, or because the connection failed. */
export const connectionLost = (
  origin: Failure.Origin,
  error: HttpClientError.HttpClientError
): Effect.Effect<never, AiError.AiError> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.fail(Failure.transport(origin, error, now)))

const rejected = (
  origin: Failure.Origin,
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<never, AiError.AiError> =>
  Effect.flatMap(
    Body.beginning(response, errorBodyBytes),
    (body) =>
      Effect.flatMap(
        Clock.currentTimeMillis,
        (now) => Effect.fail(Failure.fromStatus(origin, Headers.withAllWaits(response), body, now))
      )
  )

/** Reads a whole body as text. Fails if it is too large, or the connection is lost. */
export const text = (
  origin: Failure.Origin,
  { answerSize }: Pick<Bounds, "answerSize">,
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<string, AiError.AiError> =>
  Body.text(response.stream, answerSize).pipe(
    Effect.catch((error) =>
      Effect.fail(
        error._tag === "TooLarge"
          ? Failure.incompatible(origin, response, `a response of more than ${answerSize} bytes`)
          : Failure.cut(origin, response, error)
      )
    )
  )
