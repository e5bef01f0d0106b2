/**
 * Keeps calls within what a provider or a budget allows over time: requests, tokens, money, and calls held at once.
 *
 * A call reserves what it may use of every limit, in one step, before it is sent. When it has ended, the reservation is replaced by
 * what it used. A call without room waits in a queue, or is refused with `QuotaExceeded`, which says when there will be room.
 *
 * **When to use**
 *
 * For a provider that states limits such as 500 requests and 200,000 tokens a minute, and for a budget. To cap calls that run at
 * once on a machine of your own, use `Backpressure`. In a policy, use the option `quota` of `Sluice`: it takes quota and permit in
 * one step.
 *
 * **Details**
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `limits` | required | only you know what the provider allows |
 * | `tenantLimits` | none | what each tenant may use of it |
 * | `burst` | a sixth of the window | providers enforce a minute over seconds; 10 seconds costs 2.7 % of ten minutes |
 * | `guard` | 1 second | how long a call may be under way; longer than the slowest connection |
 * | `queue` | 1,000 calls | bounds the memory and the wait |
 * | `maxWait` | none | set it if an answer is useless after some time |
 * | `overtake` | 0.5 | small calls may use half of what a large one at the head waits for; 1 for files |
 * | `oversize` | `"alone"` | an estimate above the limit is admitted into an empty window |
 * | `adapt` | `true` | rejected calls teach the true limit |
 * | `capacityOfKeys` | 1,000 | how many keys and tenants are remembered |
 * | `lease`, `processes` | 60 seconds, 1 | only for a store that processes share |
 *
 * - Limits are kept in a sliding window of 240 buckets: never more than the limit in any window, whatever the provider's own window.
 * - A rejected call (an outcome `Throttled`) first halves the burst. When that explains nothing, the limit becomes 97 % of what the
 *   window held. After a clean minute it rises by 2 % a minute.
 * - The queue has a lane for each key, and in it a row for each tenant. Rows take turns, so a tenant without room holds up no other.
 * - A reservation that is never settled stays as reserved: money that cannot be accounted for is spent.
 *
 * **Gotchas**
 *
 * - The key is what the provider counts by: account and model family. Two models of one family share a key.
 * - A window of 24 hours slides. A provider that resets at midnight allows up to twice as much in 24 hours.
 * - At `capacityOfKeys` the least recently used key or tenant is forgotten, with what it used. Empty ones are forgotten first.
 * - `eligible` and `tryReserve` in a loop lose the place in the queue. `reserve` and `withQuota` keep it.
 *
 * **Example** (Two tenants, one limit)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Quota from "@sluice/core/Quota"
 *
 * const program = Effect.gen(function*() {
 *   const quota = yield* Quota.Quota
 *   const ask = (tokens: number) =>
 *     Effect.succeed({ tokens: 40 }).pipe(
 *       quota.withQuota({ key: "openai", amounts: { tokens }, usage: (answer) => answer, maxWait: 0 }),
 *       Effect.as("answered"),
 *       Effect.catchTag("QuotaExceeded", (exceeded) => Effect.succeed(`${exceeded.why}: ${exceeded.used} used`))
 *     )
 *   return [yield* ask(1_000), yield* ask(950), yield* ask(1_000), yield* ask(2_000)]
 * }).pipe(Effect.provide(Quota.layerMemory({ limits: [Quota.tokensPerMinute(1_000)], burst: 0 })))
 *
 * console.log((await Effect.runPromise(program)).join(", "))
 * // => answered, answered, Full: 80 used, TooLarge: 80 used
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Attempt, type Gate, type Hooks } from "./internal/admission/attempt.ts"
import type { AnyEffect } from "./internal/kit/primitive.ts"
import { Permits } from "./internal/permits/permits.ts"
import type { QuotaExceeded } from "./internal/quota/exceeded.ts"
import type { Hold } from "./internal/quota/hold.ts"
import { readAsk, readQuota, type Settings } from "./internal/quota/options.ts"
import { makeQuotas, type Quotas, setQuotas } from "./internal/quota/quotas.ts"
import { settleByExit } from "./internal/quota/settleByExit.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { OptionsReader, toMillis } from "./OptionsReader.ts"
import * as QuotaStore from "./QuotaStore.ts"

export { QuotaExceeded } from "./internal/quota/exceeded.ts"

/**
 * How a provider counts a call whose use is not known before it has ended.
 *
 * | counts | when it is sent | when it has ended | known of |
 * |---|---|---|---|
 * | `actual` | an estimate, learned from calls that ended | what it used | |
 * | `reservedThenActual` | its maximum | what it used | Anthropic's output tokens |
 * | `reserved` | its maximum | its maximum | OpenAI, Azure |
 * | `learned` | the loosest of these that no rejected call has contradicted | | |
 *
 * @since 0.1.0
 * @category models
 */
export type Counts = "actual" | "reserved" | "reservedThenActual" | "learned"

/**
 * One limit. Made by `requestsPerMinute`, `tokensPerMinute`, `atOnce`, `perDay`, `total` and the like.
 *
 * @since 0.1.0
 * @category models
 */
export interface Dimension {
  /** What is counted, such as `tokens`. Calls name their amounts by it. Two limits of one name need different windows. */
  readonly name: string
  /** The most that may count. A whole number: requests, tokens, millionths of a currency. */
  readonly limit: number
  /** The time that the limit is for. 0: held at once. Infinity: for good. */
  readonly windowMillis: number
  readonly counts: Counts
  /** While a shared store is down: `share` uses this process's part of the limit, `refuse` refuses. `refuse` marks a budget. */
  readonly whenStoreFails: "share" | "refuse"
  /** What a call asks for that does not name it. */
  readonly perCall: number
}

/**
 * An amount that a call asks for: a number if it is known, or what it uses at least and at most.
 *
 * @since 0.1.0
 * @category models
 */
export type Amount = number | { readonly known: number; readonly atMost: number }

/**
 * What a call asks for, by the name of the limit.
 *
 * @since 0.1.0
 * @category models
 */
export type Amounts = { readonly [dimension: string]: Amount }

/**
 * What a call used, by the name of the limit.
 *
 * @since 0.1.0
 * @category models
 */
export type Used = { readonly [dimension: string]: number }

/**
 * Makes a limit over any window. `window` is a duration.
 *
 * @since 0.1.0
 * @category limits
 */
export const per = (window: Duration.Input, name: string, limit: number, options?: Partial<Dimension>): Dimension => ({
  name,
  limit,
  windowMillis: toMillis(window),
  counts: "reservedThenActual",
  whenStoreFails: "share",
  perCall: 0,
  ...options
})

const minute = 60_000
const day = 86_400_000

/**
 * Limits requests a minute. Each call is one request.
 *
 * @since 0.1.0
 * @category limits
 */
export const requestsPerMinute = (limit: number): Dimension => per(minute, "requests", limit, { perCall: 1 })

/**
 * Limits tokens a minute, input and output together.
 *
 * @since 0.1.0
 * @category limits
 */
export const tokensPerMinute = (limit: number, counts: Counts = "reservedThenActual"): Dimension =>
  per(minute, "tokens", limit, { counts })

/**
 * Limits input tokens a minute.
 *
 * @since 0.1.0
 * @category limits
 */
export const inputTokensPerMinute = (limit: number): Dimension => per(minute, "inputTokens", limit)

/**
 * Limits output tokens a minute.
 *
 * @since 0.1.0
 * @category limits
 */
export const outputTokensPerMinute = (limit: number, counts: Counts = "reservedThenActual"): Dimension =>
  per(minute, "outputTokens", limit, { counts })

/**
 * Limits how many calls run at once.
 *
 * @since 0.1.0
 * @category limits
 */
export const atOnce = (limit: number): Dimension => per(0, "atOnce", limit, { perCall: 1 })

/**
 * Limits requests of the last 24 hours. Each call is one request.
 *
 * @since 0.1.0
 * @category limits
 */
export const requestsPerDay = (limit: number): Dimension => per(day, "requests", limit, { perCall: 1 })

/**
 * A budget for the last 24 hours, such as `perDay("money", usd(20))`. It is never exceeded: a call that may is refused or waits, and
 * a shared store that is down refuses.
 *
 * @since 0.1.0
 * @category limits
 */
export const perDay = (name: string, limit: number): Dimension => per(day, name, limit, { whenStoreFails: "refuse" })

/**
 * A budget for as long as the quota lives, such as `total("money", usd(20))`. Nothing leaves it.
 *
 * @since 0.1.0
 * @category limits
 */
export const total = (name: string, limit: number): Dimension =>
  per(Number.POSITIVE_INFINITY, name, limit, { whenStoreFails: "refuse" })

/**
 * Converts dollars to the whole millionths in which money is counted. Rounds up.
 *
 * @since 0.1.0
 * @category conversions
 */
export const usd = (dollars: number): number => Math.ceil(dollars * 1_000_000 - 1e-6)

/**
 * Options for `Quota.make`. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface QuotaOptions {
  /** Used in refusals and metrics. Default `"quota"`. */
  readonly name?: string | undefined
  /** The limits of each key. At least one. */
  readonly limits: ReadonlyArray<Dimension>
  /** The limits of each tenant of a key, besides those of the key. Default none. */
  readonly tenantLimits?: ReadonlyArray<Dimension> | undefined
  /** How soon a whole window may be used up. 0: at once, and nothing of it is learned. Default a sixth of the window. */
  readonly burst?: Duration.Input | undefined
  /** How long a call may be under way to the provider. At most an eighth of the window counts. Default 1 second. */
  readonly guard?: Duration.Input | undefined
  /** How many calls may wait. Default 1,000. 0: no call waits. In a policy with `backpressure`, its queue counts. */
  readonly queue?: number | undefined
  /** How long a call may wait. A call that would have to wait longer is refused at once. 0: no call waits. Default: without a limit. */
  readonly maxWait?: Duration.Input | undefined
  /** How much of its own size others may use while a call waits at the head. 0: nothing passes it. Default 0.5. */
  readonly overtake?: number | undefined
  /** What becomes of a call whose estimate is above a limit: `alone` admits it into an empty window. Budgets refuse. Default `"alone"`. */
  readonly oversize?: "alone" | "refuse" | undefined
  /** Whether rejected calls change burst and limit. Default `true`. */
  readonly adapt?: boolean | undefined
  /** How long a shared store keeps what is held at once for a process that died. Default 60 seconds. */
  readonly lease?: Duration.Input | undefined
  /** How many processes share the store. While it is down, each uses this part of the limits. Default 1. */
  readonly processes?: number | undefined
  /** How many keys and tenants are remembered. Default 1,000. */
  readonly capacityOfKeys?: number | undefined
}

/**
 * What one call asks for.
 *
 * @since 0.1.0
 * @category models
 */
export interface AskOptions {
  /** What the provider counts by: account and model family. Default `"default"`. */
  readonly key?: string | undefined
  /** Whose call it is. Default none: then only the limits of the key apply. */
  readonly tenant?: string | undefined
  /** Default none: a call is one request and one at once. */
  readonly amounts?: Amounts | undefined
  /** How long the call may wait. Default: the quota's `maxWait`. */
  readonly maxWait?: Duration.Input | undefined
}

/**
 * What a call has reserved. The first of the three counts. If none is run before the scope closes, it stays as reserved.
 *
 * @since 0.1.0
 * @category models
 */
export interface Reservation {
  /**
   * Replaces what was reserved by what was used. What is not named stays as reserved. `arrivedBy`: when the provider had surely
   * got the call, such as the time of the answer's headers, in epoch milliseconds. Default now.
   */
  readonly settle: (actual: Used, arrivedBy?: number) => Effect.Effect<void>
  /** Gives everything back: the call was not sent. */
  readonly refund: Effect.Effect<void>
  /** The provider rejected the call for its rate. The request stays counted, its tokens do not. No call starts before `retryAfter`. */
  readonly throttled: (retryAfter?: Duration.Input) => Effect.Effect<void>
}

/**
 * What counts for one limit, and what is known of it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Level {
  readonly key: string
  /** `undefined`: the limit of the key. */
  readonly tenant: string | undefined
  readonly dimension: string
  /** What is kept now. */
  readonly limit: number
  /** What the options state. */
  readonly stated: number
  readonly used: number
  readonly windowMillis: number
  /** How the provider counts, as far as is known. */
  readonly counts: Exclude<Counts, "learned">
  /** What queued calls will ask for. */
  readonly queued: number
}

/**
 * The state and the counters at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export interface Snapshot {
  readonly levels: ReadonlyArray<Level>
  /** Calls that reserved. */
  readonly reserved: number
  /** Calls that were settled, refunded, or rejected by the provider. */
  readonly settled: number
  readonly refunded: number
  readonly throttled: number
  /** Calls that were refused. */
  readonly exceeded: { readonly [why in QuotaExceeded["why"]]: number }
  /** Changes that slow readers of `changes` have lost. */
  readonly dropped: number
}

/**
 * A limit moved.
 *
 * | why | meaning |
 * |---|---|
 * | `Throttled` | a rejected call showed that the limit is lower |
 * | `Header` | the provider named another limit |
 * | `Recovered` | it is the stated limit again |
 *
 * @since 0.1.0
 * @category models
 */
export interface Change {
  readonly key: string
  readonly dimension: string
  readonly from: number
  readonly to: number
  readonly why: "Throttled" | "Header" | "Recovered"
}

/**
 * What the headers of an answer say about one limit.
 *
 * @since 0.1.0
 * @category models
 */
export interface Seen {
  readonly dimension: string
  readonly limit?: number | undefined
  /** It may be rounded, so it is only a gate near zero. */
  readonly remaining?: number | undefined
  /** How long until the limit is full again. With it, headers of another window are recognised and ignored. */
  readonly resetMillis?: number | undefined
  /** When the call was sent whose answer it is, in epoch milliseconds. */
  readonly sentAt: number
}

/**
 * Keeps calls within limits over time.
 *
 * @since 0.1.0
 * @category services
 */
export class Quota extends Context.Service<Quota, {
  /** Waits, in the order of asking, until the call could start. Holds nothing. */
  readonly eligible: (options: AskOptions) => Effect.Effect<void, QuotaExceeded | InvalidOptions>
  /** Reserves all amounts or none, now. The scope keeps them as reserved if nobody settled. */
  readonly tryReserve: (options: AskOptions) => Effect.Effect<Reservation, QuotaExceeded | InvalidOptions, Scope.Scope>
  /** Reserves all amounts, after waiting if it has to. */
  readonly reserve: (options: AskOptions) => Effect.Effect<Reservation, QuotaExceeded | InvalidOptions, Scope.Scope>
  /**
   * Runs the effect when there is room. A success is settled by `usage`. A refusal inside, and a call that did not begin, are
   * refunded. An outcome `Throttled` teaches the limits. Other failures and interruptions keep what was reserved.
   */
  readonly withQuota: <A>(
    options: AskOptions & { readonly usage: (value: A) => Used }
  ) => <E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | QuotaExceeded | InvalidOptions, R>
  /** Follows what the headers of an answer say. */
  readonly observe: (key: string, seen: ReadonlyArray<Seen>) => Effect.Effect<void>
  /** Sets the stated limit of a key, and forgets what was learned of it. */
  readonly setLimit: (key: string, dimension: string, limit: number) => Effect.Effect<void, InvalidOptions>
  /** Of one key, or of all. */
  readonly snapshot: (key?: string) => Effect.Effect<Snapshot>
  /** The changes of limits, from now on. A reader that falls 256 behind loses the oldest. Ends with the scope of the service. */
  readonly changes: Stream.Stream<Change>
}>()("@sluice/core/Quota") {}

/**
 * Builds a quota with its own state. What counts is kept in the store in the context.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (
  options: QuotaOptions
) => Effect.Effect<Quota["Service"], InvalidOptions, QuotaStore.QuotaStore | Scope.Scope> = Effect.fnUntraced(
  function*(input: QuotaOptions) {
    const options = new OptionsReader("Quota")
    const settings = yield* options.check(readQuota(options, input))
    const quotas = yield* makeQuotas(settings, yield* QuotaStore.QuotaStore)
    const permits: Permits<QuotaExceeded> = new Permits({
      capacity: Number.POSITIVE_INFINITY,
      queue: settings.queue,
      clock: yield* Clock.Clock,
      context: yield* Effect.context<never>(),
      onChange: () => {},
      // Permits without a capacity refuse only by a ticket, which is a hold of this quota.
      error: ({ queued, ticket, waitedMillis, why }) => (ticket as Hold).refusalAlone(why, queued, waitedMillis)
    })
    quotas.waiting.add(permits)
    yield* Effect.addFinalizer(() => Effect.sync(() => permits.drain()))
    return serviceOf(quotas, permits, settings)
  }
)

const serviceOf = (quotas: Quotas, permits: Permits<QuotaExceeded>, settings: Settings): Quota["Service"] => {
  const gate: Gate<QuotaExceeded> = { permits, breaker: undefined }
  const attemptOf = (hold: Hold, maxWaitMillis: number | undefined, body: AnyEffect) =>
    Effect.withFiber((fiber) => {
      const hooks: Hooks<QuotaExceeded> = {
        begin: () => {
          hold.begun()
          return undefined
        }
      }
      const request = { permits: 1, maxWaitMillis, where: undefined, ticket: hold }
      return new Attempt({ gate, key: "", hooks, permits: request }, body, fiber).run()
    })
  const read = (options: AskOptions) => {
    const reader = new OptionsReader("Quota")
    return reader.check(readAsk(reader, options, settings))
  }
  const reserve = (options: AskOptions) =>
    Effect.flatMap(
      read(options),
      ({ ask, maxWaitMillis }) =>
        Effect.withFiber((fiber): Effect.Effect<Reservation, QuotaExceeded, Scope.Scope> => {
          const hold = quotas.hold(ask)
          const request = { permits: 1, maxWaitMillis, where: undefined, ticket: hold }
          const attempt = new Attempt({ gate, key: "", hooks: {}, permits: request }, Effect.void, fiber)
          // An attempt that is interrupted in the queue leaves it now. A reservation is kept by the scope.
          const kept = Effect.onExitPrimitive(attempt, (exit) => {
            if (exit._tag === "Failure") return attempt.settleExit(exit)
            hold.begun()
            return Scope.addFinalizer(
              Context.getUnsafe(fiber.context, Scope.Scope),
              Effect.suspend(() => attempt.settleExit(exit) ?? Effect.void)
            )
          })
          // Without a circuit it fails with the errors of the permits only.
          return Effect.map(kept, () => reservationOf(hold)) as Effect.Effect<Reservation, QuotaExceeded>
        })
    )
  const service = Quota.of({
    eligible: (options) =>
      Effect.flatMap(
        read(options),
        ({ ask, maxWaitMillis }) =>
          // Without a circuit it fails with the errors of the permits only.
          attemptOf(quotas.hold(ask, true), maxWaitMillis, Effect.void) as Effect.Effect<void, QuotaExceeded>
      ),
    tryReserve: (options) => reserve({ ...options, maxWait: 0 }),
    reserve,
    withQuota: <A>({ usage, ...options }: AskOptions & { readonly usage: (value: A) => Used }) => {
      const asked = read(options)
      return <E, R>(self: Effect.Effect<A, E, R>) =>
        Effect.flatMapEager(asked, ({ ask, maxWaitMillis }) =>
          Effect.withFiber((fiber) => {
            const hold = quotas.hold(ask)
            const body = Effect.onExitPrimitive(self, (exit: Exit.Exit<A, E>) => settleByExit(hold, exit, usage, fiber))
            // It does what `self` does, or is refused.
            return attemptOf(hold, maxWaitMillis, body as AnyEffect) as Effect.Effect<A, E | QuotaExceeded, R>
          }))
    },
    observe: (key, seen) => Effect.sync(() => quotas.observe(key, seen)),
    setLimit: (key, dimension, limit) => {
      const reader = new OptionsReader("Quota")
      reader.integer("limit", limit, 1)
      if (!settings.limits.some(({ name }) => name === dimension)) {
        reader.refuse("dimension", dimension, "must be the name of one of the limits")
      }
      return Effect.map(reader.check(limit), (checked) => quotas.setLimit(key, dimension, checked))
    },
    snapshot: (key) => Effect.sync(() => quotas.snapshot(key)),
    changes: quotas.changes.stream
  })
  return setQuotas(service, quotas)
}

const reservationOf = (hold: Hold): Reservation => ({
  settle: (actual, arrivedBy) => Effect.sync(() => hold.settle(actual, arrivedBy)),
  refund: Effect.sync(() => hold.refund()),
  throttled: (retryAfter) =>
    Effect.sync(() => hold.throttled(retryAfter === undefined ? undefined : Duration.toMillis(retryAfter)))
})

/**
 * Provides `Quota`. What counts is kept in the `QuotaStore` in the context.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: QuotaOptions): Layer.Layer<Quota, InvalidOptions, QuotaStore.QuotaStore> =>
  Layer.effect(Quota, make(options))

/**
 * Provides `Quota`, kept in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory = (options: QuotaOptions): Layer.Layer<Quota, InvalidOptions> =>
  Layer.provide(layer(options), Layer.fresh(QuotaStore.layerMemory))

const free: Reservation = { settle: () => Effect.void, refund: Effect.void, throttled: () => Effect.void }

/**
 * A quota that admits every call at once.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noop: Quota["Service"] = Quota.of({
  eligible: () => Effect.void,
  tryReserve: () => Effect.succeed(free),
  reserve: () => Effect.succeed(free),
  withQuota: () => (self) => self,
  observe: () => Effect.void,
  setLimit: () => Effect.void,
  snapshot: () =>
    Effect.succeed({
      levels: [],
      reserved: 0,
      settled: 0,
      refunded: 0,
      throttled: 0,
      exceeded: { Full: 0, MaxWait: 0, Deadline: 0, TooLarge: 0, Spent: 0, Draining: 0, StoreDown: 0 },
      dropped: 0
    }),
  changes: Stream.empty
})

/**
 * Provides a quota that admits every call at once, for tests and to switch it off.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNoop: Layer.Layer<Quota> = Layer.succeed(Quota, noop)
