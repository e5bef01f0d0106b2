import type {
  Answer,
  CircuitBreakerStore,
  Mode,
  Snapshot,
  StoreError,
  Target,
  Window
} from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import type { Subject } from "../../CircuitBreakerStoreContract.ts"
import { type Broken, broken, type CheckBodies as Bodies, expectThat, freshPrefix, long } from "../frame.ts"

export type CheckBodies = Bodies<Fixture>

/** A window of this many calls, without buckets. */
export const ring = (calls: number): Window => ({ calls, bucketMillis: 0, buckets: 0 })

/** Milliseconds that a check waits for. On a store with a real clock that takes as long. */
export const short = 25

/** A snapshot without the fields that change as time passes. */
export const withoutTimes = (
  { leaseMillis: _, now: __, ...snapshot }: Snapshot
): Omit<Snapshot, "leaseMillis" | "now"> => snapshot

/** The store under test, and circuits that only this check uses. */
export interface Fixture {
  readonly store: CircuitBreakerStore["Service"]
  readonly sleep: Subject["sleep"]
  readonly forget: Subject["forget"]
  readonly setBack: Subject["setBack"]
  /** Every key of this check begins with it and is longer. No other key of the store begins with it. */
  readonly prefix: string
  /** A circuit of this check. Default: suffix `a`, a window of 10 calls. */
  readonly circuit: (options?: { readonly suffix?: string; readonly window?: Window }) => Circuit
}

export const makeFixture = (subject: Subject): Effect.Effect<Fixture> =>
  // At time 0 a duration could not be told from a time.
  Effect.map(Effect.andThen(subject.sleep(3), freshPrefix), (prefix) => ({
    store: subject.store,
    sleep: subject.sleep,
    forget: subject.forget,
    setBack: subject.setBack,
    prefix,
    circuit: ({ suffix = "a", window = ring(10) } = {}) => new Circuit(subject, prefix + suffix, window)
  }))

/** The verbs of a store on one circuit, with defaults for the arguments that rarely differ. */
export class Circuit {
  readonly key: string
  private readonly subject: Subject
  private readonly window: Window

  constructor(subject: Subject, key: string, window: Window) {
    this.subject = subject
    this.key = key
    this.window = window
  }

  withWindow(window: Window): Circuit {
    return new Circuit(this.subject, this.key, window)
  }

  get read(): Effect.Effect<Snapshot, StoreError> {
    const { key, window } = this
    return this.subject.store.read({ key, window })
  }

  record(generation: number, samples: string, lease?: string): Effect.Effect<Answer, StoreError> {
    const { key, window } = this
    return this.subject.store.record({ key, window, generation, samples, lease })
  }

  lease(
    generation: number,
    id: string,
    { limit = 1, ttlMillis = long }: { readonly limit?: number; readonly ttlMillis?: number } = {}
  ): Effect.Effect<Answer, StoreError> {
    const { key, window } = this
    return this.subject.store.lease({ key, window, generation, id, limit, ttlMillis })
  }

  transition(generation: number, by: string, to: Target): Effect.Effect<Answer, StoreError> {
    const { key, window } = this
    return this.subject.store.transition({ key, window, generation, by, to })
  }

  open(generation: number, by: string, forMillis: number): Effect.Effect<Answer, StoreError> {
    const because = { calls: 4, failures: 3, slow: 2 }
    return this.transition(generation, by, { _tag: "Open", forMillis, openings: 1, hintMillis: 0, because })
  }

  close(generation: number, by: string): Effect.Effect<Answer, StoreError> {
    return this.transition(generation, by, { _tag: "Closed", rampMillis: 0, openings: 0, lastOpen: 0, reason: "" })
  }

  force(generation: number, by: string, mode: Mode): Effect.Effect<Answer, StoreError> {
    return this.transition(generation, by, { _tag: "Forced", forMillis: 0, mode, reason: "a test" })
  }

  /** Makes the circuit, closed, and returns its first generation. */
  get makeClosed(): Effect.Effect<number, StoreError> {
    return Effect.map(this.record(0, "0"), ({ snapshot }) => snapshot.generation)
  }

  /** Makes the circuit, half-open, and returns its generation. */
  get makeHalfOpen(): Effect.Effect<number, StoreError> {
    return Effect.map(this.open(0, "half-open", 0), ({ snapshot }) => snapshot.generation)
  }

  /** Waits until the store's clock has reached `at`, and returns the snapshot. */
  waitUntil(at: number): Effect.Effect<Snapshot, Broken | StoreError> {
    return Effect.gen({ self: this }, function*() {
      let snapshot = yield* this.read
      for (let sleeps = 0; snapshot.now < at && sleeps < 100; sleeps++) {
        yield* this.subject.sleep(at - snapshot.now)
        snapshot = yield* this.read
      }
      yield* expectThat("the store's time passes", snapshot.now >= at, snapshot.now, `at least ${at}`)
      return snapshot
    })
  }
}

/** When an open circuit admits probes. */
export const untilOf = ({ control }: Snapshot): Effect.Effect<number, Broken> =>
  control._tag === "Open"
    ? Effect.succeed(control.until)
    : broken("a transition to `Open` opens the circuit", control._tag, "Open")
