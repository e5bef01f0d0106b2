import type { OutgoingHeaders, Sink } from "./exchange.ts"
import { type Refusal, toResponse } from "./refusal.ts"
import type { Speaks } from "./route.ts"

/** Answers with JSON. */
export const json = (sink: Sink, value: unknown): void => {
  const body = JSON.stringify(value)
  sink.head(200, { "content-type": "application/json", "content-length": String(Buffer.byteLength(body)) })
  sink.end(body)
}

/** Answers with an error. */
export const refuse = (sink: Sink, speaks: Speaks, refusal: Refusal, more?: OutgoingHeaders): void => {
  const { body, headers, status } = toResponse(speaks, refusal)
  sink.head(status, { ...headers, ...more })
  sink.end(body)
}

/** A name as the value of a header, which has visible ASCII characters only. */
export const asHeader = (name: string): string => /^[\x21-\x7e]*$/.test(name) ? name : encodeURIComponent(name)
