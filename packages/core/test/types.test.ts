/** The inferred types of the public API, checked by the compiler. The tests run the checked code. */
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import type * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Outcome from "@sluice/core/Outcome"
import * as Pipeline from "@sluice/core/Pipeline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Layer, Option, type Schedule, type Scope, Stream } from "effect"
import type { Equal } from "./support/types.ts"

/** Asserts the exact type of an expression and returns the expression. */
const typed =
  <Expected>() => <Actual>(actual: Actual & (Equal<Actual, Expected> extends true ? unknown : never)): Actual => actual

class Db extends Context.Service<Db, { readonly ask: (question: string) => Effect.Effect<string, "db"> }>()("Db") {}
const ask = (question: string) => Db.use((db) => db.ask(question))
const answering = Layer.succeed(Db, { ask: (question) => Effect.succeed(`re: ${question}`) })

type Breaker = CircuitBreaker.CircuitBreaker["Service"]
type Permits = Backpressure.Backpressure["Service"]
type Flights = Deduplicator.Deduplicator["Service"]

describe("the type assertion", () => {
  it("any, unknown and unions do not match the expected type", () => {
    // @ts-expect-error any is not a number
    typed<number>()(JSON.parse("1"))
    // @ts-expect-error unknown is not a number
    typed<number>()(1 as unknown)
    // @ts-expect-error a union is not its member
    typed<number>()(1 as number | string)
    // @ts-expect-error an error channel of any
    typed<Effect.Effect<number, string>>()(Effect.succeed(1) as Effect.Effect<number, ReturnType<typeof JSON.parse>>)
    assert.strictEqual(typed<number>()(1 as number), 1)
  })
})

describe("CircuitBreaker", () => {
  const effects = (breaker: Breaker) => [
    typed<Effect.Effect<string, "db" | CircuitBreaker.CircuitOpen, Db>>()(ask("x").pipe(breaker.guard({ key: "db" }))),
    typed<Effect.Effect<string, "db" | CircuitBreaker.CircuitOpen, Db>>()(breaker.guard(ask("x"), { key: "db" })),
    typed<Effect.Effect<string, "db" | CircuitBreaker.CircuitOpen, Db>>()(ask("x").pipe(breaker.guard())),
    typed<Effect.Effect<string, "db" | CircuitBreaker.CircuitOpen, Db>>()(breaker.guard(ask("x"), {
      classify: (exit) => {
        typed<Exit.Exit<string, "db">>()(exit)
        return undefined
      }
    }))
  ]

  const streams = (breaker: Breaker) => {
    const parts = Stream.mapEffect(Stream.make("a", "b"), ask)
    return [
      typed<Stream.Stream<string, "db" | CircuitBreaker.CircuitOpen, Db>>()(parts.pipe(breaker.guardStream({
        isComplete: (part: string) => part === "re: b"
      }))),
      typed<Stream.Stream<string, "db" | CircuitBreaker.CircuitOpen, Db>>()(breaker.guardStream(parts, {
        isComplete: (part) => typed<string>()(part) === "re: b",
        classify: (exit) => {
          typed<Exit.Exit<void, "db">>()(exit)
          return Outcome.ignored
        }
      }))
    ]
  }

  it.effect("guard adds CircuitOpen to the errors and nothing to the requirements", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.CircuitBreaker
      for (const call of effects(breaker)) assert.strictEqual(yield* call, "re: x")
      for (const stream of streams(breaker)) {
        assert.deepStrictEqual(yield* Stream.runCollect(stream), ["re: a", "re: b"])
      }
      typed<Effect.Effect<void, CircuitBreaker.CircuitOpen>>()(breaker.check("db"))
      typed<Effect.Effect<CircuitBreaker.State, CircuitBreakerStore.StoreError>>()(breaker.state())
    }).pipe(Effect.provide([CircuitBreaker.layer(), answering])))

  it("breaker layers have their requirements and errors in their types", () => {
    typed<Layer.Layer<CircuitBreaker.CircuitBreaker, InvalidOptions, CircuitBreakerStore.CircuitBreakerStore>>()(
      CircuitBreaker.layerStore()
    )
    typed<Layer.Layer<CircuitBreaker.CircuitBreaker, InvalidOptions>>()(CircuitBreaker.layer())
    typed<Layer.Layer<CircuitBreaker.CircuitBreaker>>()(CircuitBreaker.layerNoop)
  })
})

describe("RetryPolicy", () => {
  const policy = RetryPolicy.exponential({ maxAttempts: 2 })

  it.effect("retry keeps every type, data-first and data-last", () =>
    Effect.gen(function*() {
      const calls = [
        typed<Effect.Effect<string, "db", Db>>()(ask("x").pipe(RetryPolicy.retry(policy))),
        typed<Effect.Effect<string, "db", Db>>()(RetryPolicy.retry(ask("x"), policy)),
        typed<Effect.Effect<string, "db", Db>>()(
          ask("x").pipe(RetryPolicy.retry(policy, {
            classify: (exit: Exit.Exit<string, "db">) => Exit.isSuccess(exit) ? undefined : Outcome.ignored
          }))
        ),
        typed<Effect.Effect<string, "db", Db>>()(RetryPolicy.retry(ask("x"), policy, {
          classify: (exit) => {
            typed<Exit.Exit<string, "db">>()(exit)
            return undefined
          }
        }))
      ]
      for (const call of calls) assert.strictEqual(yield* call, "re: x")
      const stream = Stream.mapEffect(Stream.make("x"), ask)
      typed<Stream.Stream<string, "db", Db>>()(stream.pipe(RetryPolicy.retryStream(policy)))
      typed<Stream.Stream<string, "db", Db>>()(RetryPolicy.retryStream(stream, policy))
      typed<Effect.Effect<RetryPolicy.RetryPolicy, InvalidOptions>>()(RetryPolicy.validate(policy))
      typed<Schedule.Schedule<number>>()(RetryPolicy.toSchedule(policy))
      typed<Duration.Duration>()(RetryPolicy.delayFor(policy, 1))
    }).pipe(Effect.provide(answering)))
})

describe("Deadline", () => {
  it.effect("within adds DeadlineExceeded to the errors", () =>
    Effect.gen(function*() {
      const call = typed<Effect.Effect<string, "db" | Deadline.DeadlineExceeded, Db>>()(
        ask("x").pipe(Deadline.within("1 second"))
      )
      assert.strictEqual(yield* call, "re: x")
      typed<Stream.Stream<string, "db" | Deadline.DeadlineExceeded, Db>>()(
        Deadline.withinStream(Stream.mapEffect(Stream.make("x"), ask), "1 second")
      )
    }).pipe(Effect.provide(answering)))
})

describe("Backpressure", () => {
  it.effect("withPermit adds BackpressureShed to the errors", () =>
    Effect.gen(function*() {
      const permits: Permits = yield* Backpressure.Backpressure
      const call = typed<Effect.Effect<string, "db" | Backpressure.BackpressureShed, Db>>()(
        permits.withPermit(ask("x"))
      )
      assert.strictEqual(yield* call, "re: x")
      typed<Stream.Stream<string, "db" | Backpressure.BackpressureShed, Db>>()(
        permits.withPermitStream(Stream.mapEffect(Stream.make("x"), ask))
      )
      typed<Effect.Effect<void, Backpressure.BackpressureShed, Scope.Scope>>()(permits.tryAcquire)
    }).pipe(Effect.provide([Backpressure.layer(), answering])))
})

describe("Deduplicator", () => {
  const Summary = Deduplicator.operation<string, "db">()("summary", {
    key: (input: { readonly text: string }) => input,
    timeToLive: (exit) => Exit.isSuccess(typed<Exit.Exit<string, "db">>()(exit)) ? "1 hour" : 0
  })
  const key = typed<Deduplicator.Key<string, "db">>()(Summary({ text: "x" }))

  it.effect("dedupe keeps the types and provides the effect with a scope", () =>
    Effect.gen(function*() {
      const { claim, dedupe, dedupeStream } = yield* Deduplicator.Deduplicator
      const call = typed<Effect.Effect<string, "db" | Deduplicator.TooManyWaiters, Db>>()(ask("x").pipe(dedupe(key)))
      assert.strictEqual(yield* call, "re: x")
      typed<Effect.Effect<string, "db" | Deduplicator.TooManyWaiters, Db>>()(
        dedupe(Effect.tap(ask("x"), () => Effect.scope), key)
      )
      typed<Stream.Stream<string, "db" | Deduplicator.TooManyWaiters, Db>>()(
        dedupeStream(Stream.mapEffect(Stream.make("x"), ask), key)
      )
      typed<Effect.Effect<Deduplicator.Claim<string, "db">, never, Scope.Scope>>()(claim(key))
    }).pipe(Effect.provide([Deduplicator.layer(), answering])))

  it("a wrong result, error or key input does not compile", () => {
    const wrong = (flights: Flights) => [
      // @ts-expect-error a number under a key of strings
      () => Effect.succeed(1).pipe(flights.dedupe(key)),
      // @ts-expect-error an error that is not in the key's type
      () => flights.dedupe(Effect.fail("network" as const), key),
      // @ts-expect-error not the operation's input
      () => Summary({ words: "x" })
    ]
    assert.strictEqual(wrong.length, 1)
  })
})

describe("Pipeline", () => {
  const trimmed = Pipeline.make<string>("p").pipe(
    Pipeline.stage("trim", (text) => Effect.succeed(typed<string>()(text).trim())),
    Pipeline.stage("ask", ask)
  )
  const counted = trimmed.pipe(
    Pipeline.stage("count", (answer) => Effect.succeed(answer.length), { timeout: "1 second" })
  )
  const nested = Pipeline.make<string>("q").pipe(
    Pipeline.stage("inner", counted),
    Pipeline.stage("format", (n) => Effect.succeed(String(typed<number>()(n))))
  )

  it.effect("a pipeline adds up errors and requirements, and StageTimeout only with a timeout", () =>
    Effect.gen(function*() {
      typed<Pipeline.Pipeline<string, string, "db", Db>>()(trimmed)
      typed<Pipeline.Pipeline<string, number, "db" | Pipeline.StageTimeout, Db>>()(counted)
      typed<Pipeline.Pipeline<string, string, "db" | Pipeline.StageTimeout, Db>>()(nested)
      assert.strictEqual(
        yield* typed<Effect.Effect<number, "db" | Pipeline.StageTimeout, Db>>()(counted(" x ")),
        "re: x".length
      )
      typed<Effect.Effect<number, "db" | Pipeline.StageTimeout, Db>>()(Pipeline.run(counted, "x"))
      typed<Stream.Stream<string, "db" | "input", Db>>()(
        Pipeline.runStream(Stream.make("x") as Stream.Stream<string, "input">, trimmed)
      )
      typed<Stream.Stream<Exit.Exit<string, "db">, "input", Db>>()(
        Pipeline.runStreamExit(Stream.make("x") as Stream.Stream<string, "input">, trimmed)
      )
    }).pipe(Effect.provide(answering)))

  it("a stage that does not fit the one before it does not compile", () => {
    // @ts-expect-error the stage before returns a string
    const wrong = () => trimmed.pipe(Pipeline.stage("double", (n: number) => Effect.succeed(n * 2)))
    assert.isFunction(wrong)
  })
})

describe("Sluice", () => {
  class Gpt extends Sluice.Service<Gpt>()("app/Gpt", { name: "gpt", retry: RetryPolicy.exponential() }) {}
  const Summary = Deduplicator.operation<string, "db">()("summary", {
    key: (input: { readonly text: string }) => input,
    timeToLive: "1 hour"
  })
  const call = (text: string) =>
    Gpt.use((gpt) => ask(text).pipe(gpt.protect({ key: "openai", dedupe: Summary({ text }) })))

  it.effect("protect adds Rejected and AttemptTimeout to the errors, and the policy to the requirements", () =>
    Effect.gen(function*() {
      const protectedCall = typed<Effect.Effect<string, "db" | Sluice.Rejected | Sluice.AttemptTimeout, Gpt | Db>>()(
        call("x")
      )
      assert.strictEqual(yield* protectedCall, "re: x")

      typed<Effect.Effect<number, Sluice.Rejected | Sluice.AttemptTimeout, Gpt>>()(
        Gpt.use((gpt) => gpt.protect(Effect.succeed(1)))
      )
      const [exit, report] = yield* Sluice.withReport(call("x"))
      typed<Exit.Exit<string, "db" | Sluice.Rejected | Sluice.AttemptTimeout>>()(exit)
      typed<Sluice.Report>()(report)
      assert.strictEqual(report.served, "Cached")
    }).pipe(Effect.provide([Gpt.layer, answering])))

  it("a single reason of Rejected can be caught", () => {
    const formatted = call("x").pipe(
      Effect.catchReason(
        "Rejected",
        "CircuitOpen",
        (open) => Effect.succeed(Duration.format(typed<CircuitBreaker.CircuitOpen>()(open).retryAfter))
      )
    )
    typed<Effect.Effect<string, "db" | Sluice.Rejected | Sluice.AttemptTimeout, Gpt | Db>>()(formatted)
  })

  it("a key of another result type does not compile", () => {
    const wrong = () =>
      // @ts-expect-error a number under a key of strings
      Gpt.use((gpt) => Effect.succeed(1).pipe(gpt.protect({ dedupe: Summary({ text: "x" }) })))
    assert.isFunction(wrong)
  })

  it.effect("policy layers have their requirements and errors in their types", () =>
    Effect.gen(function*() {
      typed<Layer.Layer<Gpt, InvalidOptions, CircuitBreakerStore.CircuitBreakerStore>>()(Gpt.layerStore)
      typed<Layer.Layer<Gpt, InvalidOptions>>()(Gpt.layer)
      typed<Layer.Layer<Gpt>>()(Gpt.layerNoop)
      assert.strictEqual(yield* call("x").pipe(Effect.provide([Gpt.layerNoop, answering])), "re: x")
    }))
})

describe("errors", () => {
  type Ours =
    | CircuitBreaker.CircuitOpen
    | CircuitBreakerStore.StoreError
    | Backpressure.BackpressureShed
    | Deadline.DeadlineExceeded
    | Deduplicator.FlightAbandoned
    | InvalidOptions
    | Pipeline.StageTimeout
    | Sluice.Rejected
    | Sluice.AttemptTimeout

  const caught = (call: Effect.Effect<string, Ours>) =>
    typed<Effect.Effect<string>>()(call.pipe(
      Effect.catchTags({
        CircuitOpen: (error) => Effect.succeed(Duration.format(error.retryAfter)),
        StoreError: (error) => Effect.succeed(error.operation),
        BackpressureShed: (error) => Effect.succeed(`${error.running} of ${error.capacity}`),
        DeadlineExceeded: (error) => Effect.succeed(Duration.format(error.budget)),
        FlightAbandoned: (error) => Effect.succeed(error.operation),
        InvalidOptions: (error) => Effect.succeed(error.issues.map((issue) => issue.option).join()),
        StageTimeout: (error) => Effect.succeed(error.stage),
        Rejected: (error) => Effect.succeed(error.reason._tag),
        AttemptTimeout: (error) => Effect.succeed(Duration.format(error.after))
      })
    ))

  it.effect("catching all our tags leaves no error", () =>
    Effect.gen(function*() {
      const shed = new Backpressure.BackpressureShed({
        policy: "gpt",
        why: "Full",
        permits: 1,
        running: 3,
        queued: 0,
        capacity: 3
      })
      assert.strictEqual(yield* caught(Effect.fail(shed)), "3 of 3")
      assert.strictEqual(yield* caught(Effect.fail(new Sluice.Rejected({ reason: shed }))), "BackpressureShed")
      assert.strictEqual(
        yield* caught(Effect.fail(
          new Pipeline.StageTimeout({
            pipeline: "p",
            stage: "ask",
            after: Duration.seconds(1)
          })
        )),
        "ask"
      )
    }))

  it("annotations read from a cause are typed", () => {
    typed<Option.Option<RetryPolicy.RetryStopped["Service"]>>()(RetryPolicy.stopped(causeOf(Exit.fail("503"))))
    typed<Option.Option<Pipeline.FailedStage["Service"]>>()(Pipeline.failedStage(causeOf(Exit.fail("503"))))
    assert.isTrue(Option.isNone(RetryPolicy.stopped(causeOf(Exit.fail("503")))))
  })
})

const causeOf = <E>(exit: Exit.Exit<never, E>) => Option.getOrThrow(Exit.getCause(exit))
