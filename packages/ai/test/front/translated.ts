import { assert } from "@effect/vitest"
import * as Result from "effect/Result"
import type { Refusal } from "../../src/internal/front/translate/level.ts"
import type { RequestOptions, StreamTranslator, Translation } from "../../src/internal/front/translate/translation.ts"

export interface Json {
  readonly [field: string]: unknown
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

export const answerOptions = { created: 1_700_000_000, id: "call_1" }

export const bytesOf = (text: string): Uint8Array => encoder.encode(text)

/** The request that the target gets, and the names of the fields that were left out. */
export const requested = (
  translation: Translation,
  request: Json | string,
  options: RequestOptions = {}
): { readonly request: Json; readonly text: string; readonly omitted: ReadonlyArray<string> } => {
  const body = bytesOf(typeof request === "string" ? request : JSON.stringify(request))
  const result = translation.request(body, options)
  if (Result.isFailure(result)) throw new Error(`refused: ${JSON.stringify(result.failure)}`)
  return { request: JSON.parse(result.success.body), text: result.success.body, omitted: result.success.omitted }
}

export const refused = (translation: Translation, request: Json | string, options: RequestOptions = {}): Refusal => {
  const body = bytesOf(typeof request === "string" ? request : JSON.stringify(request))
  const result = translation.request(body, options)
  assert.isTrue(Result.isFailure(result), `accepted: ${JSON.stringify(result)}`)
  return Result.isFailure(result) ? result.failure : { param: "", message: "" }
}

export const answered = (translation: Translation, answer: Json | string): Json | undefined => {
  const text = translation.answer(
    bytesOf(typeof answer === "string" ? answer : JSON.stringify(answer)),
    answerOptions
  )
  return text === undefined ? undefined : JSON.parse(text)
}

/** The text of the translated events, which are fed one by one. */
export const streamed = (translator: StreamTranslator, events: ReadonlyArray<string>): string =>
  events.map((event) => decoder.decode(translator.feed(bytesOf(event)) ?? new Uint8Array())).join("")

export const ended = (translator: StreamTranslator): string => decoder.decode(translator.end() ?? new Uint8Array())

/** The data of events, parsed. */
export const dataOf = (text: string): ReadonlyArray<Json | string> =>
  text.split("\n\n").flatMap((event) => {
    const line = event.split("\n").find((line) => line.startsWith("data: "))
    if (line === undefined) return []
    const data = line.slice(6)
    return data === "[DONE]" ? [data] : [JSON.parse(data)]
  })

/** An event of messages. */
export const event = (type: string, fields: Json = {}): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`

/** An event of chat completions. */
export const chunk = (delta: Json, finish_reason: string | null = null, more: Json = {}): string =>
  `data: ${
    JSON.stringify({
      id: "chatcmpl-1",
      object: "chat.completion.chunk",
      created: 1,
      model: "m1",
      choices: [{ index: 0, delta, finish_reason }],
      ...more
    })
  }\n\n`

export const done = "data: [DONE]\n\n"
