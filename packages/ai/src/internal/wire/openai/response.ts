import * as BoundedJson from "@sluice/core/BoundedJson"
import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import type { RequestConfig } from "../config.ts"
import * as ErrorIn from "../errorIn.ts"
import * as Failure from "../failure.ts"
import { finishReason, isIncomplete, sentReason } from "../finishReason.ts"
import * as Json from "../json.ts"
import { ToolCalls } from "../toolCalls.ts"
import type { WireRequest, WireResponse } from "../wire.ts"
import * as Chunk from "./chunk.ts"
import * as Content from "./content.ts"
import { Thoughts } from "./thoughts.ts"
import { Usage } from "./usage.ts"

/** Reads a whole response. */
export const read = (
  { origin }: Pick<WireRequest<RequestConfig>, "origin">,
  received: WireResponse,
  body: string
): Result.Result<Array<Response.PartEncoded>, AiError.AiError> => {
  const { bounds, response } = received
  const json = BoundedJson.parse(body, bounds.jsonDepth)
  if (Result.isFailure(json)) {
    return Result.fail(
      json.failure === "TooDeep"
        ? Failure.incompatible(origin, response, `a response nested deeper than ${bounds.jsonDepth} levels`)
        : Failure.notJson(origin, response, body)
    )
  }
  const completion = Json.object(json.success)
  const choices = completion === undefined ? undefined : Chunk.choicesOf(completion)
  const answers = (choices ?? [])
    .map((choice) => Chunk.messageOf(choice))
    .filter((message) => message !== undefined)
  const error = errorOf(json.success, choices ?? [], answers)
  if (error !== undefined) return Result.fail(Failure.fromStream(origin, response, error, body))
  return completion === undefined || choices === undefined || answers.length === 0
    ? Result.fail(Failure.incompatible(origin, response, `not a chat completion: ${Failure.sample(origin, body)}`))
    : toParts(origin, received, completion, choices, answers)
}

/** The error in a response with status 200: beside the choices, in one of them, or instead of them. */
const errorOf = (
  json: unknown,
  choices: ReadonlyArray<Json.JsonObject>,
  messages: ReadonlyArray<Json.JsonObject>
): unknown => {
  if (messages.length === 0 && choices.length === 0) return ErrorIn.asWhole(json)
  for (const part of [json, ...choices, ...messages]) {
    const error = Json.isObject(part) ? ErrorIn.inField(part) : undefined
    if (error !== undefined) return error
  }
  return undefined
}

const toParts = (
  origin: Failure.Origin,
  { bounds, newId, response }: WireResponse,
  completion: Json.JsonObject,
  choices: ReadonlyArray<Json.JsonObject>,
  messages: ReadonlyArray<Json.JsonObject>
): Result.Result<Array<Response.PartEncoded>, AiError.AiError> => {
  const sent = choices.map((choice) => sentReason(choice["finish_reason"])).findLast((reason) => reason !== undefined)
  const reason = sent === undefined ? "unknown" : finishReason(sent)
  if (reason === "error") return Result.fail(ErrorIn.brokeOff(origin, response, sent ?? ""))

  const parts: Array<Response.PartEncoded> = [new Chunk.Head().add(completion).metadata()]
  const toolCalls = new ToolCalls(newId)
  let refusal = ""
  for (const message of messages) {
    const thoughts = new Thoughts(origin.provider)
    const thought = thoughts.read(message)
    const metadata = thoughts.take()
    if (thought !== "" || metadata !== undefined) {
      parts.push({ type: "reasoning", text: thought, ...(metadata === undefined ? {} : { metadata }) })
    }
    for (const { kind, text } of Content.pieces(message["content"])) {
      if (kind === "refusal") refusal += text
      else if (text !== "") parts.push({ type: kind, text })
    }
    if (typeof message["refusal"] === "string") refusal += message["refusal"]
    for (const call of Chunk.toolCallsOf(message)) toolCalls.addWhole(call)
  }
  if (refusal !== "") return Result.fail(Failure.refused(origin, response, refusal))
  if (reason === "bad-call") return Result.fail(ErrorIn.badCall(origin))
  const usage = new Usage()
  usage.add(completion, choices[0])
  return Result.map(toolCalls.finish(origin, isIncomplete(reason), bounds.jsonDepth), ({ whole }) => {
    parts.push(...whole, { type: "finish", reason, usage: usage.encoded(), response: undefined })
    return parts
  })
}
