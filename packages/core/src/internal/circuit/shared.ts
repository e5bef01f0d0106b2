import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { Answer, CircuitBreakerStore, Snapshot, Target } from "../../CircuitBreakerStore.ts"
import type { Outcome } from "../../Outcome.ts"
import { withoutStack } from "../../Refusal.ts"
import { type CachedCircuit, CircuitCache } from "./circuitCache.ts"
import type { CircuitOpen } from "./circuitOpen.ts"
import {
  type CircuitAdmission,
  type Circuits,
  codeOf,
  hintOf,
  movesWithoutSample,
  refusalOf,
  type Refuse,
  retryAfterProbesMillis
} from "./circuits.ts"
import type { CircuitJournal } from "./journal.ts"
import type { LocalCircuits } from "./local.ts"
import { answer, decide, tally, targetOf, tripped } from "./machine.ts"
import { shifted } from "./memory.ts"
import { type Move, type OutcomeHint, type Settings, stateName } from "./model.ts"
import { isWithinProbe } from "./probe.ts"
import { encodeSample } from "./sample.ts"
import { outOfTime, resting, StoreClient } from "./storeClient.ts"
import { StoreError } from "./storeError.ts"
import { areSnapshots, isAnswer } from "./validateAnswer.ts"

/** How often one call decides again because another process has moved the circuit. */
const maxTries = 3

/** The same for a transition by an operator, which should prevail. */
const maxTriesByHand = 10

/** How long after a lost reply the slot is freed. */
const giveBackMillis = 1_000

export interface SharedOptions {
  readonly settings: Settings
  readonly store: CircuitBreakerStore["Service"]
  readonly local: LocalCircuits
  readonly clock: Clock.Clock
  /** A random number from 0 to 1. */
  readonly random: () => number
  readonly journal: CircuitJournal
  readonly refuse: Refuse
  readonly nextId: () => string
  readonly context: Context.Context<never>
  readonly scope: Scope.Scope
}

/**
 * A breaker over circuits that other processes share. A call of a closed circuit costs one request, after the call. A refusal
 * costs none. While the store does not answer, the circuits of this process are used.
 */
export class SharedCircuits implements Circuits {
  private readonly settings: Settings
  private readonly store: CircuitBreakerStore["Service"]
  private readonly client: StoreClient
  private readonly local: LocalCircuits
  private readonly clock: Clock.Clock
  private readonly random: () => number
  private readonly journal: CircuitJournal
  private readonly refuse: Refuse
  private readonly nextId: () => string
  private readonly context: Context.Context<never>
  private readonly scope: Scope.Scope
  private readonly cache = new CircuitCache()

  constructor(options: SharedOptions) {
    this.settings = options.settings
    this.store = options.store
    this.local = options.local
    this.clock = options.clock
    this.random = options.random
    this.journal = options.journal
    this.refuse = options.refuse
    this.nextId = options.nextId
    this.context = options.context
    this.scope = options.scope
    this.client = new StoreClient({
      name: options.settings.name,
      timeoutMillis: options.settings.storeTimeoutMillis,
      clock: options.clock,
      context: options.context,
      onFailure: () => this.journal.storeFailures++
    })
  }

  // ---------- calls

  readonly enter = (call: CircuitAdmission): Effect.Effect<void, CircuitOpen> =>
    Effect.suspend(() => {
      const cached = this.cache.use(call.key)
      call.startedAt = call.progressAt = this.now()
      return this.current(cached, call).pipe(
        Effect.flatMap((snapshot) => this.admit(call, cached, snapshot)),
        Effect.catchTag("StoreError", () => {
          this.adopt(cached)
          return this.local.enter(call)?.effect ?? Effect.void
        })
      )
    })

  readonly leave = (call: CircuitAdmission, outcome: Outcome, isSlow: boolean): Effect.Effect<void> => {
    if (call.circuit !== undefined) return Effect.sync(() => this.local.leave(call, outcome, isSlow))
    this.journal.ended(outcome)
    const code = codeOf(outcome, isSlow)
    const hint = hintOf(outcome)
    if (code < 0 && call.lease === undefined && !movesWithoutSample(call, hint)) {
      return this.publishCounted(call, outcome, false)
    }
    const cached = this.cache.use(call.key)
    const { generation, key, lease } = call
    const recorded = this.request(cached, "record", () =>
      this.store.record({
        key,
        window: this.settings.policy.window,
        generation,
        lease,
        samples: code < 0 ? "" : encodeSample(code)
      }))
    const reported = (call.stopRenewing === undefined ? recorded : Effect.andThen(call.stopRenewing, recorded)).pipe(
      Effect.flatMap(({ ok, snapshot }) => {
        // The store works again, so the evidence of the circuit in this process is obsolete.
        cached.adopted = undefined
        return Effect.andThen(
          this.follow(cached, snapshot, ok ? hint : lateHint(hint, snapshot)),
          this.publishCounted(call, outcome, ok && code >= 0)
        )
      }),
      // An outcome that the store did not take is kept in this process.
      Effect.catchTag("StoreError", () =>
        Effect.suspend(() => {
          this.adopt(cached)
          return this.publishCounted(call, outcome, this.local.observe(key, code, hint))
        }))
    )
    return this.waitInTime(call, reported)
  }

  readonly progress = (call: CircuitAdmission): void => {
    call.progressAt = this.now()
    if (call.circuit !== undefined) this.local.progress(call)
  }

  // ---------- circuits

  readonly look = (key: string, call?: CircuitAdmission): Effect.Effect<CircuitOpen | undefined> =>
    Effect.suspend(() => {
      const cached = this.cache.use(key)
      return Effect.match(this.current(cached, call), {
        onSuccess: (snapshot) => snapshot,
        onFailure: () => {
          this.adopt(cached)
          return this.local.read(key)
        }
      })
    }).pipe(Effect.map((snapshot) => {
      const refused = refusalOf(this.atPresent(snapshot, this.cache.get(key)), this.settings.policy)
      if (refused === undefined || isWithinProbe(key, snapshot.generation)) return undefined
      const open = this.refuse(refused)
      this.noteRetry(refused, open)
      return open
    }))

  // These three are about a circuit, not about a call, and need the store's answer. So they end the rest of the client.

  readonly read = (key: string): Effect.Effect<Snapshot, StoreError> =>
    Effect.suspend(() => {
      this.client.wake()
      return this.readNow(this.cache.use(key))
    })

  readonly list = (
    after: string | undefined,
    limit: number
  ): Effect.Effect<ReadonlyArray<Snapshot>, StoreError> =>
    Effect.suspend(() => {
      this.client.wake()
      const { window } = this.settings.policy
      return this.client.request("list", () => this.store.list({ after, limit, window }), areSnapshots)
    })

  readonly set = (key: string, to: Target): Effect.Effect<void, StoreError> => this.trySet(key, to, maxTriesByHand)

  private trySet(key: string, to: Target, tries: number): Effect.Effect<void, StoreError> {
    return Effect.suspend(() => {
      this.client.wake()
      const cached = this.cache.use(key)
      return Effect.flatMap(
        this.readNow(cached),
        (snapshot) =>
          Effect.flatMap(this.transition(cached, snapshot, to), (answer) => {
            if (answer.ok) return Effect.void
            return tries > 0 ? this.trySet(key, to, tries - 1) : Effect.fail(alwaysMoved)
          })
      )
    })
  }

  // ---------- admission

  private admit(
    call: CircuitAdmission,
    cached: CachedCircuit,
    snapshot: Snapshot,
    tries = maxTries
  ): Effect.Effect<void, CircuitOpen | StoreError> {
    const { policy } = this.settings
    const move = decide(policy, snapshot, undefined)
    if (move === undefined || tries === 0) return this.admitBy(call, cached, snapshot)
    // The process that should have made the move died, or lost the store.
    return Effect.flatMap(
      this.move(cached, snapshot, move, call),
      (answer) =>
        answer.ok || decide(policy, answer.snapshot, undefined) === undefined
          ? this.admitBy(call, cached, answer.snapshot)
          : this.admit(call, cached, answer.snapshot, tries - 1)
    )
  }

  private admitBy(
    call: CircuitAdmission,
    cached: CachedCircuit,
    snapshot: Snapshot
  ): Effect.Effect<void, CircuitOpen | StoreError> {
    const answered = answer(snapshot.control, snapshot.now)
    call.generation = snapshot.generation
    switch (answered._tag) {
      case "Admitted":
        return this.publishAdmitted(call, false)
      case "Ramp":
        return this.random() < answered.probability
          ? this.publishAdmitted(call, false)
          : this.refused(snapshot, answered.retryAfterMillis)
      case "Probe":
        return this.admitProbe(call, cached, snapshot)
      case "Refused":
        return this.refused(snapshot, answered.retryAfterMillis)
    }
  }

  private admitProbe(
    call: CircuitAdmission,
    cached: CachedCircuit,
    snapshot: Snapshot
  ): Effect.Effect<void, CircuitOpen | StoreError> {
    const { heartbeatMillis, policy: { probes, window }, probeLeaseMillis } = this.settings
    const { generation, key } = snapshot
    if (isWithinProbe(key, generation)) return this.publishAdmitted(call, false)
    const hasSlot = snapshot.probing + snapshot.evidence.ring.length < probes || snapshot.leaseMillis <= 0
    // Callers retry together when the open time has elapsed. At most as many requests as there are slots go to the store.
    if (cached.leasing >= probes || !hasSlot) {
      return this.refused(snapshot, retryAfterProbesMillis(snapshot.control, snapshot.leaseMillis))
    }
    const id = this.nextId()
    const ttlMillis = Math.min(heartbeatMillis, probeLeaseMillis)
    cached.leasing++
    const leased = this.request(
      cached,
      "lease",
      () => this.store.lease({ key, window, generation, id, limit: probes, ttlMillis }),
      call
    )
    return Effect.flatMap(
      Effect.onExitPrimitive(leased, (exit) => {
        cached.leasing--
        if (exit._tag === "Failure") this.giveBack(cached, generation, id, ttlMillis)
        return undefined
      }),
      (answered): Effect.Effect<void, CircuitOpen | StoreError> => {
        if (answered.ok) {
          call.lease = id
          if (cached.probedIn !== generation) {
            cached.probedIn = generation
            this.journal.probed(key, snapshot.control, answered.snapshot.now)
          }
          this.keepRenewing(call, cached, id, ttlMillis)
          return this.publishAdmitted(call, true)
        }
        // Another process was first: the circuit has moved, or the slot is taken.
        const { control, leaseMillis, now } = answered.snapshot
        return answer(control, now)._tag === "Probe"
          ? this.refused(answered.snapshot, retryAfterProbesMillis(control, leaseMillis))
          : this.admitBy(call, cached, answered.snapshot)
      }
    )
  }

  // The reply was lost, but the store may have granted the slot, which would stay unused until it expires.
  private giveBack(cached: CachedCircuit, generation: number, id: string, ttlMillis: number): void {
    const { key } = cached
    const free = this.request(
      cached,
      "record",
      () => this.store.record({ key, window: this.settings.policy.window, generation, lease: id, samples: "" })
    )
    this.fork(Effect.ignore(Effect.retry(Effect.delay(free, Duration.millis(giveBackMillis)), {
      times: Math.ceil(ttlMillis / giveBackMillis)
    })))
  }

  // A slot is kept while its process lives and its call makes progress.
  private keepRenewing(call: CircuitAdmission, cached: CachedCircuit, id: string, ttlMillis: number): void {
    const { policy: { probes, window }, probeLeaseMillis } = this.settings
    const { generation, key } = call
    const renew: Effect.Effect<void> = Effect.suspend(() => {
      const left = call.progressAt + probeLeaseMillis - this.now()
      if (left <= 0) return Effect.void
      const renewed = this.request(
        cached,
        "lease",
        () => this.store.lease({ key, window, generation, id, limit: probes, ttlMillis: Math.min(ttlMillis, left) })
      )
      // The end of the call waits for it: a renewal that arrives after the slot was freed would take it again.
      return Effect.andThen(Effect.uninterruptible(Effect.ignore(renewed)), again)
    })
    const again = Effect.delay(renew, Duration.millis(Math.max(1, Math.floor(ttlMillis / 3))))
    call.stopRenewing = Fiber.interrupt(this.fork(again))
  }

  private refused(snapshot: Snapshot, retryAfterMillis: number): Effect.Effect<never, CircuitOpen> {
    this.journal.refused++
    const { control, key, now } = snapshot
    const because = control._tag === "Open" ? control.because : tally(snapshot, this.settings.policy)
    const open = this.refuse({ key, control, now, retryAfterMillis, because })
    this.noteRetry(snapshot, open)
    if (this.journal.decisions.hasReaders) {
      const { retryAfter, state } = open
      this.journal.decisions.publish({ _tag: "Refused", key, state, retryAfter, at: this.now() })
    }
    return Effect.fail(open)
  }

  // A caller that retries after its `retryAfter` must not be refused again by the same snapshot, so the circuit is read again then.
  // A running opening needs no such read: once it has elapsed, the caller asks the store for a probe slot.
  private noteRetry({ control, key, now }: Pick<Snapshot, "control" | "key" | "now">, open: CircuitOpen): void {
    const cached = this.cache.get(key)
    if (cached === undefined || (control._tag === "Open" && now < control.until)) return
    cached.retryAt = Math.min(cached.retryAt, this.now() + Duration.toMillis(open.retryAfter))
  }

  // ---------- transitions

  /** Makes the move that the snapshot requires. If another process was first, decides again on the new snapshot. */
  private follow(
    cached: CachedCircuit,
    snapshot: Snapshot,
    hint: OutcomeHint | undefined,
    tries = maxTries
  ): Effect.Effect<void, StoreError> {
    const move = decide(this.settings.policy, snapshot, hint)
    if (move === undefined || tries === 0) return this.publishWouldOpen(snapshot)
    return Effect.flatMap(
      this.move(cached, snapshot, move),
      (answer) =>
        answer.ok ? Effect.void : this.follow(cached, answer.snapshot, lateHint(hint, answer.snapshot), tries - 1)
    )
  }

  private move(
    cached: CachedCircuit,
    from: Snapshot,
    move: Move,
    call?: CircuitAdmission
  ): Effect.Effect<Answer, StoreError> {
    const { openMillis, policy } = this.settings
    return this.transition(cached, from, targetOf(policy, move, openMillis), call)
  }

  private transition(
    cached: CachedCircuit,
    from: Snapshot,
    to: Target,
    call?: CircuitAdmission
  ): Effect.Effect<Answer, StoreError> {
    const { generation, key } = from
    const by = this.nextId()
    const answered = this.request(
      cached,
      "transition",
      () => this.store.transition({ key, window: this.settings.policy.window, generation, by, to }),
      call
    )
    return Effect.map(answered, (answer) => {
      if (answer.ok) {
        const { control, now } = from
        this.journal.moved(key, stateName(control, now), tally(from, this.settings.policy), to, answer.snapshot.now)
      }
      return answer
    })
  }

  // ---------- the store

  /** The cached snapshot, as of now. Read from the store if there is none, or it is stale. */
  private current(cached: CachedCircuit, call?: CircuitAdmission): Effect.Effect<Snapshot, StoreError> {
    if (this.client.isResting) return Effect.fail(resting)
    const { reading, snapshot } = cached
    const mustRead = this.now() >= cached.retryAt
    if (mustRead && reading !== undefined) return this.currentAfter(cached, reading, call)
    const isUsable = snapshot !== undefined && !mustRead &&
      (reading !== undefined || (!this.client.isDown && this.isFresh(this.now() - cached.receivedAt)))
    return isUsable ? Effect.succeed(this.atPresent(snapshot, cached)) : this.readNow(cached, call)
  }

  // Callers that were refused together retry together. One of them reads, and the others wait for its answer.
  private currentAfter(
    cached: CachedCircuit,
    reading: Deferred.Deferred<void>,
    call: CircuitAdmission | undefined
  ): Effect.Effect<Snapshot, StoreError> {
    const { storeTimeoutMillis } = this.settings
    const tooLate = Effect.flatMap(
      Effect.sleep(Duration.millis(Math.max(0, Math.min(storeTimeoutMillis, this.leftMillis(call))))),
      () => Effect.fail(outOfTime)
    )
    const read = this.billed(Effect.raceFirst(Deferred.await(reading), tooLate), call)
    return Effect.flatMap(read, () => this.current(cached, call))
  }

  // A negative age means that the clock was set back, and the real age is unknown.
  private isFresh(ageMillis: number): boolean {
    return ageMillis >= 0 && ageMillis < this.settings.stalenessMillis
  }

  private readNow(cached: CachedCircuit, call?: CircuitAdmission): Effect.Effect<Snapshot, StoreError> {
    const { key } = cached
    const reading = Deferred.makeUnsafe<void>()
    const requested = Effect.suspend(() => {
      cached.reading = reading
      return this.request(
        cached,
        "read",
        () =>
          Effect.map(
            this.store.read({ key, window: this.settings.policy.window }),
            (snapshot) => ({ ok: true, snapshot })
          ),
        call
      )
    })
    const read = Effect.onExitPrimitive(requested, () => {
      if (cached.reading === reading) cached.reading = undefined
      return Deferred.succeed(reading, undefined)
    })
    return Effect.map(read, ({ snapshot }) => snapshot)
  }

  /** A cached snapshot, with the time added that has passed since it was received. */
  private atPresent(snapshot: Snapshot, cached: CachedCircuit | undefined): Snapshot {
    if (cached?.snapshot !== snapshot) return snapshot
    const passed = Math.max(0, this.now() - cached.receivedAt)
    if (passed === 0) return snapshot
    const leaseMillis = Math.max(0, snapshot.leaseMillis - passed)
    return { ...snapshot, leaseMillis, now: snapshot.now + passed }
  }

  private request(
    cached: CachedCircuit,
    operation: "lease" | "read" | "record" | "transition",
    verb: () => Effect.Effect<Answer, StoreError>,
    call?: CircuitAdmission
  ): Effect.Effect<Answer, StoreError> {
    return Effect.suspend(() => {
      const number = ++cached.requested
      const requested = this.client.request(operation, verb, isAnswer, this.leftMillis(call))
      return Effect.map(this.billed(requested, call), (answer) => {
        if (number > cached.applied) {
          cached.applied = number
          cached.snapshot = answer.snapshot
          cached.receivedAt = this.now()
          cached.retryAt = Number.POSITIVE_INFINITY
        }
        return answer
      })
    })
  }

  /** The time that the store may still delay the call. A request without a call has the whole timeout. */
  private leftMillis(call: CircuitAdmission | undefined): number {
    return this.settings.storeTimeoutMillis - (call?.storeMillis ?? 0)
  }

  /** Adds the duration of the effect to the time that its call has waited for the store. */
  private billed<A>(
    self: Effect.Effect<A, StoreError>,
    call: CircuitAdmission | undefined
  ): Effect.Effect<A, StoreError> {
    if (call === undefined) return self
    const startedAt = this.now()
    return Effect.onExitPrimitive(self, () => {
      call.storeMillis = (call.storeMillis ?? 0) + Math.max(0, this.now() - startedAt)
      return undefined
    })
  }

  // The call does not need the result of the report. So it waits only for as long as the store may still delay it. The report
  // continues in the background, with the whole timeout for each request.
  private waitInTime(call: CircuitAdmission, report: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.withFiber((caller) => {
      const reporting = Effect.runForkWith(caller.context)(report)
      const leftMillis = this.leftMillis(call)
      return reporting.pollUnsafe() !== undefined || leftMillis <= 0
        ? Effect.void
        : Effect.raceFirst(Fiber.join(reporting), Effect.sleep(Duration.millis(leftMillis)))
    })
  }

  // The circuit of this process starts from the last state of the shared one. Until that moves, it keeps its own evidence
  // from while the store was down.
  private adopt(cached: CachedCircuit): void {
    if (cached.snapshot === undefined || cached.adopted === cached.snapshot.generation) return
    cached.adopted = cached.snapshot.generation
    const { control, now } = this.atPresent(cached.snapshot, cached)
    this.local.adopt(cached.key, shifted(control, this.now() - now))
  }

  private fork(effect: Effect.Effect<void>): Fiber.Fiber<void> {
    return Fiber.runIn(Effect.runForkWith(this.context)(effect), this.scope)
  }

  // ---------- events

  private publishAdmitted({ key }: CircuitAdmission, isProbe: boolean): Effect.Effect<void> {
    if (this.journal.decisions.hasReaders) {
      this.journal.decisions.publish({ _tag: "Admitted", key, isProbe, at: this.now() })
    }
    return Effect.void
  }

  private publishCounted({ key }: CircuitAdmission, outcome: Outcome, counted: boolean): Effect.Effect<void> {
    if (this.journal.decisions.hasReaders) {
      this.journal.decisions.publish({ _tag: "Counted", key, outcome: outcome._tag, counted, at: this.now() })
    }
    return Effect.void
  }

  private publishWouldOpen(snapshot: Snapshot): Effect.Effect<void> {
    const { control, key, now } = snapshot
    if (control._tag === "Forced" && control.mode === "ObserveOnly" && this.journal.decisions.hasReaders) {
      const evidence = tripped(this.settings.policy, snapshot)
      if (evidence !== undefined) this.journal.decisions.publish({ _tag: "WouldOpen", key, evidence, at: now })
    }
    return Effect.void
  }

  private now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }
}

/** A late outcome does not count, but its hint can lengthen an opening. */
const lateHint = (hint: OutcomeHint | undefined, { control, now }: Snapshot): OutcomeHint | undefined =>
  control._tag === "Open" && now < control.until ? hint : undefined

const alwaysMoved = withoutStack(() =>
  new StoreError({ operation: "transition", description: "another process moved the circuit at every try" })
)
