/** What a process has: a connection, a breaker, quotas and a deduplicator of its own. */
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import * as Deduplicator from "@sluice/core/Deduplicator"
import type { FlightStore } from "@sluice/core/FlightStore"
import * as Quota from "@sluice/core/Quota"
import { QuotaStore } from "@sluice/core/QuotaStore"
import { Clock, Context, Effect, Layer, Logger, Schema } from "effect"

/** Stores over a connection of their own. */
export type Stores = Layer.Layer<CircuitBreakerStore | QuotaStore | FlightStore, unknown>

const answers = Deduplicator.operation<string>()("answers", { key: (text: string) => text, success: Schema.String })

/** How often each call was made, in all processes of a test. */
export type Runs = Map<string, number>

/** Hours by which the clock of a process is off. */
export type HoursOff = () => number

export const startProcess = (stores: Stores, runs: Runs, hoursOff: HoursOff = () => 0) =>
  Effect.gen(function*() {
    const warnings: Array<string> = []
    const news: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      const text = Array.isArray(message) ? message.join(": ") : String(message)
      // Warnings of the client are its own.
      if (!/^(circuit breaker|deduplicator|quota) /.test(text) && !text.startsWith("quota")) return
      if (logLevel === "Warn") warnings.push(text)
      else news.push(text)
    })
    const clock = yield* Clock.Clock
    const off = () => hoursOff() * 3_600_000
    const ownClock: Clock.Clock = Object.assign(Object.create(clock), {
      currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + off()),
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + off()
    })
    const context = yield* Layer.build(
      Layer.mergeAll(Layer.fresh(stores), Logger.layer([logger]), Layer.succeed(Clock.Clock, ownClock))
    )
    const own = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideContext(effect, context)
    const options = {
      trip: CircuitBreaker.consecutive(2),
      // Ten times the default: a busy machine is not a store that is down.
      storeTimeout: "1 second",
      staleness: "200 millis",
      heartbeat: "2 seconds"
    } as const
    const breaker = yield* own(CircuitBreaker.make({ ...options, name: "long", openFor: "10 minutes" }))
    const shortBreaker = yield* own(CircuitBreaker.make({
      ...options,
      name: "short",
      openFor: "1 second",
      // A refusal alone makes a process read a circuit again.
      staleness: "10 minutes"
    }))
    const rates = yield* own(Quota.make({ name: "quota of rates", limits: [Quota.requestsPerMinute(1_000)], burst: 0 }))
    const window = yield* own(Quota.make({
      name: "quota of a window",
      limits: [Quota.per("2 seconds", "requests", 2, { perCall: 1 })],
      burst: 0,
      slice: false
    }))
    const budget = yield* own(Quota.make({ name: "quota of money", limits: [Quota.total("usd", 100)] }))
    const deduplicator = yield* own(Deduplicator.make({ name: "answers", shared: true, timeToLive: "10 minutes" }))

    const guarded = (
      of: CircuitBreaker.CircuitBreaker["Service"],
      key: string,
      answer: Effect.Effect<string, string>
    ) =>
      own(Effect.exit(answer.pipe(of.guard({ key })))).pipe(Effect.map((exit) => {
        if (exit._tag === "Success") return "answered"
        const failure = exit.cause.reasons[0]
        if (failure?._tag !== "Fail") return "died"
        return typeof failure.error === "string" ? "failed" : failure.error._tag
      }))
    const limited = (of: Quota.Quota["Service"], key: string, amounts: { readonly usd?: number } = {}) =>
      own(Effect.result(
        Effect.succeed("answered").pipe(of.withQuota({ key, amounts, usage: () => amounts }))
      )).pipe(Effect.map((result) => {
        if (result._tag === "Success") return result.success
        return result.failure._tag === "QuotaExceeded" ? result.failure.why : result.failure._tag
      }))
    return {
      warnings: (of: string) => warnings.filter((text) => text.includes(of)),
      news: (of: string) => news.filter((text) => text.includes(of)),
      succeed: (key: string) => guarded(breaker, key, Effect.succeed("an answer")),
      fail: (key: string) => guarded(breaker, key, Effect.fail("503")),
      succeedShort: (key: string) => guarded(shortBreaker, key, Effect.succeed("an answer")),
      /** The `retryAfter` of a refused call. `undefined` if it was admitted, and succeeded. */
      refusedFor: (key: string) =>
        own(
          Effect.succeed(undefined).pipe(
            shortBreaker.guard({ key }),
            Effect.catchTag("CircuitOpen", ({ retryAfter }) => Effect.succeed(retryAfter))
          )
        ),
      failShort: (key: string) => guarded(shortBreaker, key, Effect.fail("503")),
      state: (key: string) => own(breaker.state(key)),
      callRates: limited(rates, "rates"),
      callWindow: limited(window, "window"),
      spend: (usd: number) => limited(budget, "budget", { usd }),
      /** The sum of the budget in the store. */
      spent: own(Context.get(context, QuotaStore).read({ target: "budget", scopes: ["all"] })).pipe(
        Effect.map((levels) => levels.find(({ dimension }) => dimension.startsWith("usd"))?.used ?? 0)
      ),
      ask: (text: string) =>
        own(deduplicator.dedupe(
          Effect.delay(
            Effect.sync(() => {
              runs.set(text, (runs.get(text) ?? 0) + 1)
              return `the answer to ${text}`
            }),
            "50 millis"
          ),
          answers(text)
        ))
    }
  })

export type Process = Effect.Success<ReturnType<typeof startProcess>>
