import type * as Response from "effect/ai/Response"
import * as Json from "../json.ts"

type Encoded = Response.FinishPartEncoded["usage"]

/** The token counts of an answer. */
interface Counts {
  readonly input: number | undefined
  readonly cached: number | undefined
  readonly output: number | undefined
  readonly reasoning: number | undefined
}

/**
 * Collects token counts. Providers send them in various places: at the end or with every event, in `usage`, in a choice, in
 * an object of their own. Later counts replace earlier ones, but zeros or nothing replace no counts.
 */
export class Usage {
  private counts: Counts = { input: undefined, cached: undefined, output: undefined, reasoning: undefined }

  /** Reads the counts of a response or an event. */
  add(json: Json.JsonObject, choice: Json.JsonObject | undefined): void {
    const { usage } = json
    if (Json.isObject(usage)) return this.read(usage)
    const inChoice = choice?.["usage"]
    if (Json.isObject(inChoice)) return this.read(inChoice)
    for (const name in json) {
      // `x_groq` and the like.
      const vendor = name.startsWith("x_") ? Json.object(json[name]) : undefined
      if (Json.isObject(vendor?.["usage"])) return this.read(vendor["usage"])
    }
    if (Json.isObject(json["timings"])) this.readTimings(json["timings"])
  }

  encoded(): Encoded {
    const { cached, input, output, reasoning } = this.counts
    return {
      inputTokens: { total: input, uncached: difference(input, cached), cacheRead: cached, cacheWrite: undefined },
      outputTokens: { total: output, text: difference(output, reasoning), reasoning }
    }
  }

  private read(usage: Json.JsonObject): void {
    const inputDetails = Json.object(usage["prompt_tokens_details"] ?? usage["input_tokens_details"])
    const outputDetails = Json.object(usage["completion_tokens_details"] ?? usage["output_tokens_details"])
    const input = Json.count(usage["prompt_tokens"] ?? usage["input_tokens"])
    const output = Json.count(usage["completion_tokens"] ?? usage["output_tokens"])
    const reasoning = Json.count(outputDetails?.["reasoning_tokens"] ?? usage["reasoning_tokens"])
    // xAI counts thoughts beside the output, which only the total shows.
    const isBeside = reasoning !== undefined && input !== undefined && output !== undefined &&
      Json.count(usage["total_tokens"]) === input + output + reasoning
    this.replace({
      input,
      cached: Json.count(
        inputDetails?.["cached_tokens"] ?? usage["prompt_cache_hit_tokens"] ?? usage["cached_tokens"] ??
          usage["cache_read_input_tokens"]
      ),
      output: isBeside ? output + reasoning : output,
      reasoning
    })
  }

  /** llama.cpp sends these where it sends no usage. */
  private readTimings(timings: Json.JsonObject): void {
    const fresh = Json.count(timings["prompt_n"])
    const cached = Json.count(timings["cache_n"])
    this.replace({
      input: fresh === undefined ? undefined : fresh + (cached ?? 0),
      cached,
      output: Json.count(timings["predicted_n"]),
      reasoning: undefined
    })
  }

  private replace(sent: Counts): void {
    const { counts } = this
    // Placeholders, at the start of a stream or at its end.
    const isEmpty = (sent.input ?? 0) === 0 && (sent.output ?? 0) === 0
    if (isEmpty && (counts.input !== undefined || counts.output !== undefined)) return
    this.counts = {
      input: sent.input ?? counts.input,
      cached: sent.cached ?? counts.cached,
      output: sent.output ?? counts.output,
      reasoning: sent.reasoning ?? counts.reasoning
    }
  }
}

const difference = (total: number | undefined, part: number | undefined): number | undefined =>
  total === undefined ? undefined : Math.max(0, total - (part ?? 0))
