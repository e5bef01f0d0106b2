import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { CircuitOpen } from "../CircuitBreaker.ts"
import type { Answer, CircuitBreakerStore, Snapshot, Target } from "../CircuitBreakerStore.ts"
import { StoreError } from "../CircuitBreakerStore.ts"
import type { Outcome } from "../Outcome.ts"
import type { CircuitJournal } from "./circuitJournal.ts"
import type { Said, Wish } from "./circuitMachine.ts"
import { admission, decide, sample, tally, target, tripped } from "./circuitMachine.ts"
import type { Passage, Refuse, Settings } from "./circuits.ts"
import { codeOf, nameOf, probeResultMillis, refusalOf, saidBy } from "./circuits.ts"
import type { LocalCircuits } from "./localCircuits.ts"
import type { Linked } from "./lru.ts"
import { Chain } from "./lru.ts"
import { shifted } from "./memoryCircuits.ts"
import { isWithinProbe } from "./probes.ts"
import { stackless } from "./stackless.ts"
import { areSnapshots, isAnswer } from "./storeAnswer.ts"

/** What this process knows of a circuit that others share. */
class Known implements Linked<Known> {
  readonly key: string
  snapshot: Snapshot | undefined = undefined
  /** By this process's clock. */
  receivedAt = 0
  /** Requests are numbered: the answer to an older one says nothing new, whatever its times say. */
  asked = 0
  applied = 0
  isReading = false
  /** The generation whose first probe was let through here. */
  probedIn = 0
  /** Requests for a probe's place that are under way. */
  leasing = 0
  /** The generation that the circuit in this process has taken over. */
  adopted: number | undefined = undefined
  newer: Known | undefined = undefined
  older: Known | undefined = undefined

  constructor(key: string) {
    this.key = key
  }
}

const capacity = 10_000

/** A circuit that others move at the same time is looked at so often, for one call. */
const mostTries = 3

/** A store that did not answer is left alone for so long: it costs one timeout a second, not one for each call. */
const restMillis = 1_000

/** A store of which so many requests neither end nor can be interrupted is not asked again before one does. */
const mostAbandoned = 16

/**
 * A breaker over circuits that other processes share. A call of a closed circuit costs one request, after it; a refusal
 * costs none. While the store does not answer, the circuits in this process stand in for it.
 */
export class SharedCircuits {
  private readonly settings: Settings
  private readonly store: CircuitBreakerStore["Service"]
  private readonly local: LocalCircuits
  private readonly clock: Clock.Clock
  private readonly chance: () => number
  private readonly journal: CircuitJournal
  private readonly refuse: Refuse
  private readonly nextId: () => string
  private readonly context: Context.Context<never>
  private readonly scope: Scope.Scope
  private readonly circuits = new Map<string, Known>()
  private readonly recency = new Chain<Known>()
  private downSince: number | undefined = undefined
  /** Requests that nobody waits for any more, and that have not ended: they could not be interrupted. */
  private abandoned = 0
  private restsUntil = 0

  constructor(options: {
    readonly settings: Settings
    readonly store: CircuitBreakerStore["Service"]
    readonly local: LocalCircuits
    readonly clock: Clock.Clock
    /** A number from 0 to 1. */
    readonly chance: () => number
    readonly journal: CircuitJournal
    readonly refuse: Refuse
    readonly nextId: () => string
    readonly context: Context.Context<never>
    readonly scope: Scope.Scope
  }) {
    this.settings = options.settings
    this.store = options.store
    this.local = options.local
    this.clock = options.clock
    this.chance = options.chance
    this.journal = options.journal
    this.refuse = options.refuse
    this.nextId = options.nextId
    this.context = options.context
    this.scope = options.scope
  }

  /** Lets the call in. Runs uninterruptibly: whoever is let in must leave. */
  enter(passage: Passage): Effect.Effect<void, CircuitOpen> {
    return Effect.suspend(() => {
      const known = this.use(passage.key)
      passage.startedAt = passage.progressAt = this.now()
      return this.current(known).pipe(
        Effect.flatMap((snapshot) => this.admit(passage, known, snapshot)),
        Effect.catchTag("StoreError", () => this.enterLocally(passage, known))
      )
    })
  }

  /** Runs uninterruptibly, once for each call that was let in. */
  leave(passage: Passage, outcome: Outcome, isSlow: boolean): Effect.Effect<void> {
    if (passage.circuit !== undefined) return Effect.sync(() => this.local.leave(passage, outcome, isSlow))
    this.journal.ended(outcome)
    const code = codeOf(outcome, isSlow)
    const said = saidBy(outcome)
    if (code < 0 && passage.lease === undefined && said?.openMillis === undefined) {
      return this.told(passage, outcome, false)
    }
    const known = this.use(passage.key)
    const { generation, key, lease } = passage
    const recorded = this.ask(known, "record", () =>
      this.store.record({
        key,
        window: this.settings.policy.window,
        generation,
        lease,
        samples: code < 0 ? "" : sample(code)
      }))
    return (passage.stopRenewing === undefined ? recorded : Effect.andThen(passage.stopRenewing, recorded)).pipe(
      Effect.flatMap(({ ok, snapshot }) => {
        // The store hears outcomes again: what was seen here without it is over.
        known.adopted = undefined
        return Effect.andThen(
          this.follow(known, snapshot, ok ? said : late(said, snapshot)),
          this.told(passage, outcome, ok && code >= 0)
        )
      }),
      // What the store did not hear is at least known here.
      Effect.catchTag("StoreError", () =>
        Effect.suspend(() => {
          this.adopt(known)
          return this.told(passage, outcome, this.local.observe(key, code, said))
        }))
    )
  }

  /** The call shows that it does not hang: a probe's lease is renewed for longer. */
  progress(passage: Passage): void {
    passage.progressAt = this.now()
    if (passage.circuit !== undefined) this.local.progress(passage)
  }

  /** What a call would be told now. */
  look(key: string): Effect.Effect<CircuitOpen | undefined> {
    return Effect.suspend(() => {
      const known = this.use(key)
      return Effect.match(this.current(known), {
        onSuccess: (snapshot) => snapshot,
        onFailure: () => {
          this.adopt(known)
          return this.local.read(key)
        }
      })
    }).pipe(Effect.map((snapshot) => {
      const refused = refusalOf(this.atPresent(snapshot, this.circuits.get(key)), this.settings.policy)
      return refused === undefined || isWithinProbe(key, snapshot.generation) ? undefined : this.refuse(refused)
    }))
  }

  read(key: string): Effect.Effect<Snapshot, StoreError> {
    return Effect.suspend(() => {
      this.wake()
      return this.readNow(this.use(key))
    })
  }

  list(after: string | undefined, limit: number): Effect.Effect<ReadonlyArray<Snapshot>, StoreError> {
    return Effect.suspend(() => {
      this.wake()
      return this.bounded(
        "list",
        () => this.store.list({ after, limit, window: this.settings.policy.window }),
        areSnapshots
      )
    })
  }

  /** Sets the circuit to what somebody wishes of it, whoever moves it at the same time. */
  set(key: string, to: Target, tries = mostWishes): Effect.Effect<void, StoreError> {
    return Effect.suspend(() => {
      this.wake()
      const known = this.use(key)
      return Effect.flatMap(
        this.readNow(known),
        (snapshot) =>
          Effect.flatMap(this.transition(known, snapshot, to), (answer) => {
            if (answer.ok) return Effect.void
            return tries > 0 ? this.set(key, to, tries - 1) : Effect.fail(restless)
          })
      )
    })
  }

  private admit(
    passage: Passage,
    known: Known,
    snapshot: Snapshot,
    tries = mostTries
  ): Effect.Effect<void, CircuitOpen | StoreError> {
    const wish = decide(this.settings.policy, snapshot, undefined)
    if (wish !== undefined && tries > 0) {
      // Whoever should have moved it died, or lost the store.
      return Effect.flatMap(
        this.transition(known, snapshot, this.targetOf(wish)),
        (answer) =>
          answer.ok || decide(this.settings.policy, answer.snapshot, undefined) === undefined
            ? this.admitBy(passage, known, answer.snapshot)
            : this.admit(passage, known, answer.snapshot, tries - 1)
      )
    }
    return this.admitBy(passage, known, snapshot)
  }

  private admitBy(passage: Passage, known: Known, snapshot: Snapshot): Effect.Effect<void, CircuitOpen | StoreError> {
    const answer = admission(snapshot.control, snapshot.now)
    passage.generation = snapshot.generation
    switch (answer._tag) {
      case "Admitted":
        return this.toldAdmitted(passage, false)
      case "Ramp":
        return this.chance() < answer.probability
          ? this.toldAdmitted(passage, false)
          : this.refused(snapshot, answer.retryAfterMillis)
      case "Probe":
        return this.admitProbe(passage, known, snapshot)
      case "Refused":
        return this.refused(snapshot, answer.retryAfterMillis)
    }
  }

  // Refused callers who all ask for a place when the time is over: as many requests as there are places, no more.
  private admitProbe(
    passage: Passage,
    known: Known,
    snapshot: Snapshot
  ): Effect.Effect<void, CircuitOpen | StoreError> {
    const { heartbeatMillis, policy: { probes, window }, probeLeaseMillis } = this.settings
    const { generation, key } = snapshot
    if (isWithinProbe(key, generation)) return this.toldAdmitted(passage, false)
    const hasPlace = snapshot.probing + snapshot.evidence.ring.length < probes || snapshot.leaseMillis <= 0
    if (known.leasing >= probes || !hasPlace) {
      return this.refused(snapshot, probeResultMillis(snapshot.control, snapshot.leaseMillis))
    }
    const id = this.nextId()
    const ttlMillis = Math.min(heartbeatMillis, probeLeaseMillis)
    known.leasing++
    const asked = this.ask(
      known,
      "lease",
      () => this.store.lease({ key, window, generation, id, limit: probes, ttlMillis })
    )
    return Effect.flatMap(
      Effect.onExitPrimitive(asked, (exit) => {
        known.leasing--
        if (exit._tag === "Failure") this.giveBack(known, generation, id, ttlMillis)
        return undefined
      }),
      (answer): Effect.Effect<void, CircuitOpen | StoreError> => {
        if (answer.ok) {
          passage.lease = id
          if (known.probedIn !== generation) {
            known.probedIn = generation
            this.journal.probed(key, snapshot.control, answer.snapshot.now)
          }
          this.keepRenewing(passage, known, id, ttlMillis)
          return this.toldAdmitted(passage, true)
        }
        // Somebody was quicker: the circuit has moved, or the place is taken.
        const stands = admission(answer.snapshot.control, answer.snapshot.now)
        if (stands._tag !== "Probe") return this.admitBy(passage, known, answer.snapshot)
        return this.refused(answer.snapshot, probeResultMillis(answer.snapshot.control, answer.snapshot.leaseMillis))
      }
    )
  }

  // The reply was lost, the place perhaps not: nobody would use it, and nobody else could, until it lapses.
  private giveBack(known: Known, generation: number, id: string, ttlMillis: number): void {
    const { key } = known
    const free = this.ask(
      known,
      "record",
      () => this.store.record({ key, window: this.settings.policy.window, generation, lease: id, samples: "" })
    )
    const later = Effect.retry(Effect.delay(free, Duration.millis(restMillis)), {
      times: Math.ceil(ttlMillis / restMillis)
    })
    Fiber.runIn(Effect.runForkWith(this.context)(Effect.ignore(later)), this.scope)
  }

  // A place is kept as long as its holder's process lives and its call does not hang. Who dies is not waited for.
  private keepRenewing(passage: Passage, known: Known, id: string, ttlMillis: number): void {
    const { policy: { probes, window }, probeLeaseMillis } = this.settings
    const { generation, key } = passage
    const renew: Effect.Effect<void> = Effect.suspend(() => {
      const left = passage.progressAt + probeLeaseMillis - this.now()
      if (left <= 0) return Effect.void
      const ttl = Math.min(ttlMillis, left)
      const asked = this.ask(
        known,
        "lease",
        () => this.store.lease({ key, window, generation, id, limit: probes, ttlMillis: ttl })
      )
      // Waited for when the call ends: a renewal that comes after the place was freed would take it again, for nobody.
      return Effect.andThen(Effect.uninterruptible(Effect.ignore(asked)), again)
    })
    const again = Effect.delay(renew, Duration.millis(Math.max(1, Math.floor(ttlMillis / 3))))
    const fiber = Fiber.runIn(Effect.runForkWith(this.context)(again), this.scope)
    passage.stopRenewing = Fiber.interrupt(fiber)
  }

  /** Moves the circuit where its snapshot says so, and looks again at what stands if somebody else was quicker. */
  private follow(
    known: Known,
    snapshot: Snapshot,
    said: Said | undefined,
    tries = mostTries
  ): Effect.Effect<void, StoreError> {
    const wish = decide(this.settings.policy, snapshot, said)
    if (wish === undefined || tries === 0) return this.observe(snapshot)
    return Effect.flatMap(
      this.transition(known, snapshot, this.targetOf(wish)),
      (answer) => answer.ok ? Effect.void : this.follow(known, answer.snapshot, late(said, answer.snapshot), tries - 1)
    )
  }

  private observe(snapshot: Snapshot): Effect.Effect<void> {
    const { control, key, now } = snapshot
    if (control._tag === "Forced" && control.mode === "ObserveOnly" && this.journal.decisions.hasReaders) {
      const evidence = tripped(this.settings.policy, snapshot)
      if (evidence !== undefined) this.journal.decisions.publish({ _tag: "WouldOpen", key, evidence, at: now })
    }
    return Effect.void
  }

  private targetOf(wish: Wish): Target {
    const { openMillis, policy } = this.settings
    return target(policy, wish, wish._tag === "Open" ? openMillis(wish.openings) : 0)
  }

  private transition(known: Known, from: Snapshot, to: Target): Effect.Effect<Answer, StoreError> {
    const { generation, key } = from
    const by = this.nextId()
    const asked = this.ask(
      known,
      "transition",
      () => this.store.transition({ key, window: this.settings.policy.window, generation, by, to })
    )
    return Effect.map(asked, (answer) => {
      if (answer.ok) {
        const { control, now } = from
        this.journal.moved(key, nameOf(control, now), tally(from, this.settings.policy), to, answer.snapshot.now)
      }
      return answer
    })
  }

  /** What is known, as of now; read where nothing is, or where it is old. */
  private current(known: Known): Effect.Effect<Snapshot, StoreError> {
    const now = this.now()
    if (this.downSince !== undefined && this.isResting(now)) return Effect.fail(resting)
    const { snapshot } = known
    const isFresh = snapshot !== undefined &&
      (known.isReading || (this.downSince === undefined && this.isYoung(now - known.receivedAt)))
    return isFresh ? Effect.succeed(this.atPresent(snapshot, known)) : this.readNow(known)
  }

  // What was received in the future was received before the clock was set back: nobody can say how old it is.
  private isYoung(ageMillis: number): boolean {
    return ageMillis >= 0 && ageMillis < this.settings.stalenessMillis
  }

  // A rest that is longer than any is one that began before the clock was set back.
  private isResting(now: number): boolean {
    return now < this.restsUntil && this.restsUntil - now <= restMillis
  }

  private readNow(known: Known): Effect.Effect<Snapshot, StoreError> {
    const { key } = known
    // Behind its finalizer: who is interrupted in between has not begun.
    const asked = Effect.suspend(() => {
      known.isReading = true
      return this.ask(
        known,
        "read",
        () =>
          Effect.map(
            this.store.read({ key, window: this.settings.policy.window }),
            (snapshot) => ({ ok: true, snapshot })
          )
      )
    })
    const read = Effect.onExitPrimitive(asked, () => {
      known.isReading = false
      return undefined
    })
    return Effect.map(read, ({ snapshot }) => snapshot)
  }

  // The store's time goes on while a snapshot lies here.
  private atPresent(snapshot: Snapshot, known: Known | undefined): Snapshot {
    if (known?.snapshot !== snapshot) return snapshot
    const passed = Math.max(0, this.now() - known.receivedAt)
    if (passed === 0) return snapshot
    const leaseMillis = Math.max(0, snapshot.leaseMillis - passed)
    return { ...snapshot, leaseMillis, now: snapshot.now + passed }
  }

  private ask(
    known: Known,
    operation: "lease" | "read" | "record" | "transition",
    verb: () => Effect.Effect<Answer, StoreError>
  ): Effect.Effect<Answer, StoreError> {
    return Effect.suspend(() => {
      const number = ++known.asked
      return Effect.map(this.bounded(operation, verb, isAnswer), (answer) => {
        if (number > known.applied) {
          known.applied = number
          known.snapshot = answer.snapshot
          known.receivedAt = this.now()
        }
        return answer
      })
    })
  }

  /** A request to the store, for so long as a call may be held up by one; and none at all while the store rests. */
  private bounded<A>(
    operation: string,
    verb: () => Effect.Effect<A, StoreError>,
    makesSense: (answer: A) => boolean
  ): Effect.Effect<A, StoreError> {
    return Effect.suspend(() => {
      const now = this.now()
      if (this.downSince !== undefined) {
        if (this.isResting(now) || this.abandoned >= mostAbandoned) return Effect.fail(resting)
        // One caller tries; the others go on without the store meanwhile.
        this.restsUntil = now + restMillis
      }
      const timeout = Effect.flatMap(
        Effect.sleep(Duration.millis(this.settings.storeTimeoutMillis)),
        () => Effect.fail(tooSlow(operation, this.settings.storeTimeoutMillis))
      )
      const asked = Effect.flatMap(
        Effect.raceFirst(this.apart(verb), timeout),
        (answer) => makesSense(answer) ? Effect.succeed(answer) : Effect.fail(nonsense(operation))
      )
      return Effect.matchCauseEffect(asked, {
        onSuccess: (answer) => Effect.as(this.answered(), answer),
        onFailure: (cause) => {
          const error = errorOf(operation, cause)
          return Effect.andThen(this.failed(error), Effect.fail(error))
        }
      })
    })
  }

  // In a fiber of its own, which nobody waits for: a store that cannot be interrupted holds up no call.
  private apart<A>(verb: () => Effect.Effect<A, StoreError>): Effect.Effect<A, StoreError> {
    return Effect.callback<A, StoreError>((resume) => {
      const fiber = Effect.runForkWith(this.context)(Effect.suspend(verb))
      fiber.addObserver(resume)
      return Effect.sync(() => {
        fiber.interruptUnsafe()
        if (fiber.pollUnsafe() !== undefined) return
        this.abandoned++
        fiber.addObserver(() => {
          this.abandoned--
        })
      })
    })
  }

  // Who asks for a circuit, rather than for a call, wants the store's own word and not a rest.
  private wake(): void {
    this.restsUntil = 0
  }

  private answered(): Effect.Effect<void> {
    if (this.downSince === undefined) return Effect.void
    const outage = Duration.format(Duration.millis(this.now() - this.downSince))
    this.downSince = undefined
    return Effect.logInfo(`circuit breaker ${this.settings.name}: the store answers again, after ${outage}`)
  }

  // One warning for each outage. The store's own words go into the log, never the call's.
  private failed(error: StoreError): Effect.Effect<void> {
    this.journal.storeFailures++
    const now = this.now()
    this.restsUntil = now + restMillis
    if (this.downSince !== undefined) return Effect.void
    this.downSince = now
    return Effect.logWarning(
      `circuit breaker ${this.settings.name}: the store failed, calls go on with circuits of this process`,
      error.message
    )
  }

  private enterLocally(passage: Passage, known: Known): Effect.Effect<void, CircuitOpen> {
    this.adopt(known)
    return this.local.enter(passage) ?? Effect.void
  }

  // The circuit in this process begins where the shared one was last seen. As long as that has not moved, what was seen here
  // while the store was away holds.
  private adopt(known: Known): void {
    if (known.snapshot === undefined || known.adopted === known.snapshot.generation) return
    known.adopted = known.snapshot.generation
    const { control, now } = this.atPresent(known.snapshot, known)
    this.local.adopt(known.key, shifted(control, this.now() - now))
  }

  private refused(snapshot: Snapshot, retryAfterMillis: number): Effect.Effect<never, CircuitOpen> {
    this.journal.refused++
    const { control, key, now } = snapshot
    const because = control._tag === "Open" ? control.because : tally(snapshot, this.settings.policy)
    const open = this.refuse({ key, control, now, retryAfterMillis, because })
    if (this.journal.decisions.hasReaders) {
      const { retryAfter, state } = open
      this.journal.decisions.publish({ _tag: "Refused", key, state, retryAfter, at: this.now() })
    }
    return Effect.fail(open)
  }

  private toldAdmitted({ key }: Passage, isProbe: boolean): Effect.Effect<void> {
    if (this.journal.decisions.hasReaders) {
      this.journal.decisions.publish({ _tag: "Admitted", key, isProbe, at: this.now() })
    }
    return Effect.void
  }

  private told({ key }: Passage, outcome: Outcome, counted: boolean): Effect.Effect<void> {
    if (this.journal.decisions.hasReaders) {
      this.journal.decisions.publish({ _tag: "Counted", key, outcome: outcome._tag, counted, at: this.now() })
    }
    return Effect.void
  }

  private use(key: string): Known {
    const known = this.circuits.get(key)
    if (known !== undefined) {
      this.recency.touch(known)
      return known
    }
    const { oldest } = this.recency
    if (this.circuits.size >= capacity && oldest !== undefined) {
      this.recency.remove(oldest)
      this.circuits.delete(oldest.key)
    }
    const made = new Known(key)
    this.circuits.set(key, made)
    this.recency.add(made)
    return made
  }

  private now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }
}

/** A late outcome decides nothing, but its hint may lengthen an opening. */
const late = (said: Said | undefined, { control, now }: Snapshot): Said | undefined =>
  control._tag === "Open" && now < control.until ? said : undefined

const tooSlow = (operation: string, millis: number): StoreError =>
  stackless(() =>
    new StoreError({ operation, description: `no answer within ${Duration.format(Duration.millis(millis))}` })
  )

const nonsense = (operation: string): StoreError =>
  stackless(() => new StoreError({ operation, description: "the store gave an answer that makes no sense" }))

// Who sets a circuit by hand wants it set: others may move it as often before they give way.
const mostWishes = 10

const restless = stackless(() =>
  new StoreError({ operation: "transition", description: "the circuit was moved by others each time" })
)

const resting = stackless(() =>
  new StoreError({ operation: "any", description: "it did not answer within the last second and is left alone" })
)

// A store that dies is down as well.
const errorOf = (operation: string, cause: Cause.Cause<StoreError>): StoreError => {
  const error = Cause.squash(cause)
  return error instanceof StoreError
    ? error
    : stackless(() => new StoreError({ operation, description: "the store died", cause: error }))
}
