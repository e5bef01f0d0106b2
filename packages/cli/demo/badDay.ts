import type * as Script from "@sluice/ai/testing/Script"

/** Concurrent calls of each client: the default of `sluice run`. */
export const concurrency = 16

/** The outage begins with the official client's fourth batch, so that the same tickets meet it on every run. */
const callsBeforeOutage = 3 * concurrency

/**
 * The official client makes three attempts per call. One batch uses up all three in the outage, and the next its first. The
 * outage then ends by its number of requests. A client that sends fewer has to wait until it ends by time.
 */
const requestsInOutage = 3 * concurrency + concurrency

/** The script: an outage, and faults in the first attempts of a sixth of the prompts, with short times. */
export const badDay = (seed: number): Script.Encoded => ({
  seed,
  faults: { rateLimit: 0.05, unavailable: 0.02, reset: 0.01, hang: 0.01, slowStart: 0.01, cut: 0.06 },
  faultyAttempts: 3,
  retryAfterSeconds: 0.3,
  hangMillis: 600,
  slowStartMillis: 500,
  outage: { afterCalls: callsBeforeOutage, requests: requestsInOutage, atMostMillis: 3_000 }
})
