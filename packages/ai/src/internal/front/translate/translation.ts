import * as Result from "effect/Result"
import { answerToChat } from "./answerToChat.ts"
import { answerToMessages } from "./answerToMessages.ts"
import * as Errors from "./errors.ts"
import * as ExactJson from "./exactJson.ts"
import type { Refusal, Translated } from "./level.ts"
import { requestToChat } from "./requestToChat.ts"
import { requestToMessages } from "./requestToMessages.ts"
import { StreamToChat } from "./streamToChat.ts"
import { StreamToMessages } from "./streamToMessages.ts"

/** What the client's request and the target say about a call. */
export interface RequestOptions {
  /** The name of the model at the target. By default the one in the request. */
  readonly model?: string | undefined
  /** The limit of an answer for requests without one, toward messages. Default: 4096. */
  readonly maxTokens?: number | undefined
  /** Whether the target is OpenAI itself. */
  readonly isOpenAi?: boolean | undefined
  /** The fields at the top of a request that are left out if they have no equivalent. Default: none, so that they are refused. */
  readonly omittable?: ReadonlyArray<string> | undefined
}

export interface AnswerOptions {
  /** Epoch seconds, for the wire that has a time. */
  readonly created: number
  /** The id of an answer without one. */
  readonly id: string
  /** Whether the client asked for token counts in a stream of chat completions. */
  readonly includeUsage?: boolean
}

/** A request that the target can take. */
export interface TranslatedRequest {
  readonly body: string
  /** The names of the fields that were left out, for the log: they change the cost of an answer and not its meaning, or may be dropped. */
  readonly omitted: ReadonlyArray<string>
  readonly isStream: boolean
  /** Whether the client asked for token counts in a stream. */
  readonly includeUsage: boolean
}

export interface StreamTranslator {
  /** Whether an event could not be read. The stream must end in an error then. */
  readonly failed: boolean
  /** Translates whole events, as the guard of the target's wire lets them through. */
  feed(bytes: Uint8Array): Uint8Array | undefined
  /** The rest of an answer that the guard found complete. Nothing if its end was translated already, or no finish reason came. */
  end(): Uint8Array | undefined
}

/** The translation between the wire of a client and the wire of a target. */
export interface Translation {
  readonly request: (body: Uint8Array, options: RequestOptions) => Result.Result<TranslatedRequest, Refusal>
  /** A whole answer. `undefined`: it is malformed. */
  readonly answer: (body: Uint8Array, options: AnswerOptions) => string | undefined
  readonly stream: (options: AnswerOptions) => StreamTranslator
  /** An answer with an error status. */
  readonly error: (status: number, body: Uint8Array) => { readonly status: number; readonly body: string }
}

/** Deeper than any schema of a tool. The walks over a request recurse, so there is a bound. */
const maxDepth = 128

const decoder = new TextDecoder()

const requestWith = (
  translate: (request: unknown, options: RequestOptions) => Result.Result<Translated, Refusal>
): Translation["request"] =>
(body, options) => {
  const json = ExactJson.parse(decoder.decode(body), maxDepth)
  if (json === undefined) {
    return Result.fail({ param: "", message: `The request is not JSON, or nests deeper than ${maxDepth} levels` })
  }
  return Result.map(translate(json.value, options), ({ omitted, request }) => ({
    body: JSON.stringify(request),
    omitted,
    isStream: request["stream"] === true,
    includeUsage: ExactJson.isObject(json.value) && ExactJson.isObject(json.value["stream_options"]) &&
      json.value["stream_options"]["include_usage"] === true
  }))
}

const answerWith = (
  translate: (answer: unknown, options: AnswerOptions) => object | undefined
): Translation["answer"] =>
(body, options) => {
  const json = ExactJson.parse(decoder.decode(body), maxDepth)
  const answer = json === undefined ? undefined : translate(json.value, options)
  return answer === undefined ? undefined : JSON.stringify(answer)
}

/** A client of chat completions, a target with messages. */
export const chatOverMessages: Translation = {
  request: requestWith(requestToMessages),
  answer: answerWith(answerToChat),
  stream: (options) => new StreamToChat(options),
  error: (status, body) => ({
    status: Errors.chatStatus(status),
    body: JSON.stringify(Errors.errorToChat(decoder.decode(body), status))
  })
}

/** A client of messages, a target with chat completions. */
export const messagesOverChat: Translation = {
  request: requestWith(requestToChat),
  answer: answerWith(answerToMessages),
  stream: (options) => new StreamToMessages(options),
  error: (status, body) => ({
    status: Errors.messagesStatus(status),
    body: JSON.stringify(Errors.errorToMessages(decoder.decode(body), status))
  })
}
