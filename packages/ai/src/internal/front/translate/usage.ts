import * as MessagesEvent from "../../wire/anthropic/event.ts"
import * as Json from "../../wire/json.ts"
import * as OpenAi from "../../wire/openai/usage.ts"

/** The token counts of an answer. `input` leaves out what was read from a cache or written to one. */
export interface Counts {
  readonly input: number
  readonly cacheRead: number
  readonly cacheWrite: number
  readonly output: number
  readonly reasoning: number | undefined
}

/** Collects the counts of chat completions, which count cached input as a part of the input. */
export class ChatUsage {
  private readonly usage = new OpenAi.Usage()
  private cacheWrite = 0

  add(json: Json.JsonObject, choice: Json.JsonObject | undefined): this {
    this.usage.add(json, choice)
    const details = Json.object(Json.object(json["usage"])?.["prompt_tokens_details"])
    this.cacheWrite = Json.count(details?.["cache_write_tokens"]) ?? this.cacheWrite
    return this
  }

  get counts(): Counts {
    const { inputTokens, outputTokens } = this.usage.encoded()
    return {
      input: Math.max(0, (inputTokens.uncached ?? 0) - this.cacheWrite),
      cacheRead: inputTokens.cacheRead ?? 0,
      cacheWrite: this.cacheWrite,
      output: outputTokens.total ?? 0,
      reasoning: outputTokens.reasoning
    }
  }
}

/** Collects the counts of messages, which count cached input beside the input. */
export class MessagesUsage {
  private readonly usage = new MessagesEvent.Usage()
  private reasoning: number | undefined

  add(json: Json.JsonObject): this {
    this.usage.addFrom(json)
    const details = Json.object(Json.object(json["usage"])?.["output_tokens_details"])
    this.reasoning = Json.count(details?.["thinking_tokens"]) ?? this.reasoning
    return this
  }

  get counts(): Counts {
    const { inputTokens, outputTokens } = this.usage.encoded()
    return {
      input: inputTokens.uncached ?? 0,
      cacheRead: inputTokens.cacheRead ?? 0,
      cacheWrite: inputTokens.cacheWrite ?? 0,
      output: outputTokens.total ?? 0,
      reasoning: this.reasoning
    }
  }
}

/** The `usage` of chat completions. */
export const toChat = ({ cacheRead, cacheWrite, input, output, reasoning }: Counts): Json.JsonObject => {
  const prompt = input + cacheRead + cacheWrite
  return {
    prompt_tokens: prompt,
    completion_tokens: output,
    total_tokens: prompt + output,
    prompt_tokens_details: {
      cached_tokens: cacheRead,
      ...(cacheWrite === 0 ? {} : { cache_write_tokens: cacheWrite })
    },
    ...(reasoning === undefined ? {} : { completion_tokens_details: { reasoning_tokens: reasoning } })
  }
}

/** The `usage` of messages. */
export const toMessages = ({ cacheRead, cacheWrite, input, output, reasoning }: Counts): Json.JsonObject => ({
  input_tokens: input,
  cache_creation_input_tokens: cacheWrite,
  cache_read_input_tokens: cacheRead,
  output_tokens: output,
  ...(reasoning === undefined ? {} : { output_tokens_details: { thinking_tokens: reasoning } })
})
