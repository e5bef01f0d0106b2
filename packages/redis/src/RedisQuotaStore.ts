/**
 * Keeps the sums of quotas in Redis, so that all processes that use an account keep its limits together.
 *
 * Each verb of the store is one atomic script for all limits of a call, and so one round trip. A call costs two: one to reserve,
 * and one to settle, for which it does not wait.
 *
 * **When to use**
 *
 * Several processes call with the same account. For a single process use `QuotaStore.layerMemory`, which needs no round trip.
 *
 * **Details**
 *
 * | option | default | why this default |
 * |---|---|---|
 * | `prefix` | `"sluice:"` | shows the owner of the keys in a shared Redis |
 *
 * - A target has three keys in one slot of a cluster: `sluice:quota:{openai}` has the sums, `...:leases` the ids by the end of their
 *   leases, `...:holds` the amounts of each id.
 * - Times are the server's, so the clocks of the processes do not matter.
 * - The calls at once of a process that died are freed after the end of their leases, up to 16 by each request of the target.
 *   Amounts in windows stay until the window passes. Money that is not settled stays spent.
 * - Every key has an expiry: twice its longest window, at least two days. A budget without a window is kept for a year.
 *
 * **Gotchas**
 *
 * - Keys with an expiry are the first to be evicted. Use a Redis with `noeviction`, or accept that a sum may start again at 0.
 * - `targets`, which only an operator needs, scans all keys of the database. In a cluster it sees those of one node.
 * - Amounts have to be whole numbers below 2^53.
 * - If the server's clock is set forward, windows and leases end earlier by the same amount. If it is set back, the time of a
 *   target continues from its latest time.
 *
 * **Example** (A quota of several processes)
 *
 * ```ts
 * import * as NodeRedis from "@effect/platform-node/NodeRedis"
 * import { Config, Layer } from "effect"
 * import * as Quota from "@sluice/core/Quota"
 * import * as RedisQuotaStore from "@sluice/redis/RedisQuotaStore"
 *
 * const Redis = NodeRedis.layerConfig({ url: Config.String("REDIS_URL"), disableOfflineQueue: Config.succeed(true) })
 *
 * export const OpenAiQuota = Quota.layer({ limits: [Quota.requestsPerMinute(500)], processes: 4 }).pipe(
 *   Layer.provide(RedisQuotaStore.layer({ prefix: "billing:" })),
 *   Layer.provide(Redis)
 * )
 * ```
 *
 * @since 0.1.0
 */
import { StoreError } from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import { type Ask, type Ceiling, type Learned, QuotaStore, type StoredLevel } from "@sluice/core/QuotaStore"
import { decodeKey, encodeKey, isValidAsk } from "@sluice/core/StoreCodec"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import { describeError } from "./internal/describeError.ts"
import * as Scripts from "./internal/quotaScripts.ts"
import { addressOf, decodeText, encodeText, parseSum, sumName, windowOf } from "./internal/sumName.ts"

/**
 * Options for `RedisQuotaStore.make`.
 *
 * @since 0.1.0
 * @category models
 */
export interface RedisQuotaStoreOptions {
  /**
   * The beginning of all keys: at most 200 characters, without braces. Default `"sluice:"`. Processes with the same prefix share
   * their quotas.
   */
  readonly prefix?: string | undefined
}

/**
 * Builds the store on a `Redis` service. It has no state in the process: two stores with the same prefix are the same.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options?: RedisQuotaStoreOptions
): Effect.Effect<QuotaStore["Service"], InvalidOptions, Redis.Redis> =>
  Effect.flatMap(
    readOptions(options),
    (prefix) => Effect.map(Redis.Redis, (redis) => QuotaStore.of(storeOn(redis, prefix)))
  )

/**
 * Provides a `QuotaStore` in Redis.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: RedisQuotaStoreOptions
): Layer.Layer<QuotaStore, InvalidOptions, Redis.Redis> => Layer.effect(QuotaStore, make(options))

type Verb = keyof QuotaStore["Service"]

const twoDays = 2 * 86_400_000
const year = 365 * 86_400_000

const storeOn = (redis: Redis.Redis["Service"], prefix: string): QuotaStore["Service"] => {
  const scripts = {
    reserve: redis.eval(Scripts.reserve),
    settle: redis.eval(Scripts.settle),
    record: redis.eval(Scripts.record),
    renew: redis.eval(Scripts.renew),
    limit: redis.eval(Scripts.limit),
    read: redis.eval(Scripts.read)
  }
  const keysOf = (target: string): Scripts.Keys => {
    const sums = `${prefix}quota:{${encodeKey(target)}}`
    return [sums, `${sums}:leases`, `${sums}:holds`]
  }
  /** Decodes a reply. A reply of another form than the script's is a `StoreError`. */
  const answer = <A>(
    operation: Verb,
    reply: Effect.Effect<unknown, Redis.RedisError>,
    decode: (reply: unknown) => A | undefined
  ): Effect.Effect<A, StoreError> =>
    Effect.matchEffect(reply, {
      onFailure: (error) => failWith(operation, describeError(error)),
      onSuccess: (reply) => {
        const decoded = decode(reply)
        return decoded === undefined ? failWith(operation, "Redis returned an invalid reply") : Effect.succeed(decoded)
      }
    })
  return {
    reserve: ({ asks, guardMillis, id, leaseMillis, target }) => {
      // A script that fails half-way is not rolled back.
      if (!asks.every(isValidAsk)) return failWith("reserve", "an ask is invalid")
      const args = {
        id: encodeText(id),
        leaseMillis: Math.ceil(leaseMillis),
        guardMillis,
        keepMillis: keepMillis(asks, leaseMillis),
        asks: asks.map(argsOf)
      }
      return answer("reserve", scripts.reserve(keysOf(target), args), (reply) => {
        if (!Array.isArray(reply)) return undefined
        const [ok, now, waitMillis, blockedBy] = numbersOf(reply.slice(0, 4)) ?? []
        const [used, granted, learned] = [numbersOf(reply[4]), numbersOf(reply[5]), learnedIn(reply[6])]
        if (now === undefined || waitMillis === undefined || blockedBy === undefined || learned === undefined) return
        if (used?.length !== asks.length || granted?.length !== asks.length) return
        return { ok: ok === 1, now, waitMillis, blockedBy, used, granted, learned }
      })
    },
    settle: ({ actual, agoMillis = 0, id, keep = false, target }) => {
      const args = {
        id: encodeText(id),
        agoMillis,
        keep: keep ? 1 as const : 0 as const,
        actual: actual.map(({ amount, dimension, scope }) => [addressOf(scope, dimension), amount] as const)
      }
      return answer(
        "settle",
        scripts.settle(keysOf(target), args),
        (reply) => reply === 1 || reply === 0 ? reply === 1 : undefined
      )
    },
    record: ({ asks, target }) => {
      if (!asks.every(isValidAsk)) return failWith("record", "an ask is invalid")
      const recorded = asks.map((ask) => [...argsOf(ask), ask.agoMillis ?? 0] as const)
      const args = { keepMillis: keepMillis(asks, 0), asks: recorded }
      return Effect.asVoid(answer("record", scripts.record(keysOf(target), args), (reply) => reply ?? undefined))
    },
    renew: ({ ids, leaseMillis, target }) => {
      const args = { leaseMillis: Math.ceil(leaseMillis), ids: ids.map(encodeText) }
      return Effect.asVoid(answer("renew", scripts.renew(keysOf(target), args), (reply) => reply ?? undefined))
    },
    limit: ({ dimension, restMillis = -1, seen = -1, target }) => {
      const args = {
        dimension: encodeText(dimension),
        seen,
        restMillis: Math.ceil(restMillis),
        keepMillis: twoDays
      }
      return answer("limit", scripts.limit(keysOf(target), args), (reply) => ceilingIn(numbersOf(reply)))
    },
    read: ({ scopes, target }) =>
      answer("read", scripts.read(keysOf(target)), (reply) => {
        if (!Array.isArray(reply)) return undefined
        const levels: Array<StoredLevel> = []
        for (let index = 0; index + 1 < reply.length; index += 2) {
          const sum = parseSum(String(reply[index]))
          if (sum === undefined) return undefined
          if (scopes.includes(sum.scope)) levels.push({ ...sum, used: Number(reply[index + 1]) })
        }
        return levels.toSorted((a, b) => nameOf(a) < nameOf(b) ? -1 : 1)
      }),
    targets: Effect.fnUntraced(function*({ after, limit }) {
      const [start, end] = [`${prefix}quota:{`, "}"]
      const found = new Set<string>()
      let cursor = "0"
      do {
        const page: unknown = yield* Effect.mapError(
          redis.send("SCAN", cursor, "MATCH", `${escapeGlob(start)}*${end}`, "COUNT", "1000"),
          (error) => new StoreError({ operation: "targets", description: describeError(error) })
        )
        if (!Array.isArray(page) || !Array.isArray(page[1])) return yield* failWith("targets", "invalid reply")
        cursor = String(page[0])
        for (const key of page[1]) found.add(String(key).slice(start.length, -end.length))
      } while (cursor !== "0")
      const from = after === undefined ? "" : encodeKey(after)
      // Encoded keys have the same order.
      const page = [...found].filter((key) => key > from).sort().slice(0, limit)
      return page.flatMap((key) => decodeKey(key) ?? [])
    })
  }
}

/** The prefix is matched as it is. */
const escapeGlob = (text: string): string => text.replaceAll(/[*?[\]\\^]/g, "\\$&")

const nameOf = ({ dimension, scope, windowMillis }: StoredLevel): string =>
  JSON.stringify([scope, dimension, windowMillis])

const ceilingIn = ([limit, ageMillis, restMillis]: ReadonlyArray<number> = []): Ceiling | undefined =>
  limit === undefined || ageMillis === undefined || restMillis === undefined
    ? undefined
    : { limit: limit < 0 ? Number.POSITIVE_INFINITY : limit, ageMillis, restMillis }

const noneLearned: ReadonlyArray<Learned> = []

const learnedIn = (reply: unknown): ReadonlyArray<Learned> | undefined => {
  if (!Array.isArray(reply)) return undefined
  if (reply.length === 0) return noneLearned
  const learned: Array<Learned> = []
  for (let index = 0; index < reply.length; index += 4) {
    const ceiling = ceilingIn(numbersOf(reply.slice(index + 1, index + 4)))
    if (ceiling === undefined) return undefined
    learned.push({ dimension: decodeText(String(reply[index])), ...ceiling })
  }
  return learned
}

const argsOf = ({ amount, dimension, least, limit, quantumMillis, scope, windowMillis }: Ask): Scripts.AskArgs => [
  sumName(scope, dimension, windowMillis, quantumMillis),
  limit === Number.POSITIVE_INFINITY ? -1 : limit,
  windowOf(windowMillis),
  quantumMillis,
  amount,
  least ?? amount
]

const keepMillis = (asks: ReadonlyArray<Ask>, leaseMillis: number): number => {
  const longest = Math.max(leaseMillis, ...asks.map(({ windowMillis }) => windowMillis))
  return Math.ceil(Math.min(year, Math.max(twoDays, 2 * longest)))
}

/** The numbers of a reply. Large ones are sent as text. */
const numbersOf = (reply: unknown): ReadonlyArray<number> | undefined => {
  if (!Array.isArray(reply)) return undefined
  const numbers = reply.map(Number)
  return numbers.every(Number.isFinite) ? numbers : undefined
}

const failWith = (operation: Verb, description: string): Effect.Effect<never, StoreError> =>
  Effect.suspend(() => Effect.fail(new StoreError({ operation, description })))

const readOptions = (input: RedisQuotaStoreOptions = {}): Effect.Effect<string, InvalidOptions> => {
  const options = new OptionsReader("RedisQuotaStore")
  const { prefix = "sluice:" } = options.object("options", input, { prefix: true })
  if (typeof prefix !== "string" || prefix.length > 200 || /[{}]/.test(prefix)) {
    options.refuse("prefix", prefix, "must be a string of at most 200 characters, without braces")
  }
  return options.check(prefix)
}
