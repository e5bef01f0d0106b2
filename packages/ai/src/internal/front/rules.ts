import type * as Response from "effect/ai/Response"
import * as ErrorIn from "../wire/errorIn.ts"
import { finishReason, stronger } from "../wire/finishReason.ts"
import type * as Json from "../wire/json.ts"

export type Usage = Response.FinishPartEncoded["usage"]

/** Why the rest of a stream is not passed on. */
export type Failure =
  | {
    /** The provider's own error within the stream. */
    readonly _tag: "Error"
    /** As the provider sent it. It may quote the prompt. */
    readonly error: unknown
    /** Whether the official clients raise an error on the event as the provider sent it. */
    readonly isRaised: boolean
  }
  /** An event that is no JSON, or JSON in another format. */
  | { readonly _tag: "Malformed"; readonly text: string }
  | { readonly _tag: "TooLarge"; readonly maxBytes: number }
  /** The provider ended the stream without a finish reason. Clients would take the answer for a whole one. */
  | { readonly _tag: "Unfinished" }

/** How much of an unreadable event is kept, in characters. */
const sampleLength = 1024

/**
 * The end of the key of an error. Other words with this end are few, and reading such an event does no harm. With the first quote,
 * a search would stop at each quote of the JSON.
 */
export const errorEnd = "error\""

/** What the events of a stream say so far. A subclass has the rules of its wire. */
export abstract class Rules {
  /** Whether the answer has begun, so that no other answer can replace it. */
  hasOutput = false
  /** Whether the answer has said why it ends. Content that follows makes it incomplete again. */
  isComplete = false
  /** Whether the event has come that is the last one of its wire. */
  hasEnd = false
  /** Why the answer ended: the most specific reason of its choices. */
  reason: Response.FinishReason | undefined
  /** Whether the answer is complete and nothing of it follows. */
  isOver = false
  failure: Failure | undefined

  /** Returns whether an event after the first output has none of the fields that `read` looks for. */
  abstract isPlain(name: string, data: string): boolean

  /** Reads an event. Returns whether it is passed on. */
  abstract read(json: Json.JsonObject, name: string): boolean

  /** Reads a whole answer in place of a stream. One without a finish reason is complete, since its JSON is. */
  abstract readWhole(answer: Json.JsonObject): boolean

  /** The token counts so far. */
  abstract get usage(): Usage

  /** The event that ends a complete answer and has not come yet. */
  abstract get ending(): string

  /** Whether the beginning of an event shows that it has content. */
  abstract hasContent(beginning: string): boolean

  /** Reads the event `[DONE]`, which only chat completions need. Returns whether it is passed on. */
  done(): boolean {
    // Clients take it for the end of a whole answer.
    if (!this.isComplete) this.failure = { _tag: "Unfinished" }
    return this.isComplete
  }

  /** Notes that the stream ended in order. */
  closed(): void {}

  protected fail(error: unknown, isRaised = false): false {
    this.failure = { _tag: "Error", error, isRaised }
    return false
  }

  /** Returns whether a finish reason ends the answer. Some report that the provider failed. */
  protected finishes(sent: string): boolean {
    const ending = finishReason(sent)
    if (ending !== "error" && ending !== "bad-call") {
      this.ends(ending)
      return true
    }
    return this.fail({ code: sent, message: "the provider broke off the answer" })
  }

  protected ends(reason: Response.FinishReason): void {
    const { reason: known = reason } = this
    const most = stronger(known, reason)
    this.reason = most === "bad-call" ? known : most
  }

  malformed(text: string): false {
    // Whatever cannot be read after the end is no part of the answer.
    if (!this.isComplete) this.failure = { _tag: "Malformed", text: text.slice(0, sampleLength) }
    return false
  }

  /** Reads JSON that is no object. */
  foreign(json: unknown, text: string): false {
    const error = ErrorIn.asWhole(json)
    return error === undefined ? this.malformed(text) : this.fail(error)
  }
}

/** Whether an object has a field, other than `except`, whose value is not empty. */
export const hasValue = (object: Json.JsonObject, except: string): boolean => {
  for (const name in object) if (name !== except && !isEmpty(object[name])) return true
  return false
}

const isEmpty = (value: unknown): boolean =>
  value === null || value === undefined || value === "" || value === false ||
  (typeof value === "object" && Object.keys(value).length === 0)
