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
import * as Equal from "effect/Equal"
import * as Formatter from "effect/Formatter"
import * as Random from "effect/Random"
import type { Subject } from "../../CircuitBreakerStoreContract.ts"

/** A sentence of the contract that does not hold. */
export interface Broken {
  readonly _tag: "Broken"
  readonly promise: string
  readonly expected: string
  readonly actual: string
}

/** What a check is made of: it asks the store, and fails at the first sentence that does not hold. */
export type Body = (bench: Bench) => Effect.Effect<void, Broken | StoreError>

/** Checks by their names. */
export type Bodies = { readonly [name: string]: Body }

/** So many outcomes, and no buckets. */
export const ring = (calls: number): Window => ({ calls, bucketMillis: 0, buckets: 0 })

/** For what must last as long as a check does, on whatever machine. */
export const long = 600_000

/** For what must be over soon: a test waits for it, where the store's time is real. */
export const short = 25

export const expect = (promise: string, actual: unknown, expected: unknown): Effect.Effect<void, Broken> =>
  Equal.equals(actual, expected) ? Effect.void : broken(promise, Formatter.format(actual), Formatter.format(expected))

/** For what is not one value: says in words what is expected. */
export const expectThat = (
  promise: string,
  holds: boolean,
  actual: unknown,
  expected: string
): Effect.Effect<void, Broken> => holds ? Effect.void : broken(promise, Formatter.format(actual), expected)

const broken = (promise: string, actual: string, expected: string): Effect.Effect<never, Broken> =>
  Effect.fail({ _tag: "Broken", promise, expected: brief(expected), actual: brief(actual) })

const brief = (text: string): string =>
  text.length <= 2_000 ? text : `${text.slice(0, 2_000)}... (${text.length} characters)`

/** A snapshot without what passes by itself. */
export const lasting = ({ leaseMillis: _, now: __, ...snapshot }: Snapshot): Omit<Snapshot, "leaseMillis" | "now"> =>
  snapshot

/** What a check works with. */
export interface Bench {
  readonly store: CircuitBreakerStore["Service"]
  readonly sleep: Subject["sleep"]
  readonly forget: Subject["forget"]
  /** What the keys of this check begin with, and no other key of the store. It is none of them itself. */
  readonly prefix: string
  /** A circuit of this check, seen through a window. */
  readonly circuit: (options?: { readonly suffix?: string; readonly window?: Window }) => Circuit
}

export const benchOf = (subject: Subject): Effect.Effect<Bench> =>
  // On a clock that stands at 0 a duration looks like a time.
  Effect.map(Effect.andThen(subject.sleep(3), freshPrefix), (prefix) => ({
    store: subject.store,
    sleep: subject.sleep,
    forget: subject.forget,
    prefix,
    circuit: ({ suffix = "a", window = ring(10) } = {}) => new Circuit(subject, prefix + suffix, window)
  }))

/** Always of the same length, so that none is the beginning of another. */
export const freshPrefix: Effect.Effect<string> = Effect.map(
  Random.nextIntBetween(16 ** 11, 16 ** 12, { halfOpen: true }),
  (number) => `contract-${number.toString(16)}-`
)

/** One circuit of a store, with the arguments that are mostly the same left out. */
export class Circuit {
  readonly key: string
  private readonly subject: Subject
  private readonly window: Window

  constructor(subject: Subject, key: string, window: Window) {
    this.subject = subject
    this.key = key
    this.window = window
  }

  through(window: Window): Circuit {
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

  /** The generation of a circuit that is closed, in its first generation. */
  get fresh(): Effect.Effect<number, StoreError> {
    return Effect.map(this.record(0, "0"), ({ snapshot }) => snapshot.generation)
  }

  /** The generation of a circuit that is open and whose time is over. */
  get halfOpen(): Effect.Effect<number, StoreError> {
    return Effect.map(this.open(0, "half-open", 0), ({ snapshot }) => snapshot.generation)
  }

  /** Lets time pass until the store's clock shows `at`, and tells what stands then. */
  waitUntil(at: number): Effect.Effect<Snapshot, Broken | StoreError> {
    return Effect.gen({ self: this }, function*() {
      let snapshot = yield* this.read
      for (let naps = 0; snapshot.now < at && naps < 100; naps++) {
        yield* this.subject.sleep(at - snapshot.now)
        snapshot = yield* this.read
      }
      yield* expectThat("the store's time passes", snapshot.now >= at, snapshot.now, `at least ${at}`)
      return snapshot
    })
  }
}

/** The time at which an open circuit lets probes through. */
export const untilOf = ({ control }: Snapshot): Effect.Effect<number, Broken> =>
  control._tag === "Open"
    ? Effect.succeed(control.until)
    : broken("`transition` to `Open` opens", control._tag, "Open")
