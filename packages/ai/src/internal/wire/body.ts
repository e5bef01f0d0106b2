import * as Effect from "effect/Effect"
import type * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Stream from "effect/Stream"

/** The body is larger than the limit. */
export interface TooLarge {
  readonly _tag: "TooLarge"
}

/** Reads a body as text. Fails as soon as it exceeds `maxBytes`. */
export const text = (
  bytes: Stream.Stream<Uint8Array, HttpClientError.HttpClientError>,
  maxBytes: number
): Effect.Effect<string, HttpClientError.HttpClientError | TooLarge> =>
  Effect.suspend(() => {
    const decoder = new TextDecoder()
    let size = 0
    let text = ""
    return Stream.runForEachArray(bytes, (chunks) => {
      for (const chunk of chunks) {
        size += chunk.length
        if (size > maxBytes) return Effect.fail<TooLarge>({ _tag: "TooLarge" })
        text += decoder.decode(chunk, { stream: true })
      }
      return Effect.void
    }).pipe(Effect.map(() => text + decoder.decode()))
  })

/** Reads the beginning of a body, for an error. Never fails: if the connection is lost, the text ends there. */
export const beginning = (response: HttpClientResponse.HttpClientResponse, maxBytes: number): Effect.Effect<string> =>
  Effect.suspend(() => {
    const decoder = new TextDecoder()
    let size = 0
    let text = ""
    return Stream.runForEachArray(response.stream, (chunks) => {
      for (const chunk of chunks) {
        text += decoder.decode(chunk.subarray(0, maxBytes - size), { stream: true })
        size += chunk.length
        if (size >= maxBytes) return Effect.fail("enough")
      }
      return Effect.void
    }).pipe(Effect.ignore, Effect.map(() => text))
  })
