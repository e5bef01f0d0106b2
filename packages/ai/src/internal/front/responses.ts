import type { FinishReason } from "effect/ai/Response"
import * as ErrorIn from "../wire/errorIn.ts"
import { finishReason } from "../wire/finishReason.ts"
import * as Json from "../wire/json.ts"
import { Usage } from "../wire/openai/usage.ts"
import { errorEnd, Rules, type Usage as Counts } from "./rules.ts"

/** The events that are read also after the first output. */
const watched = new Set(["response.completed", "response.incomplete", "response.failed", "error", ""])

/** The events that have no part of the answer. */
const silent = new Set([
  "response.created",
  "response.queued",
  "response.in_progress",
  "response.content_part.added",
  "response.reasoning_summary_part.added",
  "keepalive",
  "ping"
])

const failed = { message: "the provider failed the response" }

/** The rules of streamed responses of OpenAI. The answer is complete at the event that ends it. */
export class ResponsesRules extends Rules {
  private readonly counts = new Usage()

  get usage(): Counts {
    return this.counts.encoded()
  }

  /** Nothing follows the event that makes the answer complete. */
  get ending(): string {
    return ""
  }

  isPlain(name: string, data: string): boolean {
    return !watched.has(name) && !data.includes(errorEnd)
  }

  read(json: Json.JsonObject, name: string): boolean {
    const type = Json.text(json["type"]) ?? name
    const error = ErrorIn.inField(json)
    if (error !== undefined) return this.fail(error, type === "error" && Json.isObject(json["error"]))
    const response = Json.object(json["response"])
    switch (type) {
      case "error":
        return this.fail(ErrorIn.asWhole(json) ?? json)
      case "response.failed":
        return this.fail(Json.object(response?.["error"]) ?? failed)
      case "response.completed":
      case "response.incomplete":
        if (response !== undefined) {
          this.counts.add(response, undefined)
          this.ends(reasonOf(response))
        }
        this.hasOutput =
          this.isComplete =
          this.hasEnd =
          this.isOver =
            true
        return true
      case "response.output_item.added": {
        const item = Json.object(json["item"])?.["type"]
        if (item !== "message" && item !== "reasoning") this.hasOutput = true
        return true
      }
      case "":
        return this.foreign(json, JSON.stringify(json))
      default:
        if (!silent.has(type) && json["delta"] !== "") this.hasOutput = true
        return true
    }
  }

  readWhole(answer: Json.JsonObject): boolean {
    const { error, output, status } = answer
    this.counts.add(answer, undefined)
    if (status === "failed") return this.fail(Json.object(error) ?? failed)
    if (status === "completed" || status === "incomplete") this.ends(reasonOf(answer))
    // A response in the background has no output yet.
    return Array.isArray(output) || typeof status === "string" || this.foreign(answer, JSON.stringify(answer))
  }

  hasContent(): boolean {
    return false
  }
}

/** Why a response ended. This API says no reason for one that is complete. */
const reasonOf = ({ incomplete_details: details, output, status }: Json.JsonObject): FinishReason => {
  if (status === "incomplete") {
    const reason = finishReason(Json.text(Json.object(details)?.["reason"]) ?? "incomplete")
    return reason === "bad-call" ? "error" : reason
  }
  const hasCall = Array.isArray(output) && output.some((item) => Json.object(item)?.["type"] === "function_call")
  return hasCall ? "tool-calls" : "stop"
}
