import type { StoreError } from "@sluice/core/CircuitBreakerStore"
import type { Ask, StoredLevel } from "@sluice/core/QuotaStore"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Formatter from "effect/Formatter"
import * as Random from "effect/Random"
import type { Subject } from "../../QuotaStoreContract.ts"
import { ReferenceQuotas } from "../../ReferenceQuotaStore.ts"
import { freshPrefix } from "../contract/check.ts"
import { atOnce, long, requests } from "./fixture.ts"

/** An answer that differs, and the requests that led there. */
export interface Difference {
  readonly played: ReadonlyArray<string>
  readonly expected: unknown
  readonly actual: unknown
}

const below = (limit: number) => Random.nextIntBetween(0, limit, { halfOpen: true })

const scopes = ["all", "t:a"]

const randomAsks = Effect.gen(function*() {
  const asks: Array<Ask> = []
  if ((yield* below(2)) === 0) asks.push(requests(5, 1 + (yield* below(2))))
  if ((yield* below(2)) === 0) asks.push(requests(100, yield* below(120), { dimension: "tokens" }))
  if ((yield* below(3)) === 0) asks.push(requests(3, 1, { scope: "t:a" }))
  if ((yield* below(3)) === 0) {
    asks.push(requests(500, 50, { dimension: "money", windowMillis: Number.POSITIVE_INFINITY, quantumMillis: 1 }))
  }
  return asks.length === 0 || (yield* below(2)) === 0 ? [...asks, atOnce(3)] : asks
})

// A sum of 0 may be missing.
const used = (levels: ReadonlyArray<StoredLevel>) => levels.filter((level) => level.used !== 0)

/** Plays random requests on a new target of the store, and on the reference. */
export const play = Effect.fnUntraced(function*(
  { store }: Subject,
  commands: number
): Effect.fn.Return<Difference | undefined, StoreError> {
  const target = yield* freshPrefix
  const reference = new ReferenceQuotas()
  const played: Array<string> = []
  const differs = (expected: unknown, actual: unknown): Difference | undefined =>
    Equal.equals(expected, actual) ? undefined : { played, expected, actual }
  for (let step = 0; step < commands; step++) {
    const kind = yield* below(10)
    const id = `id ${yield* below(8)}`
    // Nothing leaves a window, and no lease ends: the time of the reference does not matter.
    const now = yield* Clock.currentTimeMillis
    let difference: Difference | undefined
    if (kind < 5) {
      const request = { target, id, leaseMillis: long, guardMillis: 1_000, asks: yield* randomAsks }
      played.push(`reserve ${id} ${Formatter.format(request.asks)}`)
      const expected = reference.reserve(request, now)
      const actual = yield* store.reserve(request)
      // Which of several asks waits longest depends on the milliseconds at which their amounts were added.
      difference = differs([expected.ok, expected.used], [actual.ok, actual.used])
    } else if (kind < 8) {
      const actual = [
        { scope: "all", dimension: "requests", amount: yield* below(4) },
        { scope: "all", dimension: "tokens", amount: yield* below(150) },
        { scope: "all", dimension: "money", amount: yield* below(60) }
      ].slice(yield* below(4))
      const request = { target, id, actual, agoMillis: yield* below(500) }
      played.push(`settle ${id} ${Formatter.format(actual)}`)
      difference = differs(reference.settle(request, now), yield* store.settle(request))
    } else if (kind === 8) {
      const request = { target, asks: yield* randomAsks }
      played.push(`record ${Formatter.format(request.asks)}`)
      reference.record(request, now)
      yield* store.record(request)
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
