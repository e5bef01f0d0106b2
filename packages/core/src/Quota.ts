/**
 * Keeps calls within the limits of a provider or a budget: requests, tokens and money over time, and calls at once.
 *
 * Before a call is sent, it reserves its maximum use of every limit, in one step. When it has ended, its actual use replaces the
 * reservation. A call without room waits in a queue, or is refused with `QuotaExceeded`, whose `retryAfter` says when to retry.
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
 * | `tenantLimits` | none | limits of each tenant of a key |
 * | `burst` | a sixth of the window | providers enforce a minute over seconds; 10 seconds cost 2.7 % of the first ten minutes |
 * | `guard` | 1 second | the longest time from sending a call to its arrival; set it above your slowest connection |
 * | `queue` | 1,000 calls | bounds the memory and the wait |
 * | `maxWait` | none | set it if an answer is useless after some time |
 * | `overtake` | 0.5 | small calls may pass a large one until they have used half of its size; 1 for batch work |
 * | `oversize` | `"alone"` | an estimate above the limit is admitted into an empty window |
 * | `adapt` | `true` | the stated limit may be too high; rejected calls show the true one |
 * | `capacityOfKeys` | 1,000 | how many keys and tenants are remembered |
 * | `lease`, `processes`, `slice` | 60 seconds, 1, 600 ms | only for a store that processes share |
 *
 * - A limit holds in every window of its length, so it also holds for a provider with a fixed window. The window slides in 240
 *   buckets.
 * - A rejected call (an outcome `Throttled`) halves the burst. At the smallest burst it lowers the limit instead, to 98.5 % of the
 *   amount in the window. After a minute without a rejected call the limit rises by 2 % a minute.
 * - The queue has a lane for each key, and in it a row for each tenant. Rows take turns, so a tenant without room delays no other.
 * - An amount that is never settled stays reserved: money of unknown use counts as spent.
 *
 * **Gotchas**
 *
 * - The key names the account and the model family, since providers count by these. Two models of one family share a key.
 * - A window of 24 hours slides. A provider that resets at midnight allows up to twice as much in 24 hours.
 * - At `capacityOfKeys` the quota forgets the least recently used key or tenant without counted use, with its learned limits.
 *   If all have use, it forgets the least recently used one and the use of a tenant in this process. This is counted in
 *   `forgotten`, and logged once.
 * - A loop of `eligible` and `tryReserve` loses its place in the queue. `reserve` and `withQuota` keep it.
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
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Attempt, classifierOf, type Gate, type Hooks, setGate } from "./internal/admission/attempt.ts"
import type { AnyEffect } from "./internal/kit/primitive.ts"
import { Permits } from "./internal/permits/permits.ts"
import type { QuotaExceeded } from "./internal/quota/exceeded.ts"
import type { Hold } from "./internal/quota/hold.ts"
import { readAsk, readLimit, readQuota, type Settings } from "./internal/quota/options.ts"
import { makeQuotas, type Quotas, setQuotas } from "./internal/quota/quotas.ts"
import { reservationOf } from "./internal/quota/reservation.ts"
import { settleByExit } from "./internal/quota/settleByExit.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { OptionsReader, toMillis } from "./OptionsReader.ts"
import * as QuotaStore from "./QuotaStore.ts"

export { QuotaExceeded } from "./internal/quota/exceeded.ts"

/**
 * How a provider counts a call whose use is known only at its end.
 *
 * | counts | when the call is sent | when it has ended | provider |
 * |---|---|---|---|
 * | `actual` | an estimate, learned from calls that ended | its actual use | |
 * | `reservedThenActual` | its maximum | its actual use | Anthropic, for output tokens |
 * | `reserved` | its maximum | its maximum | OpenAI, Azure |
 * | `learned` | the loosest of these that no rejected call has ruled out | | |
 *
 * @since 0.1.0
 * @category models
 */
export type Counts = "actual" | "reserved" | "reservedThenActual" | "learned"

/**
 * One limit. `requestsPerMinute`, `tokensPerMinute`, `atOnce`, `perDay`, `total` and `per` make it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Dimension {
  /** The counted unit, such as `tokens`, and the name of it in `amounts`. Two limits of one name need different windows. */
  readonly name: string
  /** The maximum sum in a window. A whole number of requests, tokens or millionths of a currency. */
  readonly limit: number
  /** The length of the window. 0: the limit is for calls at once. Infinity: the sum never resets. */
  readonly windowMillis: number
  readonly counts: Counts
  /** While a shared store is down: `share` admits within this process's part of the limit, `refuse` refuses, for a budget. */
  readonly whenStoreFails: "share" | "refuse"
  /** The amount of a call whose `amounts` do not name the limit. */
  readonly perCall: number
  /** For concurrent calls: how many may run at first, if the limit has to be learned. Default: `limit`. */
  readonly start?: number | undefined
}

/**
 * An amount that a call asks for: a number if its use is known, otherwise its least (`known`) and its greatest use (`atMost`).
 *
 * @since 0.1.0
 * @category models
 */
export type Amount = number | { readonly known: number; readonly atMost: number }

/**
 * The amounts that a call asks for, by the name of the limit.
 *
 * @since 0.1.0
 * @category models
 */
export type Amounts = { readonly [dimension: string]: Amount }

/**
 * The amounts that a call used, by the name of the limit.
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
 * With `start` the limit is learned: at first `start` calls may run, then twice as many after each round trip, up to `limit`.
 * At the first rejected call the limit becomes the number of calls in flight that are not rejected. From then on it rises by a
 * twentieth of a call in each round trip. A rejected call does not count while a rate of the quota is nearly full. Each process
 * that shares a store learns its own number, and all together keep `limit`.
 *
 * @since 0.1.0
 * @category limits
 */
export const atOnce = (limit: number, options?: { readonly start?: number | undefined }): Dimension =>
  per(0, "atOnce", limit, { perCall: 1, start: options?.start })

/**
 * Limits requests of the last 24 hours. Each call is one request.
 *
 * @since 0.1.0
 * @category limits
 */
export const requestsPerDay = (limit: number): Dimension => per(day, "requests", limit, { perCall: 1 })

/**
 * Limits the last 24 hours by a budget, such as `perDay("money", usd(20))`. A call that could exceed it waits or is refused, so it
 * holds as long as no call uses more than it reserved. While a shared store is down, calls are refused.
 *
 * @since 0.1.0
 * @category limits
 */
export const perDay = (name: string, limit: number): Dimension => per(day, name, limit, { whenStoreFails: "refuse" })

/**
 * Limits all use by a budget that never resets, such as `total("money", usd(20))`. It lasts as long as the store keeps it.
 *
 * @since 0.1.0
 * @category limits
 */
export const total = (name: string, limit: number): Dimension =>
  per(Number.POSITIVE_INFINITY, name, limit, { whenStoreFails: "refuse" })

/**
 * Converts dollars to millionths of a dollar, in which money is counted. Rounds up.
 *
 * @since 0.1.0
 * @category conversions
 */
export const usd = (dollars: number): number => Math.ceil(dollars * 1_000_000 - 1e-6)

/**
 * Options for `Quota.make`. The table of the module gives the reasons for the defaults.
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
  /**
   * The shortest time in which the whole limit of a window may be used. 0: no burst limit, and none is learned. Does not apply to
   * budgets and to windows above an hour. Default a sixth of the window.
   */
  readonly burst?: Duration.Input | undefined
  /** The longest time from sending a call to its arrival. At most an eighth of the window is used. Default 1 second. */
  readonly guard?: Duration.Input | undefined
  /** How many calls may wait. 0: no call waits. A policy with `backpressure` uses the queue of that instead. Default 1,000. */
  readonly queue?: number | undefined
  /** How long a call may wait. A call that would have to wait longer is refused at once. 0: no call waits. Default: no limit. */
  readonly maxWait?: Duration.Input | undefined
  /** How much smaller calls may use while a call waits at the head, as a share of its size. 0: none may pass. Default 0.5. */
  readonly overtake?: number | undefined
  /** For a call with `atMost` above a limit: `alone` admits it into an empty window. Budgets always refuse. Default `"alone"`. */
  readonly oversize?: "alone" | "refuse" | undefined
  /** Whether rejected calls lower the burst and the limit. Default `true`. */
  readonly adapt?: boolean | undefined
  /** How long the calls of a process that died count as running (`atOnce`) in a shared store. Default 60 seconds. */
  readonly lease?: Duration.Input | undefined
  /** How many processes share the store. While it is down, each may use 1/`processes` of each limit. Default 1. */
  readonly processes?: number | undefined
  /**
   * How much of a rate a process reserves ahead in a shared store: the amount that it used in the last `life`, at most `share`
   * of a limit. The unused part is given back after `life`. `false`: each call asks the store. Default: a share of 1/(4
   * `processes`), and a life of 1 % of the shortest window, at most 600 milliseconds.
   */
  readonly slice?:
    | { readonly share?: number | undefined; readonly life?: Duration.Input | undefined }
    | false
    | undefined
  /** How many keys and tenants are remembered. Default 1,000. */
  readonly capacityOfKeys?: number | undefined
}

/**
 * Options of one call.
 *
 * @since 0.1.0
 * @category models
 */
export interface AskOptions {
  /** The account and the model family, by which the provider counts. Default `"default"`. */
  readonly key?: string | undefined
  /** The tenant of the call. Default none: then only the limits of the key apply. */
  readonly tenant?: string | undefined
  /** Default: the `perCall` of each limit, which is one request and one call at once. */
  readonly amounts?: Amounts | undefined
  /** How long the call may wait. Default: the quota's `maxWait`. */
  readonly maxWait?: Duration.Input | undefined
}

/**
 * The reservation of a call. Run one of `settle`, `refund` and `throttled`: only the first takes effect. If none runs before the
 * scope closes, the reserved amounts stay counted, and the call at once is given back.
 *
 * @since 0.1.0
 * @category models
 */
export interface Reservation {
  /** The limit that the call waited for, and how long it queued. `undefined` if it did not wait. */
  readonly waited: { readonly dimension: string; readonly duration: Duration.Duration } | undefined
  /**
   * Replaces the reserved amounts by the used ones. Amounts that are missing in `actual`, negative or not numbers stay as
   * reserved. `arrivedBy` is the latest time at which the call can have reached the provider, such as the time of the answer's
   * headers, in epoch milliseconds. Default now.
   */
  readonly settle: (actual: Used, arrivedBy?: number) => Effect.Effect<void>
  /** Gives everything back, for a call that was not sent. */
  readonly refund: Effect.Effect<void>
  /**
   * Records that the provider rejected the call for its rate. Its request stays counted; its tokens and money are given back. No
   * call of the key starts before `retryAfter`.
   */
  readonly throttled: (retryAfter?: Duration.Input) => Effect.Effect<void>
}

/**
 * The state of one limit of a key or a tenant.
 *
 * @since 0.1.0
 * @category models
 */
export interface Level {
  readonly key: string
  /** `undefined` for the limit of the key. */
  readonly tenant: string | undefined
  readonly dimension: string
  /** The limit that is enforced now. */
  readonly limit: number
  /** The limit by the options, or by `setLimit`. */
  readonly stated: number
  readonly used: number
  readonly windowMillis: number
  /** How the provider counts. With `learned`, as far as it is learned. */
  readonly counts: Exclude<Counts, "learned">
  /** The sum of the amounts of queued calls. */
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
  /** Calls in the queue, here and in the policies that share the quota. */
  readonly waiting: number
  /** Calls that reserved their amounts. */
  readonly reserved: number
  readonly settled: number
  readonly refunded: number
  /** Calls that the provider rejected for their rate. */
  readonly throttled: number
  /** Calls that the quota refused. */
  readonly exceeded: { readonly [why in QuotaExceeded["why"]]: number }
  /** The number of keys and tenants that were forgotten while they had use. If it rises, raise `capacityOfKeys`. */
  readonly forgotten: number
  /** Changes that slow readers of `changes` have lost. */
  readonly dropped: number
}

/**
 * A change of an enforced limit, or of the burst within it.
 *
 * | why | meaning |
 * |---|---|
 * | `Throttled` | a rejected call showed that the limit is lower, or is enforced over a shorter time |
 * | `Header` | the provider named another limit |
 * | `Recovered` | the limit has risen to the stated one again; `from` is the limit after the previous change |
 * | `Set` | `setLimit` was called |
 *
 * @since 0.1.0
 * @category models
 */
export interface Change {
  readonly key: string
  readonly dimension: string
  readonly windowMillis: number
  /** `limit`: the amount in a window. `burst`: the shortest time in which a whole window may be used, in milliseconds. */
  readonly of: "limit" | "burst"
  readonly from: number
  readonly to: number
  readonly why: "Throttled" | "Header" | "Recovered" | "Set"
}

/**
 * The headers of an answer about one limit.
 *
 * @since 0.1.0
 * @category models
 */
export interface Seen {
  readonly dimension: string
  /** The length of the window, if the header names it. Default: by `resetMillis`. */
  readonly windowMillis?: number | undefined
  readonly limit?: number | undefined
  /** It may be rounded, so it limits calls only near zero. */
  readonly remaining?: number | undefined
  /** The time until the whole limit is available again. It shows that a header is of another window, which is ignored. */
  readonly resetMillis?: number | undefined
  /** When the call of this answer was sent, in epoch milliseconds. */
  readonly sentAt: number
}

/**
 * Keeps calls within limits over time.
 *
 * @since 0.1.0
 * @category services
 */
export class Quota extends Context.Service<Quota, {
  /** The configured limits of each key. */
  readonly limits: ReadonlyArray<Dimension>
  /** The configured longest wait of a call. `undefined`: no limit. */
  readonly maxWait: Duration.Duration | undefined
  /**
   * Returns how long a call would wait behind the queued calls. Infinity: it would be refused. `undefined`: not known, since
   * only the end of a running call can make room.
   */
  readonly expectedWait: (options: AskOptions) => Effect.Effect<Duration.Duration | undefined, InvalidOptions>
  /** Waits in the queue until the call could start. Reserves nothing. */
  readonly eligible: (options: AskOptions) => Effect.Effect<void, QuotaExceeded | InvalidOptions>
  /** Reserves all amounts or none, without waiting for room. Amounts that are not settled stay reserved when the scope closes. */
  readonly tryReserve: (options: AskOptions) => Effect.Effect<Reservation, QuotaExceeded | InvalidOptions, Scope.Scope>
  /** Reserves all amounts, and waits for room if needed. */
  readonly reserve: (options: AskOptions) => Effect.Effect<Reservation, QuotaExceeded | InvalidOptions, Scope.Scope>
  /**
   * Runs the effect when there is room. Settles a success by `usage`. Refunds a call that did not begin, or that a policy inside
   * the effect refused. An outcome `Throttled` counts as a rejected call. Other failures and interruptions keep the reservation.
   */
  readonly withQuota: <A>(
    options: AskOptions & { readonly usage: (value: A) => Used }
  ) => <E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | QuotaExceeded | InvalidOptions, R>
  /** Follows the limits and the room that the headers of an answer state. */
  readonly observe: (key: string, seen: ReadonlyArray<Seen>) => Effect.Effect<void>
  /** Sets the stated limit of a key, and forgets the learned limit. `window` is required if two limits have this name. */
  readonly setLimit: (
    key: string,
    dimension: string,
    limit: number,
    options?: { readonly window?: Duration.Input | undefined }
  ) => Effect.Effect<void, InvalidOptions>
  /** Reads the state of one key, or of all keys. */
  readonly snapshot: (key?: string) => Effect.Effect<Snapshot>
  /**
   * The changes of limits and bursts, from the subscription on. A reader that falls 256 changes behind loses the oldest. Ends
   * with the scope of the service.
   */
  readonly changes: Stream.Stream<Change>
}>()("@sluice/core/Quota") {}

/**
 * Builds a quota with its own state. Its sums are kept in the `QuotaStore` in the context.
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
      // Permits without a capacity refuse only requests with a ticket, which is a hold of this quota.
      error: ({ queued, ticket, waitedMillis, why }) => (ticket as Hold).refusalAlone(why, queued, waitedMillis)
    })
    quotas.waiting.add(permits)
    yield* Effect.addFinalizer(() => Effect.sync(() => permits.drain()))
    return serviceOf(quotas, permits, settings)
  }
)

const serviceOf = (quotas: Quotas, permits: Permits<QuotaExceeded>, settings: Settings): Quota["Service"] => {
  const gate: Gate<QuotaExceeded> = { permits, breaker: undefined }
  const holdOf = ({ amounts, key, tenant }: AskOptions, isLook?: boolean) => quotas.hold(key, tenant, amounts, isLook)
  const attemptOf = (
    hold: Hold,
    maxWaitMillis: number | undefined,
    body: AnyEffect,
    onExit?: Hooks<QuotaExceeded>["onExit"]
  ) =>
    Effect.withFiber((fiber) => {
      const hooks: Hooks<QuotaExceeded> = {
        begin: () => {
          hold.begun()
          return undefined
        },
        onExit
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
          const hold = holdOf(ask)
          const request = { permits: 1, maxWaitMillis, where: undefined, ticket: hold }
          const attempt = new Attempt({ gate, key: "", hooks: {}, permits: request }, Effect.void, fiber)
          // An attempt that is interrupted in the queue leaves it now. The scope keeps a reservation until it is settled: in a child
          // scope, so that a long scope does not keep the finalizers of all.
          const scope = Scope.forkUnsafe(Context.getUnsafe(fiber.context, Scope.Scope))
          const leave = (exit: Exit.Exit<unknown, unknown>) => {
            Scope.closeUnsafe(scope, Exit.void)
            return attempt.settleExit(exit)
          }
          const kept = Effect.onExitPrimitive(attempt, (exit) => {
            if (exit._tag === "Failure") return leave(exit)
            hold.begun()
            return Scope.addFinalizer(scope, Effect.suspend(() => attempt.settleExit(exit) ?? Effect.void))
          })
          // Without a circuit it fails with the errors of the permits only.
          return Effect.map(kept, () => reservationOf(hold, () => leave(Exit.void))) as Effect.Effect<
            Reservation,
            QuotaExceeded
          >
        })
    )
  const service = Quota.of({
    limits: settings.limits,
    maxWait: settings.maxWaitMillis === undefined ? undefined : Duration.millis(settings.maxWaitMillis),
    expectedWait: (options) =>
      Effect.map(read(options), ({ ask }) => {
        const millis = quotas.hold(ask.key, ask.tenant, ask.amounts, true).expectedWait()
        return millis === undefined ? undefined : Duration.millis(millis)
      }),
    eligible: (options) =>
      Effect.flatMap(
        read(options),
        ({ ask, maxWaitMillis }) =>
          // Without a circuit it fails with the errors of the permits only.
          attemptOf(holdOf(ask, true), maxWaitMillis, Effect.void) as Effect.Effect<void, QuotaExceeded>
      ),
    tryReserve: (options) => reserve({ ...options, maxWait: 0 }),
    reserve,
    withQuota: <A>({ usage, ...options }: AskOptions & { readonly usage: (value: A) => Used }) => {
      const asked = read(options)
      return <E, R>(self: Effect.Effect<A, E, R>) =>
        Effect.flatMapEager(asked, ({ ask, maxWaitMillis }) =>
          Effect.suspend(() => {
            const hold = holdOf(ask)
            // An attempt that began ends as `self` does.
            const settle: Hooks<QuotaExceeded>["onExit"] = (exit, context) =>
              settleByExit(hold, exit as Exit.Exit<A, E>, usage, classifierOf(context))
            // It ends as `self` does, or is refused.
            return attemptOf(hold, maxWaitMillis, self as AnyEffect, settle) as Effect.Effect<A, E | QuotaExceeded, R>
          }))
    },
    observe: (key, seen) => Effect.sync(() => quotas.observe(key, seen)),
    setLimit: (key, dimension, limit, options) => {
      const reader = new OptionsReader("Quota")
      reader.integer("limit", limit, 1)
      const spec = readLimit(reader, dimension, options, settings)
      return Effect.map(reader.check(limit), (checked) => {
        if (spec !== undefined) quotas.setLimit(key, spec, checked)
      })
    },
    snapshot: (key) => Effect.sync(() => quotas.snapshot(key)),
    changes: quotas.changes.stream
  })
  setGate(service, "Quota", { ...gate, maxWaitMillis: settings.maxWaitMillis })
  return setQuotas(service, quotas)
}

/**
 * Provides `Quota`. Its sums are kept in the `QuotaStore` in the context.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: QuotaOptions): Layer.Layer<Quota, InvalidOptions, QuotaStore.QuotaStore> =>
  Layer.effect(Quota, make(options))

/**
 * Provides `Quota`. Its sums are kept in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory = (options: QuotaOptions): Layer.Layer<Quota, InvalidOptions> =>
  Layer.provide(layer(options), Layer.fresh(QuotaStore.layerMemory))

const free: Reservation = {
  waited: undefined,
  settle: () => Effect.void,
  refund: Effect.void,
  throttled: () => Effect.void
}

/**
 * A quota that admits every call at once.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noop: Quota["Service"] = Quota.of({
  limits: [],
  maxWait: undefined,
  expectedWait: () => Effect.succeed(Duration.zero),
  eligible: () => Effect.void,
  tryReserve: () => Effect.succeed(free),
  reserve: () => Effect.succeed(free),
  withQuota: () => (self) => self,
  observe: () => Effect.void,
  setLimit: () => Effect.void,
  snapshot: () =>
    Effect.succeed({
      levels: [],
      waiting: 0,
      reserved: 0,
      settled: 0,
      refunded: 0,
      throttled: 0,
      exceeded: { Full: 0, MaxWait: 0, Deadline: 0, TooLarge: 0, Spent: 0, Draining: 0, StoreDown: 0 },
      forgotten: 0,
      dropped: 0
    }),
  changes: Stream.empty
})

/**
 * Provides a quota that admits every call at once: for tests, and to switch quotas off.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNoop: Layer.Layer<Quota> = Layer.succeed(Quota, noop)
