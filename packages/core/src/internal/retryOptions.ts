import type * as Duration from "effect/Duration"
import type { Jitter, RetryPolicy } from "../RetryPolicy.ts"
import { millisOf } from "./backoff.ts"
import type { Options } from "./options.ts"

/** Reads a policy's numbers into a list of issues, each option under the path that is given. */
export const checkRetryPolicy = (options: Options, self: RetryPolicy, path: string): void => {
  if (typeof self !== "object" || self === null) {
    return options.refuse(path === "" ? "policy" : path.slice(0, -1), self, "a RetryPolicy")
  }
  options.integer(`${path}maxAttempts`, self.maxAttempts, 1)
  checkMillis(options, `${path}baseDelay`, self.baseDelay, 1)
  if (typeof self.factor === "number") options.number(`${path}factor`, self.factor, 1, 1_000)
  else options.refuse(`${path}factor`, self.factor, "a number from 1 to 1000")
  checkMillis(options, `${path}maxDelay`, self.maxDelay, 1)
  checkMillis(options, `${path}maxRetryAfter`, self.maxRetryAfter, 0)
  options.oneOf(`${path}jitter`, self.jitter, jitters)
}

const checkMillis = (options: Options, option: string, input: Duration.Input, minimum: 0 | 1): void => {
  if (!Number.isNaN(millisOf(input))) options.millis(option, input, minimum)
  else options.refuse(option, input, `a finite duration of at least ${minimum === 0 ? "zero" : "1ms"}`)
}

const jitters: ReadonlyArray<Jitter> = ["none", "full", "equal", "decorrelated"]
