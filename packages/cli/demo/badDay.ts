import type * as Script from "@sluice/ai/testing/Script"

/** How many calls the clients make at once: the default of `sluice run`. */
export const concurrency = 16

/** The outage begins with the fourth batch of the official client, so that the same tickets meet it on every run. */
const callsBeforeOutage = 3 * concurrency

/**
 * The official client tries each call three times. The calls of one batch meet the outage with all three tries, those of
 * the next with their first: by then it is over, for whoever counts in requests. Who calls less waits it out.
 */
const requestsInOutage = 3 * concurrency + concurrency

/** What goes wrong: a sixth of the prompts at their first tries, in fast motion, and an outage. */
export const badDay = (seed: number): Script.Encoded => ({
  seed,
  faults: { rateLimit: 0.05, unavailable: 0.02, reset: 0.01, hang: 0.01, slowStart: 0.01, cut: 0.06 },
  faultyAttempts: 3,
  retryAfterSeconds: 0.3,
  hangMillis: 600,
  slowStartMillis: 500,
  outage: { afterCalls: callsBeforeOutage, requests: requestsInOutage, atMostMillis: 3_000 }
})
