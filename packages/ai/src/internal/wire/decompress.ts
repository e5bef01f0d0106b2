import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Stream from "effect/Stream"

const formats = new Map<string, "gzip" | "deflate">([["gzip", "gzip"], ["x-gzip", "gzip"], ["deflate", "deflate"]])

/** Requests compressed responses, and decompresses them. */
export const decompress = (client: HttpClient.HttpClient): HttpClient.HttpClient =>
  HttpClient.transformResponse(
    HttpClient.mapRequest(client, HttpClientRequest.setHeader("accept-encoding", "gzip, deflate")),
    Effect.flatMap((response) => {
      const format = formats.get(response.headers["content-encoding"]?.trim().toLowerCase() ?? "")
      return format === undefined ? Effect.succeed(response) : unfold(response, format)
    })
  )

// Web streams decompress no faster than they are read. A few kilobytes that expand to gigabytes do not fill the memory.
const unfold = (
  response: HttpClientResponse.HttpClientResponse,
  format: "gzip" | "deflate"
): Effect.Effect<HttpClientResponse.HttpClientResponse> =>
  Effect.map(Stream.toReadableStreamEffect(response.stream), (body) => {
    const headers = new Headers(response.headers)
    headers.delete("content-encoding")
    headers.delete("content-length")
    return HttpClientResponse.fromWeb(
      response.request,
      new Response(body.pipeThrough(new DecompressionStream(format)), { status: response.status, headers })
    )
  })
