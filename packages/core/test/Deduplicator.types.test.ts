import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Context, Duration, Effect, Exit, Schema, Stream } from "effect"
import * as Deduplicator from "../src/Deduplicator.ts"
import { type Equal, typesAre } from "./support/types.ts"

class Model
  extends Context.Service<Model, { readonly ask: (text: string) => Effect.Effect<string, "busy"> }>()("Model")
{}
class Refused {
  readonly _tag = "Refused"
}

const Summary = Deduplicator.operation<string, "busy">()("summary", {
  key: (input: { readonly text: string }) => input,
  timeToLive: (exit) => Exit.isSuccess(exit) && exit.value.length > 0 ? "1 hour" : Duration.zero
})
const Dated = Deduplicator.operation<Date, "busy">()("dated", {
  key: (input: { readonly text: string }) => input,
  success: Schema.DateFromString,
  error: Schema.Literal("busy")
})
const Count = Deduplicator.operation<number>()("count", { key: (input: string) => input })
const key = Summary({ text: "x" })

// Compiled, never run. A wrong type fails the type check.
const compiled = ({ claim, dedupe, dedupeStream }: Deduplicator.Deduplicator["Service"]) => {
  const asked = Model.use((model) => model.ask("x")).pipe(dedupe(key))
  typesAre<Equal<typeof asked, Effect.Effect<string, "busy" | Deduplicator.TooManyWaiters, Model>>>()

  const dataFirst = dedupe(Model.use((model) => model.ask("x")), key)
  typesAre<Equal<typeof dataFirst, Effect.Effect<string, "busy" | Deduplicator.TooManyWaiters, Model>>>()

  const scoped = dedupe(Effect.as(Effect.acquireRelease(Effect.void, () => Effect.void), "x"), key)
  typesAre<Equal<typeof scoped, Effect.Effect<string, "busy" | Deduplicator.TooManyWaiters>>>()

  const read = Stream.make("a", "b").pipe(dedupeStream(key))
  typesAre<Equal<typeof read, Stream.Stream<string, "busy" | Deduplicator.TooManyWaiters>>>()

  const claimed = claim(key)
  typesAre<Equal<typeof claimed, Effect.Effect<Deduplicator.Claim<string, "busy">, never, Scope.Scope>>>()

  const awaited = Effect.flatMap(claimed, (found) => found._tag === "InProgress" ? found.await : Effect.succeed("x"))
  typesAre<Equal<Effect.Error<typeof awaited>, "busy" | Deduplicator.FlightAbandoned | Deduplicator.TooManyWaiters>>()

  return [
    // @ts-expect-error a number under a key of strings
    dedupe(Effect.succeed(1), key),
    // @ts-expect-error the same, data last
    Effect.succeed(1).pipe(dedupe(key)),
    // @ts-expect-error a failure that joining callers do not expect
    dedupe(Effect.fail(new Refused()), key),
    // @ts-expect-error a key with wider results than its operation
    (wider: Deduplicator.Key<string | number, "busy"> = key) => wider,
    // @ts-expect-error a key with narrower results
    (narrower: Deduplicator.Key<"x", "busy"> = key) => narrower,
    // @ts-expect-error a stream of numbers under a key of strings
    dedupeStream(Stream.make(1), key),
    // @ts-expect-error an input that the operation does not take
    Count(1),
    // @ts-expect-error an operation that has no codec for its result
    dump(Summary),
    // @ts-expect-error the same
    restore(Count, []),
    Deduplicator.operation<number>()("wrong codec", {
      key: (input: string) => input,
      // @ts-expect-error a codec of another type
      success: Schema.String
    })
  ]
}

describe("Deduplicator types", () => {
  it("the input of an operation and the result of its key are inferred", () => {
    typesAre<Equal<typeof key, Deduplicator.Key<string, "busy">>>()
    typesAre<Equal<Parameters<typeof Count>, [input: string]>>()
    typesAre<Equal<Parameters<typeof Dated>, [input: { readonly text: string }]>>()
    typesAre<Equal<ReturnType<typeof Dated>, Deduplicator.Key<Date, "busy">>>()
    assert.isFunction(compiled)
  })
})
