import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Cockatiel from "cockatiel"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import pRetry from "p-retry"
import { ofEffect, ofPromise, timed } from "../measure.ts"
import { answer, body, call } from "./bodies.ts"
import type { Builders } from "./builders.ts"

const failure = new Error("once")
const failed = Effect.fail(failure)

/** Fails at every other run, which is the first attempt of each call. */
const flaky = (): Effect.Effect<number, Error> => {
  let attempts = 0
  return Effect.suspend(() => ++attempts % 2 === 1 ? failed : call)
}

const flakyBody = (): () => number => {
  let attempts = 0
  return () => {
    if (++attempts % 2 === 1) throw failure
    return answer
  }
}

export const builders: Builders<"retry"> = {
  "retry-nothing": Effect.sync(() => {
    const policy = RetryPolicy.exponential({ maxAttempts: 3 })
    const schedule = { schedule: Schedule.exponential("500 millis"), times: 2 }
    const cockatiel = Cockatiel.retry(Cockatiel.handleAll, {
      maxAttempts: 2,
      backoff: new Cockatiel.ExponentialBackoff()
    })
    const options = { retries: 2 }
    return timed({
      "the effect alone": ofEffect(() => call),
      "Sluice": ofEffect(() => RetryPolicy.retry(call, policy)),
      "Effect": ofEffect(() => Effect.retry(call, schedule)),
      "cockatiel": ofPromise(() => cockatiel.execute(body)),
      "p-retry": ofPromise(() => pRetry(body, options))
    })
  }),

  // Without cockatiel, which uses a timer even for no delay.
  "retry-one": Effect.sync(() => {
    const policy = RetryPolicy.constant({ maxAttempts: 3, baseDelay: 0, jitter: "none" })
    const [byHand, ours, theirs, other] = [flaky(), flaky(), flaky(), flakyBody()]
    const options = { retries: 2, minTimeout: 0 }
    return timed({
      "two attempts by hand": ofEffect(() => byHand.pipe(Effect.catch(() => byHand))),
      "Sluice": ofEffect(() => RetryPolicy.retry(ours, policy)),
      "Effect": ofEffect(() => Effect.retry(theirs, { times: 2 })),
      "p-retry": ofPromise(() => pRetry(other, options))
    })
  })
}
