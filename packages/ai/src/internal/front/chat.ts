import * as ErrorIn from "../wire/errorIn.ts"
import { sentReason } from "../wire/finishReason.ts"
import * as Json from "../wire/json.ts"
import { Usage } from "../wire/openai/usage.ts"
import { errorEnd, hasValue, Rules, type Usage as Counts } from "./rules.ts"

/** OpenAI allows 128 choices. */
const maxChoices = 1024

const finishReasonEnd = "finish_reason\""
const quote = 0x22

export interface ChatOptions {
  /** The choices that the request asks for. */
  readonly choices?: number | undefined
  /** Whether the event with the token counts alone is left out. */
  readonly dropUsage?: boolean | undefined
}

/**
 * The rules of streamed chat completions.
 *
 * The answer is complete when every choice has a finish reason. Some servers send a finish reason with every piece of
 * the text. Such an answer is complete at `[DONE]` or an orderly close.
 */
export class ChatRules extends Rules {
  private readonly counts = new Usage()
  private readonly choices: number
  private readonly dropUsage: boolean
  /** Whether each choice that was seen has finished. */
  private readonly finished = new Map<number, boolean>()
  private hasFinishReason = false
  private wasReopened = false

  constructor({ choices = 1, dropUsage = false }: ChatOptions) {
    super()
    this.choices = choices
    this.dropUsage = dropUsage
  }

  get usage(): Counts {
    return this.counts.encoded()
  }

  get ending(): string {
    return this.hasEnd ? "" : "data: [DONE]\n\n"
  }

  // The quotes of a key are escaped within a string, so a text with these words does not match. A key is searched without its
  // first quote: JSON is full of quotes, and the search would stop at each, which takes three times as long.
  isPlain(_name: string, data: string): boolean {
    // Each choice has to be seen, so that it is known which ones the server sends.
    if (this.hasFinishReason || this.finished.size < this.choices) return false
    if (data.charCodeAt(data.indexOf("delta\"") - 1) !== quote || data.includes(errorEnd)) return false
    for (let at = data.indexOf(finishReasonEnd); at !== -1; at = data.indexOf(finishReasonEnd, at)) {
      at += finishReasonEnd.length
      while (isBetween(data.charCodeAt(at))) at++
      if (!data.startsWith("null", at)) return false
    }
    return true
  }

  read(json: Json.JsonObject, name: string): boolean {
    const error = ErrorIn.inField(json)
    if (error !== undefined) return this.fail(error, Json.isObject(json["error"]))
    if (name === "error") return this.fail(ErrorIn.asWhole(json) ?? json)
    const choices = json["choices"] ?? []
    if (!Array.isArray(choices) || !choices.every(Json.isObject)) return this.malformed(JSON.stringify(json))
    this.counts.add(json, choices[0])
    if (choices.length === 0) return this.readBare(json)
    for (const choice of choices) if (!this.readChoice(choice)) return false
    this.isComplete = !this.wasReopened && this.finished.size >= this.choices && this.isFinished
    if (this.isComplete) this.hasOutput = true
    return true
  }

  readWhole(answer: Json.JsonObject): boolean {
    const { choices } = answer
    if (!Array.isArray(choices) || choices.length === 0) return this.foreign(answer, JSON.stringify(answer))
    return this.read(answer, "") && (choices.every(isAnswer) || this.malformed(JSON.stringify(answer)))
  }

  hasContent(beginning: string): boolean {
    return beginning.includes("\"delta\"")
  }

  // Some servers ignore `n`. After all choices that they sent, nothing is missing.
  override done(): boolean {
    this.closed()
    return this.hasEnd = this.isOver = super.done()
  }

  override closed(): void {
    if (this.isFinished) this.isComplete = this.hasOutput = true
  }

  private get isFinished(): boolean {
    if (!this.hasFinishReason) return false
    for (const isFinished of this.finished.values()) if (!isFinished) return false
    return true
  }

  /** Reads an event without choices. */
  private readBare(json: Json.JsonObject): boolean {
    const whole = json["choices"] === undefined || json["choices"] === null ? ErrorIn.asWhole(json) : undefined
    if (whole !== undefined) return this.fail(whole)
    return !(this.dropUsage && Json.isObject(json["usage"]))
  }

  private readChoice(choice: Json.JsonObject): boolean {
    const delta = Json.object(choice["delta"]) ?? Json.object(choice["message"]) ?? {}
    const error = ErrorIn.inField(choice) ?? ErrorIn.inField(delta)
    if (error !== undefined) return this.fail(error)
    const index = Json.index(choice["index"]) ?? 0
    if (index < 0 || index >= maxChoices) return this.malformed(JSON.stringify(choice))
    const wasFinished = this.finished.get(index) ?? false
    const hasOutput = hasValue(delta, "role")
    if (hasOutput) this.hasOutput = true
    if (hasOutput && wasFinished) this.wasReopened = true
    const sent = sentReason(choice["finish_reason"])
    this.finished.set(index, sent !== undefined || (wasFinished && !hasOutput))
    if (sent === undefined) return true
    this.hasFinishReason = true
    return this.finishes(sent)
  }
}

/** Whether a choice of a whole answer says anything. Clients read its message. */
const isAnswer = ({ delta, finish_reason, message }: Json.JsonObject): boolean =>
  Json.isObject(message) || Json.isObject(delta) || sentReason(finish_reason) !== undefined

/** White space and the colon between a key and its value. */
const isBetween = (code: number): boolean =>
  code === 0x20 || code === 0x3a || code === 0x09 || code === 0x0a || code === 0x0d
