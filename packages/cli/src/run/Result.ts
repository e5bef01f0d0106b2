import type * as Schema from "effect/Schema"

/** Token counts. */
export interface Usage {
  readonly inputTokens: number
  readonly outputTokens: number
  /** Whether the provider reported no usage, so that tokens are estimated at four characters each. */
  readonly estimated: boolean
}

/** How a line was answered: `led` made its own call, `joined` shared one in flight, `cached` reused an answer. */
export type How = "led" | "joined" | "cached"

/** Why an answer ended. `stop`: complete. `length`: cut by its limit. `content-filter`, or another reason. */
export type Finish = string

export interface Failure {
  readonly tag: string
  readonly message: string
  /** The provider's Retry-After, in milliseconds. */
  readonly retryAfter: number | undefined
}

interface Line {
  /** Counted from 1. */
  readonly line: number
  /** The number of the sample, from 1. `undefined` without `--samples`. */
  readonly sample?: number | undefined
  readonly id: string | undefined
  /** The target of the answer or of the last attempt. */
  readonly target: string | undefined
  readonly model: string | undefined
  /** Attempts of this line's own calls. 0 if it made none. */
  readonly attempts: number
  readonly how: How
  /** Dollars, with all its attempts. `undefined` if a price is not known. */
  readonly cost?: number | undefined
  /** From its turn to its end, with all delays. */
  readonly milliseconds: number
}

export interface Answered extends Line {
  readonly status: "ok"
  readonly text: string
  readonly finish: Finish
  readonly usage: Usage
}

export interface Failed extends Line {
  readonly status: "failed"
  readonly error: Failure
}

export type Result = Answered | Failed

/**
 * Encodes a result as a line of JSON, with fields in a fixed order. Omits undefined fields. The fields that `--resume` reads come
 * first: `request` is the hash of the line's request. Its cost and the error of a failed line follow it. `input` is the line as it
 * was read, and comes last.
 */
export const encode = (result: Result, request?: string, input?: Schema.Json): string => {
  const { id, line, model, sample, target } = result
  const { attempts, how, milliseconds } = result
  const ending = result.status === "ok"
    ? {
      text: result.text,
      target,
      model,
      finish: result.finish,
      usage: usage(result.usage),
      attempts,
      how,
      milliseconds
    }
    : { error: result.error, target, model, attempts, how, milliseconds }
  return `${
    JSON.stringify({ line, sample, id, status: result.status, request, cost: result.cost, ...ending, input })
  }\n`
}

const usage = ({ estimated, inputTokens, outputTokens }: Usage) => ({
  inputTokens,
  outputTokens,
  ...(estimated ? { estimated } : {})
})
