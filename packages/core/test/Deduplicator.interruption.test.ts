import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, type Scope, Stream } from "effect"
import * as Deduplicator from "../src/Deduplicator.ts"
import { interruptEverywhere, yields } from "./support/probe.ts"

const Ask = Deduplicator.operation<string>()("ask", { key: (text: string) => text })
const key = Ask("a prompt")

/** A deduplicator, and calls that hold something while they run. */
interface Subject {
  readonly deduplicator: Deduplicator.Deduplicator["Service"]
  /** Where fibers live that are not probed. */
  readonly scope: Scope.Scope
  /** What it holds it gives back through the flight's scope. */
  readonly call: Effect.Effect<string, never, Scope.Scope>
  readonly stream: Stream.Stream<string>
  /** How many of them run. */
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

/** The same, while another caller is there who is not interrupted. */
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
      `the only caller of ${what}, interrupted anywhere, stops the work and leaves nothing`,
      () =>
        Effect.gen(function*() {
          const points = yield* interruptEverywhere({ make, run: use, after: isEmpty })
          assert.isAtLeast(points, 300)
        }),
      30_000
    )

    it.effect(`who leads ${what}, interrupted anywhere, leaves it to who joined`, () => {
      const makeJoinable = Effect.map(make, (subject) => ({ subject, joined: [] as Array<Fiber.Fiber<unknown>> }))
      return interruptEverywhere({
        make: makeJoinable,
        // Who joins begins when the leader's first turn is over.
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
    }, 30_000)

    it.effect(`who joins ${what}, interrupted anywhere, leaves it to who leads`, () => {
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
    }, 30_000)
  }

  const holding = ({ deduplicator }: Subject) => Effect.scoped(Effect.flatMap(deduplicator.claim(key), complete))
  const awaiting = ({ deduplicator }: Subject) => Effect.scoped(Effect.flatMap(deduplicator.claim(key), waitFor))

  it.effect("who holds a claim, interrupted anywhere, gives it back", () => {
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
  }, 30_000)

  it.effect("who awaits a claim, interrupted anywhere, leaves it to who holds it", () => {
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
  }, 30_000)
})

/** Answers through the lease after a while; false where there was none. */
const complete = (claimed: Deduplicator.Claim<string, never>): Effect.Effect<boolean> =>
  claimed._tag === "New"
    ? Effect.andThen(yields(12), claimed.lease.complete("answer"))
    : Effect.as(yields(12), false)

const waitFor = (claimed: Deduplicator.Claim<string, never>): Effect.Effect<unknown> =>
  claimed._tag === "InProgress" ? Effect.exit(claimed.await) : Effect.void
