import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Served } from "../../Deduplicator.ts"
import type { Claimed, ClaimRequest, FlightStore } from "../../FlightStore.ts"
import { hashOf, KeyTypeId, type RequestKey, slotFor } from "./requestKey.ts"

type AnyExit = Exit.Exit<unknown, unknown>

/** How a flight of this process is served. */
type Place =
  /** By its own effect, which the others follow. */
  | { readonly _tag: "Lead" }
  /** By its own effect alone: the store is down, or the result of another process cannot be read. */
  | { readonly _tag: "Alone" }
  | { readonly _tag: "Result"; readonly exit: AnyExit; readonly freshMillis: number }

/** How a flight tells and asks its own process. */
interface Own {
  readonly onServed: (served: Served) => void
  /** The result of another process, before it is returned. It is fresh for so long. */
  readonly onResult: (freshMillis: number) => void
  /** For how long this process caches the exit of its own effect. */
  readonly cacheMillis: (exit: AnyExit) => number
}

/** A flight of this process that goes through the store. */
interface Shared {
  readonly request: ClaimRequest
  readonly slot: string
  readonly codec: Codec
  readonly own: Own
  /** The last claim that was sent. */
  claiming: Fiber.Fiber<unknown, unknown> | undefined
}

export interface StoredFlightsOptions {
  readonly name: string
  readonly store: FlightStore["Service"]
  readonly leaseMillis: number
  readonly maxResultBytes: number
  readonly now: () => number
  /** The context of requests to the store. */
  readonly context: Context.Context<never>
}

/** Counters of the flights that go through the store. */
export interface StoredCounters {
  followed: number
  storeErrors: number
  undecodable: number
}

const storeTimeout = "1 second"
/** How long calls run alone after a request has failed. */
const restMillis = 1_000
/** How often a follower claims again. A store that tells what is finished needs it only for what it lost. */
const pollMillis = { told: 1_000, untold: 250 }
/** Longer than several polls, so that every follower gets the result. */
const keepMillis = 10_000
/** Other processes run calls of their own, and do not wait, if the result cannot be shared. */
const unshared = ""
/** A database can add it to any time. */
const longestMillis = 2 ** 50
// A client may log each failed attempt, so they become rare.
const resubscribe = Schedule.min([Schedule.exponential("1 second"), Schedule.spaced("30 seconds")])

/**
 * The flights of a process through a store that other processes share. Callers of this process have joined one flight already, so a
 * key has at most one claim in each process.
 */
export class StoredFlights {
  readonly counters: StoredCounters = { followed: 0, storeErrors: 0, undecodable: 0 }
  private readonly options: StoredFlightsOptions
  private readonly pollMillis: number
  private readonly idPrefix: string
  private nextId = 0
  private downUntil = Number.NEGATIVE_INFINITY
  private hasWarned = false
  /** Followers that wait, by the hash of their key. */
  private readonly waiting = new Map<string, Deferred.Deferred<void>>()
  /** The ends of leases that are on their way to the store, by slot. */
  private readonly ending = new Map<string, Fiber.Fiber<unknown, unknown>>()
  private readonly subscription: Fiber.Fiber<unknown, unknown> | undefined

  constructor(options: StoredFlightsOptions) {
    this.options = options
    const { context, store: { finished } } = options
    this.pollMillis = finished === undefined ? pollMillis.untold : pollMillis.told
    // Ids of processes must differ. `Random` is the context's, so that a test with a seed repeats.
    const random = Context.get(context, Random.Random)
    this.idPrefix = `${random.nextIntUnsafe().toString(36)}${random.nextIntUnsafe().toString(36)}`
    this.subscription = finished === undefined ? undefined : this.fork(
      // A stream that fails or ends is opened again. Until then followers claim again by themselves.
      Stream.runForEach(finished, (key) => Effect.sync(() => this.wake(key))).pipe(
        Effect.ignore,
        Effect.repeat(resubscribe)
      )
    )
  }

  /** Waits for the ends of leases that are on their way. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.subscription?.interruptUnsafe()
    return Effect.forEach([...this.ending.values()], Fiber.await, { concurrency: "unbounded", discard: true })
  })

  /** The effect of a flight: runs `self` if no other process does, or returns the result of that process. */
  share<A, E, R>(self: Effect.Effect<A, E, R>, key: RequestKey<A, E>, own: Own): Effect.Effect<A, E, R> {
    const { codec } = key[KeyTypeId]
    if (codec === undefined) return self
    return Effect.suspend(() => {
      const downMillis = this.downUntil - this.options.now()
      // More than that is left only if the clock was set back.
      if (downMillis > 0 && downMillis <= restMillis) return self
      const request: ClaimRequest = {
        key: hashOf(key.slot),
        operation: operationId(key.operation),
        tenant: key.tenant ?? "",
        id: `${this.idPrefix}-${this.nextId++}`,
        leaseMillis: this.options.leaseMillis
      }
      const flight: Shared = { request, slot: key.slot, codec, own, claiming: undefined }
      return Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(
          restore(Effect.onInterrupt(this.place(flight), () => Effect.sync(() => this.leave(flight)))),
          (place): Effect.Effect<A, E, R> => {
            switch (place._tag) {
              case "Alone":
                return restore(self)
              case "Result":
                own.onResult(place.freshMillis)
                // The codec of the key has made it.
                return place.exit as Exit.Exit<A, E>
              case "Lead":
                return this.lead(restore(self), flight)
            }
          }
        )
      )
    })
  }

  /** Deletes the entries of a key, an operation or a tenant. Fails if the store does. */
  readonly purge: FlightStore["Service"]["purge"] = (options) =>
    Effect.suspend(() => this.options.store.purge(options)).pipe(
      Effect.tapError(() => Effect.sync(() => this.fail()))
    )

  // ---------- before the call

  private readonly place = Effect.fnUntraced({ self: this }, function*(this: StoredFlights, flight: Shared) {
    const { own, request, slot } = flight
    // Its own lease may be ending. Otherwise this flight would follow it.
    const ending = this.ending.get(slot)
    if (ending !== undefined) yield* Fiber.await(ending)
    let following: number | undefined
    for (;;) {
      // Before the claim, so that no end is missed.
      const woken = this.listen(request.key)
      const claiming = this.send(this.options.store.claim({ ...request, following }))
      flight.claiming = claiming
      const claimed = yield* this.answer(claiming)
      if (claimed?._tag !== "Follow") {
        this.waiting.delete(request.key)
        const place = this.placeOf(claimed, flight)
        if (place._tag !== "Result") {
          // It was served in another way before.
          if (following !== undefined) own.onServed("Led")
        } else if (following === undefined) own.onServed("Cached")
        return place
      }
      if (following === undefined) own.onServed("Joined")
      following ??= claimed.generation
      // A millisecond after the end of the lease, so that it has lapsed.
      const waitMillis = Math.min(this.pollMillis, claimed.leaseMillis + 1)
      yield* Effect.timeoutOption(Deferred.await(woken), waitMillis)
    }
  })

  private placeOf(
    claimed: Exclude<Claimed, { readonly _tag: "Follow" }> | undefined,
    flight: Shared
  ): Place {
    if (claimed === undefined) {
      this.leave(flight)
      return { _tag: "Alone" }
    }
    if (claimed._tag === "Lead") return claimed
    const exit = claimed.result === unshared ? undefined : this.decode(flight.codec, claimed.result)
    if (exit === undefined) return { _tag: "Alone" }
    this.counters.followed++
    return { _tag: "Result", exit, freshMillis: claimed.freshMillis }
  }

  private listen(key: string): Deferred.Deferred<void> {
    let woken = this.waiting.get(key)
    if (woken === undefined) {
      woken = Deferred.makeUnsafe()
      this.waiting.set(key, woken)
    }
    return woken
  }

  private wake(key: string): void {
    const woken = this.waiting.get(key)
    if (woken === undefined) return
    this.waiting.delete(key)
    Deferred.doneUnsafe(woken, Exit.void)
  }

  // ---------- the call

  private lead<A, E, R>(self: Effect.Effect<A, E, R>, flight: Shared): Effect.Effect<A, E, R> {
    const { codec, own, request, slot } = flight
    const { store } = this.options
    const renewing = this.fork(this.renewal(request))
    return Effect.onExitPrimitive(self, (exit) => {
      renewing.interruptUnsafe()
      if (Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause)) {
        this.end(slot, store.release(request))
        return undefined
      }
      const result = this.encode(codec, exit)
      const freshMillis = result === unshared ? 0 : Math.min(own.cacheMillis(exit), longestMillis)
      this.end(slot, store.complete({ ...request, result, freshMillis, keepMillis }))
      return undefined
    })
  }

  /** Renews a lease while its call runs. A lease that has lapsed is lost: another process may lead. */
  private renewal(request: ClaimRequest): Effect.Effect<unknown> {
    const { store } = this.options
    const renew = Effect.suspend(() => this.answer(this.send(store.renew(request))))
    return Effect.repeat(Effect.delay(renew, request.leaseMillis / 3), { while: (isHeld) => isHeld !== false })
  }

  // ---------- after the call

  // Callers do not wait for it.
  private end(slot: string, ended: Effect.Effect<boolean, unknown>): void {
    const fiber = this.fork(this.answer(this.send(ended)))
    this.ending.set(slot, fiber)
    fiber.addObserver(() => {
      if (this.ending.get(slot) === fiber) this.ending.delete(slot)
    })
  }

  /** Releases a lease that the last claim may have got. Until that is answered, the store could grant it after the release. */
  private leave({ claiming, request, slot }: Shared): void {
    this.waiting.delete(request.key)
    if (claiming === undefined) return
    const answered = Effect.onInterrupt(Fiber.await(claiming), () => Effect.sync(() => claiming.interruptUnsafe()))
    this.end(slot, Effect.andThen(answered, this.options.store.release(request)))
  }

  private encode(codec: Codec, exit: AnyExit): string {
    try {
      const encoded = Option.map(Schema.encodeUnknownOption(codec)(exit), (json) => JSON.stringify(json))
      const result = Option.getOrElse(encoded, () => unshared)
      return this.isTooLarge(result) ? unshared : result
    } catch {
      // The error can contain the answer, so it is not reported.
      return unshared
    }
  }

  private decode(codec: Codec, result: string): AnyExit | undefined {
    const decoded = this.isTooLarge(result) ? Option.none() : decodeWith(codec, result)
    if (Option.isNone(decoded)) this.counters.undecodable++
    return Option.getOrUndefined(decoded)
  }

  private isTooLarge(result: string): boolean {
    const { maxResultBytes } = this.options
    // A code unit is at most three bytes of UTF-8.
    return result.length * 3 > maxResultBytes && utf8Bytes(result) > maxResultBytes
  }

  // ---------- the store

  /** Sends a request, and once more if it fails, since its reply may be lost. In a fiber that ends by itself. */
  private send<A, E>(request: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return this.fork(Effect.retry(request, { times: 1 }))
  }

  /** Waits for a request, for a second at most. `undefined`: the store is down. */
  private answer<A>(sent: Fiber.Fiber<A, unknown>): Effect.Effect<A | undefined> {
    // Nothing waits for the fiber of a store that cannot be interrupted.
    return Effect.map(Effect.timeoutOption(Fiber.await(sent), storeTimeout), (answered) => {
      if (Option.isSome(answered) && Exit.isSuccess(answered.value)) {
        this.downUntil = Number.NEGATIVE_INFINITY
        this.hasWarned = false
        return answered.value.value
      }
      sent.interruptUnsafe()
      this.fail()
      return undefined
    })
  }

  /** One warning for each outage. */
  private fail(): void {
    this.counters.storeErrors++
    this.downUntil = this.options.now() + restMillis
    if (this.hasWarned) return
    this.hasWarned = true
    this.fork(Effect.logWarning(
      `deduplicator ${this.options.name}: the store of flights does not answer; until it does, this process shares no flights`
    ))
  }

  private fork<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(this.options.context)(effect)
  }
}

type Codec = Schema.Codec<AnyExit, Schema.Json>

const decodeWith = (codec: Codec, result: string): Option.Option<AnyExit> => {
  try {
    return Schema.decodeUnknownOption(codec)(JSON.parse(result))
  } catch {
    return Option.none()
  }
}

const utf8Bytes = (text: string): number => {
  let bytes = 0
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    // A pair of surrogates is four bytes.
    const isSurrogate = unit >= 0xd800 && unit < 0xe000
    bytes += unit < 0x80 ? 1 : unit < 0x800 || isSurrogate ? 2 : 3
  }
  return bytes
}

/** The hash of an operation's name in a store, by the `KeyHash` of the running fiber. */
export const operationId = (operation: string): string => hashOf(slotFor("operation", undefined, operation))

/** The hash of a tenant in a store, by the `KeyHash` of the running fiber. */
export const tenantId = (tenant: string): string => hashOf(slotFor("tenant", undefined, tenant))
