import type { Known, OptionsReader } from "../../OptionsReader.ts"
import type { Jitter, RetryPolicy } from "../../RetryPolicy.ts"

/** Checks a policy. `path` is the prefix of each option: `retry.` in a `Sluice`. */
export const checkRetryPolicy = (options: OptionsReader, self: RetryPolicy, path: string): void => {
  if (typeof self !== "object" || self === null) {
    return options.refuse(path === "" ? "policy" : path.slice(0, -1), self, "must be a RetryPolicy")
  }
  options.onlyKnown(path, self, fields)
  options.integer(`${path}maxAttempts`, self.maxAttempts, 1)
  options.millis(`${path}baseDelay`, self.baseDelay, 0)
  options.number(`${path}factor`, self.factor, 1, 1_000)
  options.millis(`${path}maxDelay`, self.maxDelay, 1)
  options.millis(`${path}maxRetryAfter`, self.maxRetryAfter, 0)
  options.oneOf(`${path}jitter`, self.jitter, jitters)
}

const fields: Known<RetryPolicy> = {
  _tag: true,
  maxAttempts: true,
  baseDelay: true,
  factor: true,
  maxDelay: true,
  maxRetryAfter: true,
  jitter: true
}

const jitters: ReadonlyArray<Jitter> = ["none", "full", "equal", "decorrelated"]
