/** Tokens of one answer. */
export interface Usage {
  readonly inputTokens: number
  readonly outputTokens: number
  /** Whether the provider did not count, and these are about four characters to a token. */
  readonly estimated: boolean
}

/** How an answer came about: by a call of its own, by another line's that was running, or by one that had been made. */
export type How = "led" | "joined" | "cached"

/** Why an answer ended: `stop` where it is whole, `length` where it was cut by its limit, `content-filter`, or another. */
export type Finish = string

/** A failure, as it stands in the results. */
export interface Failure {
  readonly tag: string
  readonly message: string
  /** How long the provider asked to be left alone, in milliseconds. */
  readonly retryAfter: number | undefined
}

interface Line {
  /** Counted from 1. */
  readonly line: number
  readonly id: string | undefined
  /** The target that answered, or that was asked last. */
  readonly target: string | undefined
  readonly model: string | undefined
  /** Tries that this line made: 0 if it made none. */
  readonly attempts: number
  readonly how: How
  /** From when its turn came to its end, with all waits. */
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

/** What became of one line of the input. */
export type Result = Answered | Failed

/** The line as it is written: one object in a fixed order of fields; what is not known is left out. */
export const encode = (result: Result, mask: (text: string) => string): string => {
  const { id, line, model, target } = result
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
    : { target, model, attempts, how, milliseconds, error: result.error }
  const masked = (_: string, value: unknown) => typeof value === "string" ? mask(value) : value
  return `${JSON.stringify({ line, id, status: result.status, ...ending }, masked)}\n`
}

const usage = ({ estimated, inputTokens, outputTokens }: Usage) => ({
  inputTokens,
  outputTokens,
  ...(estimated ? { estimated } : {})
})
