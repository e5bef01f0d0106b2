import * as Deduplicator from "@sluice/core/Deduplicator"
import { Effect, Exit } from "effect"

// A run can nest another call, whose refusal is then its own error.
export const Ask = Deduplicator.operation<string, "busy" | Deduplicator.TooManyWaiters>()("ask", {
  key: (text: string) => text
})

/** An operation whose results are cached for a minute. */
export const Cached = Deduplicator.operation<string, "busy">()("cached", {
  key: (text: string) => text,
  timeToLive: "1 minute"
})

export const key = Ask("a prompt")

/** A call that takes a second, with counters of its runs. */
export const makeCall = () => {
  const runs = { started: 0, ended: 0, interrupted: 0 }
  const call = Effect.suspend(() => {
    const answer = `answer ${++runs.started}`
    return Effect.as(Effect.sleep("1 second"), answer)
  }).pipe(Effect.onExit((exit) =>
    Effect.sync(() => {
      runs.ended++
      if (Exit.hasInterrupts(exit)) runs.interrupted++
    })
  ))
  return { runs, call }
}

/** The cached results, the flights and the waiting callers of a deduplicator. */
export const counts = Effect.map(
  Deduplicator.Deduplicator.use((deduplicator) => deduplicator.stats),
  ({ cached, flights, waiting }) => ({ cached, flights, waiting })
)

export const zeroCounts = { cached: 0, flights: 0, waiting: 0 }

export const withDeduplicator = (options?: Deduplicator.DeduplicatorOptions) =>
  Effect.provide(Deduplicator.layer(options))
