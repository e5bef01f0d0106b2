import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Stream from "effect/Stream"
import type { Duplex } from "node:stream"
import * as Zlib from "node:zlib"
import { peek } from "./peek.ts"

type Bytes = Stream.Stream<Uint8Array, unknown>

// Output is emitted as soon as it is decoded. A body without its last bytes or its checksum is no error here: the reader of
// the response decides by its content whether it is complete.
const deflateOptions = { flush: Zlib.constants.Z_SYNC_FLUSH, finishFlush: Zlib.constants.Z_SYNC_FLUSH }
const brotliOptions = {
  flush: Zlib.constants.BROTLI_OPERATION_FLUSH,
  finishFlush: Zlib.constants.BROTLI_OPERATION_FLUSH
}
const zstdOptions = { flush: Zlib.constants.ZSTD_e_flush, finishFlush: Zlib.constants.ZSTD_e_flush }

type MakeDecoder = () => Duplex

const gunzip: MakeDecoder = () => Zlib.createGunzip(deflateOptions)
const inflate: MakeDecoder = () => Zlib.createInflate(deflateOptions)
const inflateRaw: MakeDecoder = () => Zlib.createInflateRaw(deflateOptions)
const brotli: MakeDecoder = () => Zlib.createBrotliDecompress(brotliOptions)
const zstd: MakeDecoder = () => Zlib.createZstdDecompress(zstdOptions)

/** A content coding. Chooses the decoder by the first bytes. `undefined` if more bytes are needed, `"plain"` if they are not encoded. */
export type Coding = (beginning: Uint8Array) => MakeDecoder | "plain" | undefined

// A proxy may decode a body and leave the header. These codings are recognised by their first bytes.
const withMagic = (magic: ReadonlyArray<number>, decoder: MakeDecoder): Coding => (beginning) => {
  if (beginning.length >= magic.length) return magic.every((byte, at) => beginning[at] === byte) ? decoder : "plain"
  return magic.slice(0, beginning.length).every((byte, at) => beginning[at] === byte) ? undefined : "plain"
}

/** `deflate` is zlib's format by the standard, and without zlib's header for some servers. */
const chooseInflate: Coding = (beginning) => {
  const [first, second] = beginning
  if (first === undefined || second === undefined) return undefined
  return (first & 0x0f) === 8 && ((first << 8) | second) % 31 === 0 ? inflate : inflateRaw
}

const gzipCoding = withMagic([0x1f, 0x8b], gunzip)
const codings = new Map<string, Coding>([
  ["gzip", gzipCoding],
  ["x-gzip", gzipCoding],
  ["deflate", chooseInflate],
  ["br", () => brotli],
  ["zstd", withMagic([0x28, 0xb5, 0x2f, 0xfd], zstd)]
])

/** More codings could exhaust the memory of a client. urllib3 and curl have the same limit. */
export const maxCodings = 5

export const tooManyCodings = (): Error => new Error(`more than ${maxCodings} content codings`)

/** The codings that are requested. */
export const acceptEncoding = "gzip, deflate"

/** Requests compressed responses, and decompresses them, whether they have a coding that was requested or another. */
export const decompress = (client: HttpClient.HttpClient): HttpClient.HttpClient =>
  HttpClient.transformResponse(
    HttpClient.mapRequest(client, HttpClientRequest.setHeader("accept-encoding", acceptEncoding)),
    Effect.flatMap((response) => {
      const header = response.headers["content-encoding"]
      return header === undefined ? Effect.succeed(response) : decode(response, header)
    })
  )

const decode = (
  response: HttpClientResponse.HttpClientResponse,
  header: string
): Effect.Effect<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError> => {
  const applied = codingsOf(response.status, header)
  if (applied.length === 0) return Effect.succeed(response)
  if (applied.length > maxCodings) {
    return Effect.fail(
      new HttpClientError.HttpClientError({
        reason: new HttpClientError.DecodeError({
          request: response.request,
          response,
          cause: tooManyCodings()
        })
      })
    )
  }
  // The new response wraps errors again, so only the connection's own error is passed on.
  const bytes: Bytes = Stream.mapError(response.stream, (error) => error.reason.cause ?? error)
  return Effect.map(
    Stream.toReadableStreamEffect(decoded(bytes, applied)),
    (body) => HttpClientResponse.fromWeb(response.request, webResponse(response, body))
  )
}

/** The codings of a body, in the order in which they were applied. */
export const codingsOf = (status: number, header: string | undefined): ReadonlyArray<Coding> => {
  if (header === undefined || hasNoBody(status)) return []
  // Unknown names are ignored, as in browsers: some servers write a charset here.
  return header.toLowerCase().split(",").flatMap((name) => codings.get(name.trim()) ?? [])
}

/** Removes the codings of a body. The first coding was applied first, and is removed last. */
export const decoded = (bytes: Bytes, applied: ReadonlyArray<Coding>): Bytes => applied.reduceRight(removed, bytes)

// Streams decompress no faster than they are read. A few kilobytes that expand to gigabytes do not fill the memory.
const removed = (bytes: Bytes, choose: Coding): Bytes =>
  Stream.unwrap(
    Effect.map(peek(bytes, choose), ({ bytes, kind }) =>
      kind === undefined || kind === "plain"
        ? bytes
        : NodeStream.pipeThroughDuplex(bytes, { evaluate: kind, onError: (error): unknown => error }))
  )

const webResponse = (response: HttpClientResponse.HttpClientResponse, body: ReadableStream<Uint8Array>): Response => {
  const headers = new Headers(response.headers)
  headers.delete("content-encoding")
  headers.delete("content-length")
  const { status } = response
  const decoded = new Response(body, { headers })
  // The constructor refuses a status that a server made up.
  return status === 200 ? decoded : Object.defineProperty(decoded, "status", { value: status })
}

const hasNoBody = (status: number): boolean => status < 200 || status === 204 || status === 205 || status === 304
