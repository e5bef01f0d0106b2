import type { StoreError } from "@sluice/core/CircuitBreakerStore"
import type { Ask, StoredLevel } from "@sluice/core/QuotaStore"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Formatter from "effect/Formatter"
import * as Random from "effect/Random"
import type { Subject } from "../../QuotaStoreContract.ts"
import type { Learned, Verdict } from "@sluice/core/QuotaStore"
import { ReferenceQuotas } from "../../ReferenceQuotaStore.ts"
import { type Difference, freshPrefix } from "../frame.ts"
import { atOnce, long, requests } from "./fixture.ts"

const below = (limit: number) => Random.nextIntBetween(0, limit, { halfOpen: true })

const scopes = ["all", "t:a"]

const randomAsks = Effect.gen(function*() {
  const asks: Array<Ask> = []
  if ((yield* below(2)) === 0) asks.push(requests(5, 1 + (yield* below(3)), { least: 1 }))
  if ((yield* below(2)) === 0) {
    const amount = yield* below(120)
    const least = (yield* below(2)) === 0 ? undefined : yield* below(amount + 1)
    asks.push(requests(100, amount, { dimension: "tokens", least }))
  }
  if ((yield* below(3)) === 0) asks.push(requests(3, 1, { scope: "t:a" }))
  if ((yield* below(3)) === 0) {
    asks.push(requests(500, 50, { dimension: "money", windowMillis: Number.POSITIVE_INFINITY, quantumMillis: 1 }))
  }
  return asks.length === 0 || (yield* below(2)) === 0 ? [...asks, atOnce(3)] : asks
})

const bucketMillis = requests(1).quantumMillis

/** The parts of an answer that do not depend on the time of its request. */
const timeless = ({ granted, learned, ok, used }: Verdict) => [ok, granted, used, limitsOf(learned)]

const limitsOf = (learned: ReadonlyArray<Learned>) =>
  learned.map(({ dimension, limit }) => [dimension, limit]).toSorted(([a = ""], [b = ""]) => a < b ? -1 : 1)

/** On a real clock the store adds an amount later than the reference, so the amount may belong to the next bucket. */
const isNear = (expected: number, actual: number) => Math.abs(expected - actual) <= 1.5 * bucketMillis

// A sum of 0 may be missing.
const used = (levels: ReadonlyArray<StoredLevel>) => levels.filter((level) => level.used !== 0)

/** Plays random requests on a new target of the store, and on the reference. */
export const play = Effect.fnUntraced(function*(
  { store }: Subject,
  commands: number
): Effect.fn.Return<Difference<string> | undefined, StoreError> {
  const target = yield* freshPrefix
  const reference = new ReferenceQuotas()
  const played: Array<string> = []
  const differs = (expected: unknown, actual: unknown): Difference<string> | undefined =>
    Equal.equals(expected, actual) ? undefined : { commands: played, expected, actual }
  for (let step = 0; step < commands; step++) {
    const kind = yield* below(12)
    const id = `id ${yield* below(8)}`
    // Nothing leaves a window, and no lease ends: the time of the reference does not matter.
    const now = yield* Clock.currentTimeMillis
    let difference: Difference<string> | undefined
    if (kind < 5) {
      const request = { target, id, leaseMillis: long, guardMillis: 1_000, asks: yield* randomAsks }
      played.push(`reserve ${id} ${Formatter.format(request.asks)}`)
      const expected = reference.reserve(request, now)
      const actual = yield* store.reserve(request)
      // Which of several asks waits longest depends on the milliseconds at which their amounts were added.
      difference = differs(timeless(expected), timeless(actual)) ??
        (isNear(expected.waitMillis, actual.waitMillis)
          ? undefined
          : {
            commands: played,
            expected: { waitMillis: expected.waitMillis },
            actual: { waitMillis: actual.waitMillis }
          })
    } else if (kind < 8) {
      const actual = [
        { scope: "all", dimension: "requests", amount: yield* below(4) },
        { scope: "all", dimension: "tokens", amount: yield* below(150) },
        { scope: "all", dimension: "money", amount: yield* below(60) }
      ].slice(yield* below(4))
      const request = { target, id, actual, agoMillis: yield* below(300_000), keep: (yield* below(3)) === 0 }
      played.push(`settle ${Formatter.format(request)}`)
      difference = differs(reference.settle(request, now), yield* store.settle(request))
    } else if (kind === 8) {
      const agoMillis = yield* below(500_000)
      const request = { target, asks: (yield* randomAsks).map((ask) => Object.assign({}, ask, { agoMillis })) }
      played.push(`record ${Formatter.format(request.asks)}`)
      reference.record(request, now)
      yield* store.record(request)
    } else if (kind === 9) {
      const request = {
        target,
        dimension: ["requests", "tokens"][yield* below(2)] ?? "",
        ...(yield* below(2)) === 0 ? { seen: 1 + (yield* below(50)) } : undefined,
        ...(yield* below(2)) === 0 ? { restMillis: long + (yield* below(long)) } : undefined
      }
      played.push(`limit ${Formatter.format(request)}`)
      const [expected, actual] = [reference.limit(request, now), yield* store.limit(request)]
      difference = differs(expected.limit, actual.limit) ??
        (isNear(expected.restMillis, actual.restMillis) ? undefined : { commands: played, expected, actual })
    } else {
      const request = { target, ids: [id], leaseMillis: long }
      played.push(`renew ${id}`)
      reference.renew(request, now)
      yield* store.renew(request)
    }
    const levels = yield* store.read({ target, scopes })
    difference ??= differs(used(reference.read({ target, scopes }, now)), used(levels))
    if (difference !== undefined) return difference
  }
  return undefined
})
