import type { OptionsReader } from "../../OptionsReader.ts"
import type { Jitter, RetryPolicy } from "../../RetryPolicy.ts"

/** Checks a policy. `path` is the prefix of each option: `retry.` in a `Sluice`. */
export const checkRetryPolicy = (options: OptionsReader, self: RetryPolicy, path: string): void => {
  if (typeof self !== "object" || self === null) {
    return options.refuse(path === "" ? "policy" : path.slice(0, -1), self, "must be a RetryPolicy")
  }
  options.integer(`${path}maxAttempts`, self.maxAttempts, 1)
  options.millis(`${path}baseDelay`, self.baseDelay, 1)
  options.number(`${path}factor`, self.factor, 1, 1_000)
  options.millis(`${path}maxDelay`, self.maxDelay, 1)
  options.millis(`${path}maxRetryAfter`, self.maxRetryAfter, 0)
  options.oneOf(`${path}jitter`, self.jitter, jitters)
}

const jitters: ReadonlyArray<Jitter> = ["none", "full", "equal", "decorrelated"]
