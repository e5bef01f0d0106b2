import type * as Script from "@sluice/ai/testing/Script"

/** How many calls the two clients make at once. */
export const concurrency = 17

/** The outage begins with the sixth batch of the official client, so that the same tickets meet it on every run. */
const callsBeforeOutage = 5 * concurrency

/**
 * The official client tries each call three times. The calls of one batch meet the outage with all three tries, those of
 * the next with their first: by then it is over, for whoever counts in requests. Who calls less waits it out.
 */
const requestsInOutage = 3 * concurrency + concurrency

/** What goes wrong: a fifth of the prompts at first, and an outage. */
export const badDay = (seed: number): Script.Encoded => ({
  seed,
  faults: { rateLimit: 0.05, unavailable: 0.05, reset: 0.03, hang: 0.01, slowStart: 0.02, cut: 0.05 },
  faultyAttempts: 3,
  retryAfterSeconds: 1,
  hangMillis: 1_500,
  slowStartMillis: 800,
  outage: { afterCalls: callsBeforeOutage, requests: requestsInOutage, atMostMillis: 4_000 }
})
