/** The inferred types of a policy, checked by the compiler. */
import type { QuotaExceeded } from "@sluice/core/Quota"
import type { BackpressureShed } from "@sluice/core/Backpressure"
import type { CircuitOpen } from "@sluice/core/CircuitBreaker"
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type { DeadlineExceeded } from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, type Layer, type Scope, Stream } from "effect"
import { type Equal, typesAre } from "./support/types.ts"

class Db extends Context.Service<Db, { readonly ask: (question: string) => Effect.Effect<string, "db"> }>()("Db") {}
class Gpt extends Sluice.Service<Gpt>()("app/Gpt", { name: "gpt", retry: RetryPolicy.exponential() }) {}
class Claude extends Sluice.Service<Claude>()("app/Claude", { name: "claude" }) {}

const ask = (text: string) => Db.use((db) => db.ask(text))
const parts = (text: string) => Stream.fromEffect(ask(text))
const Summary = Deduplicator.operation<string, "db">()("summary", {
  key: (input: { readonly text: string }) => input,
  timeToLive: (exit) => Exit.isSuccess(exit) ? "1 hour" : 0
})
const dedupe = Summary({ text: "x" })

type Ours = Sluice.Rejected | Sluice.AttemptTimeout

// Compiled, never run. A wrong type fails the type check.
const compiled = (gpt: Sluice.Sluice) => {
  const last = ask("x").pipe(gpt.protect({ key: "openai", dedupe }))
  typesAre<Equal<typeof last, Effect.Effect<string, "db" | Ours, Db>>>()

  const first = gpt.protect(ask("x"), {
    dedupe,
    classify: (exit) => {
      typesAre<Equal<typeof exit, Exit.Exit<string, "db">>>()
      return undefined
    }
  })
  typesAre<Equal<typeof first, Effect.Effect<string, "db" | Ours, Db>>>()

  const bare = gpt.protect(Effect.succeed(1))
  typesAre<Equal<typeof bare, Effect.Effect<number, Ours>>>()

  const nothing = Effect.succeed(1).pipe(gpt.protect())
  typesAre<Equal<typeof nothing, Effect.Effect<number, Ours>>>()

  const streamLast = parts("x").pipe(gpt.protectStream({ dedupe, isComplete: (part: string) => part === "." }))
  typesAre<Equal<typeof streamLast, Stream.Stream<string, "db" | Ours, Db>>>()

  const streamFirst = gpt.protectStream(parts("x"), {
    isComplete: (part) => {
      typesAre<Equal<typeof part, string>>()
      return part === "."
    },
    classify: (exit) => {
      typesAre<Equal<typeof exit, Exit.Exit<void, "db">>>()
      return undefined
    }
  })
  typesAre<Equal<typeof streamFirst, Stream.Stream<string, "db" | Ours, Db>>>()

  const reported = Sluice.withReport(last)
  typesAre<
    Equal<
      typeof reported,
      Effect.Effect<readonly [exit: Exit.Exit<string, "db" | Ours>, report: Sluice.Report], never, Db>
    >
  >()

  const both = Effect.all([
    Gpt.use((policy) => policy.protect(ask("x"))),
    Claude.use((policy) => policy.protect(ask("y")))
  ])
  typesAre<Equal<Effect.Services<typeof both>, Gpt | Claude | Db>>()

  return [
    // @ts-expect-error a number under a key of strings
    gpt.protect(Effect.succeed(1), { dedupe }),
    // @ts-expect-error the same, data last
    Effect.succeed(1).pipe(gpt.protect({ dedupe })),
    // @ts-expect-error a failure that joining callers do not expect
    gpt.protect(Effect.fail("network" as const), { dedupe }),
    // @ts-expect-error a stream of numbers under a key of strings
    gpt.protectStream(Stream.make(1), { dedupe }),
    // @ts-expect-error a classifier of another result type
    gpt.protect(Effect.succeed(1), { classify: (_: Exit.Exit<string>) => undefined })
  ]
}

const caught = (call: Effect.Effect<string, Ours>) => {
  const tags = call.pipe(Effect.catchTags({
    Rejected: (error) => {
      typesAre<
        Equal<
          typeof error.reason,
          CircuitOpen | BackpressureShed | QuotaExceeded | DeadlineExceeded | Deduplicator.TooManyWaiters
        >
      >()
      return Effect.succeed(error.reason._tag)
    },
    AttemptTimeout: (error) => Effect.succeed(Duration.format(error.after))
  }))
  typesAre<Equal<Effect.Error<typeof tags>, never>>()

  const reasons = call.pipe(Effect.catchReason("Rejected", "CircuitOpen", (open) => {
    typesAre<Equal<typeof open, CircuitOpen>>()
    return Effect.succeed(Duration.format(open.retryAfter))
  }))
  typesAre<Equal<Effect.Error<typeof reasons>, Ours>>()
  return [tags, reasons] as const
}

describe("Sluice types", () => {
  it("the types of calls, streams and reports are inferred, data-first and data-last", () => {
    assert.isFunction(compiled)
  })

  it.effect("catching both tags of a policy leaves no error", () =>
    Effect.gen(function*() {
      const timeout = new Sluice.AttemptTimeout({ after: Duration.seconds(5) })
      assert.strictEqual(yield* caught(Effect.fail(timeout))[0], "5s")
    }))

  it("constructors and layers have their requirements and errors in their types", () => {
    typesAre<
      Equal<
        ReturnType<typeof Sluice.make>,
        Effect.Effect<Sluice.Sluice, InvalidOptions, CircuitBreakerStore | Scope.Scope>
      >
    >()
    typesAre<Equal<typeof Gpt.layerStore, Layer.Layer<Gpt, InvalidOptions, CircuitBreakerStore>>>()
    typesAre<Equal<typeof Gpt.layer, Layer.Layer<Gpt, InvalidOptions>>>()
    typesAre<Equal<typeof Gpt.layerNoop, Layer.Layer<Gpt>>>()
    typesAre<Equal<typeof Gpt.key, "app/Gpt">>()
    assert.strictEqual(Gpt.key, "app/Gpt")
  })
})
