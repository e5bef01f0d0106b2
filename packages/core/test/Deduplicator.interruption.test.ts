import { assert, describe, it, vi } from "@effect/vitest"
import { Effect, Exit, Fiber, type Scope, Stream } from "effect"
import * as Deduplicator from "../src/Deduplicator.ts"
import { interruptEverywhere, yields } from "./support/probe.ts"

// Each test makes hundreds of runs, which takes seconds on a busy machine.
vi.setConfig({ testTimeout: 40_000 })

const Ask = Deduplicator.operation<string>()("ask", { key: (text: string) => text })
const key = Ask("a prompt")

/** A deduplicator, and calls that hold a resource while they run. */
interface Subject {
  readonly deduplicator: Deduplicator.Deduplicator["Service"]
  /** The scope of the fibers that are not interrupted. */
  readonly scope: Scope.Scope
  /** Releases its resource through the flight's scope. */
  readonly call: Effect.Effect<string, never, Scope.Scope>
  readonly stream: Stream.Stream<string>
  /** The resources in use. */
  readonly open: () => number
}

const make: Effect.Effect<Subject, never, Scope.Scope> = Effect.gen(function*() {
  let open = 0
  const held = Effect.acquireRelease(
    Effect.sync(() => {
      open++
    }),
    () => Effect.andThen(Effect.yieldNow, Effect.sync(() => open--))
  )
  return {
    deduplicator: yield* Effect.orDie(Deduplicator.make({ timeToLive: 0 })),
    scope: yield* Effect.scope,
    call: Effect.as(Effect.andThen(held, yields(12)), "answer"),
    stream: Stream.unwrap(
      Effect.as(held, Stream.range(1, 4).pipe(Stream.rechunk(1), Stream.mapEffect(() => Effect.as(yields(3), "part"))))
    ),
    open: () => open
  }
})

const ask = ({ call, deduplicator }: Subject) => Effect.orDie(deduplicator.dedupe(call, key))
const read = ({ deduplicator, stream }: Subject) =>
  Effect.orDie(Stream.runCollect(deduplicator.dedupeStream(stream, key)))

/** A subject with another caller, which is not interrupted. */
const makeBeside = <A>(use: (subject: Subject) => Effect.Effect<A>) =>
  Effect.gen(function*() {
    const subject = yield* make
    const other = yield* Effect.forkIn(use(subject), subject.scope, { startImmediately: true })
    return { subject, other }
  })

const isEmpty = ({ deduplicator, open }: Subject, at: string) =>
  Effect.map(
    deduplicator.stats,
    ({ cached, flights, waiting }) =>
      assert.deepStrictEqual(
        { open: open(), flights, waiting, cached },
        { open: 0, flights: 0, waiting: 0, cached: 0 },
        at
      )
  )

interface Use {
  readonly use: (subject: Subject) => Effect.Effect<unknown>
  readonly answer: unknown
}

const uses: { readonly [what: string]: Use } = {
  "a call": { use: ask, answer: "answer" },
  "a stream": { use: read, answer: ["part", "part", "part", "part"] }
}

describe("Deduplicator under interruption", () => {
  for (const [what, { answer, use }] of Object.entries(uses)) {
    it.effect(
      `the only caller of ${what} interrupted anywhere stops the run and leaves nothing behind`,
      () =>
        Effect.gen(function*() {
          const points = yield* interruptEverywhere({ make, run: use, after: isEmpty })
          assert.isAtLeast(points, 300)
        })
    )

    it.effect(`the leader of ${what} interrupted anywhere leaves the flight to the caller that joined`, () => {
      const makeJoinable = Effect.map(make, (subject) => ({ subject, joined: [] as Array<Fiber.Fiber<unknown>> }))
      return interruptEverywhere({
        make: makeJoinable,
        // The joining caller begins when the leader's first turn has ended.
        run: ({ joined, subject }) =>
          Effect.andThen(
            Effect.map(Effect.forkIn(use(subject), subject.scope), (fiber) => joined.push(fiber)),
            use(subject)
          ),
        after: ({ joined, subject }, at) =>
          Effect.gen(function*() {
            for (const fiber of joined) assert.deepStrictEqual(yield* Fiber.await(fiber), Exit.succeed(answer), at)
            yield* isEmpty(subject, at)
          })
      })
    })

    it.effect(`a caller that joined ${what} interrupted anywhere leaves the flight to the leader`, () => {
      const makeLed = makeBeside(use)
      return interruptEverywhere({
        make: makeLed,
        run: ({ subject }) => use(subject),
        after: ({ other, subject }, at) =>
          Effect.gen(function*() {
            assert.deepStrictEqual(yield* Fiber.await(other), Exit.succeed(answer), at)
            assert.strictEqual((yield* subject.deduplicator.stats).led, 1, at)
            yield* isEmpty(subject, at)
          })
      })
    })
  }

  const holding = ({ deduplicator }: Subject) => Effect.scoped(Effect.flatMap(deduplicator.claim(key), complete))
  const awaiting = ({ deduplicator }: Subject) => Effect.scoped(Effect.flatMap(deduplicator.claim(key), waitFor))

  it.effect("the holder of a claim interrupted anywhere releases the claim", () => {
    const makeAwaitable = Effect.map(make, (subject) => ({ subject, waiting: [] as Array<Fiber.Fiber<unknown>> }))
    return interruptEverywhere({
      make: makeAwaitable,
      run: ({ subject, waiting }) =>
        Effect.andThen(
          Effect.map(Effect.forkIn(awaiting(subject), subject.scope), (fiber) => waiting.push(fiber)),
          holding(subject)
        ),
      after: ({ subject, waiting }, at) =>
        Effect.gen(function*() {
          for (const fiber of waiting) yield* Fiber.await(fiber)
          yield* isEmpty(subject, at)
          const again = yield* Effect.scoped(subject.deduplicator.claim(key))
          assert.strictEqual(again._tag, "New", at)
        })
    })
  })

  it.effect("a caller that awaits a claim interrupted anywhere leaves the claim to its holder", () => {
    const makeHeld = makeBeside(holding)
    return interruptEverywhere({
      make: makeHeld,
      run: ({ subject }) => awaiting(subject),
      after: ({ other, subject }, at) =>
        Effect.gen(function*() {
          assert.deepStrictEqual(yield* Fiber.await(other), Exit.succeed(true), at)
          yield* isEmpty(subject, at)
        })
    })
  })
})

/** Completes the lease after some turns. False if the claim has none. */
const complete = (claimed: Deduplicator.Claim<string, never>): Effect.Effect<boolean> =>
  claimed._tag === "New"
    ? Effect.andThen(yields(12), claimed.lease.complete("answer"))
    : Effect.as(yields(12), false)

const waitFor = (claimed: Deduplicator.Claim<string, never>): Effect.Effect<unknown> =>
  claimed._tag === "InProgress" ? Effect.exit(claimed.await) : Effect.void
