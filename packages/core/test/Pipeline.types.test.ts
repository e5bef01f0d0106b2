import * as Pipeline from "@sluice/core/Pipeline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Context, Effect, type Exit, Stream } from "effect"

class Db extends Context.Service<Db, { readonly ask: (text: string) => Effect.Effect<string, "db"> }>()("test/Db") {}
class Cache extends Context.Service<Cache, { readonly get: (text: string) => Effect.Effect<string, "miss"> }>()(
  "test/Cache"
) {}

const ask = (text: string) => Db.use((db) => db.ask(text))
const lookUp = (text: string) => Cache.use((cache) => cache.get(text))

const fickle = Pipeline.make<number>("fickle").pipe(
  Pipeline.stage("look", (n) => n === 2 ? Effect.fail("two" as const) : Effect.succeed(n * 10))
)

describe("Pipeline types", () => {
  it("a pipeline adds up errors and requirements, and StageTimeout only with a timeout", () => {
    const plain = Pipeline.make<string>("p").pipe(
      Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
      Pipeline.stage("ask", (text) => Db.use((db) => db.ask(text)))
    )
    expectTypeOf(plain).toEqualTypeOf<Pipeline.Pipeline<string, string, "db", Db>>()

    const timed = plain.pipe(Pipeline.stage("length", (text) => Effect.succeed(text.length), { timeout: "1 second" }))
    expectTypeOf(timed).toEqualTypeOf<Pipeline.Pipeline<string, number, "db" | Pipeline.StageTimeout, Db>>()
    expectTypeOf(timed("x")).toEqualTypeOf<Effect.Effect<number, "db" | Pipeline.StageTimeout, Db>>()
    expectTypeOf(Pipeline.run(timed, "x")).toEqualTypeOf<Effect.Effect<number, "db" | Pipeline.StageTimeout, Db>>()

    const retried = plain.pipe(
      Pipeline.stage("length", (text) => Effect.succeed(text.length), { retry: RetryPolicy.none })
    )
    expectTypeOf(retried).toEqualTypeOf<Pipeline.Pipeline<string, number, "db", Db>>()

    const options: Pipeline.StageOptions = {}
    const perhaps = plain.pipe(Pipeline.stage("length", (text) => Effect.succeed(text.length), options))
    expectTypeOf(perhaps).toEqualTypeOf<Pipeline.Pipeline<string, number, "db" | Pipeline.StageTimeout, Db>>()

    const nested = Pipeline.make<string>("q").pipe(
      Pipeline.stage("inner", timed),
      Pipeline.stage("format", (n) => Effect.succeed(`${n}`))
    )
    expectTypeOf(nested).toEqualTypeOf<Pipeline.Pipeline<string, string, "db" | Pipeline.StageTimeout, Db>>()
    expectTypeOf(Pipeline.make<string>("empty")).toEqualTypeOf<Pipeline.Pipeline<string, string>>()
  })

  it("a recovery replaces the errors of its stage by its own", () => {
    const base = Pipeline.make<string>("p").pipe(Pipeline.stage("parse", (_) => Effect.fail("syntax" as const)))

    const total = base.pipe(Pipeline.stage("ask", ask, {
      recover: (error, input) => {
        expectTypeOf(error).toEqualTypeOf<"db">()
        expectTypeOf(input).toEqualTypeOf<string>()
        return Effect.succeed(0)
      }
    }))
    expectTypeOf(total).toEqualTypeOf<Pipeline.Pipeline<string, string | number, "syntax", Db>>()

    const partial = Pipeline.make<string>("p").pipe(
      Pipeline.stage("ask", ask, { recover: (_, input) => lookUp(input) })
    )
    expectTypeOf(partial).toEqualTypeOf<Pipeline.Pipeline<string, string, "miss", Db | Cache>>()
    expectTypeOf(partial("x")).toEqualTypeOf<Effect.Effect<string, "miss", Db | Cache>>()
  })

  it("StageTimeout is visible to the recovery of a stage with a timeout, and not to callers", () => {
    const timed = Pipeline.make<string>("p").pipe(
      Pipeline.stage("ask", ask, {
        timeout: "1 second",
        recover: (error, input) => {
          expectTypeOf(error).toEqualTypeOf<"db" | Pipeline.StageTimeout>()
          expectTypeOf(input).toEqualTypeOf<string>()
          return lookUp(input)
        }
      })
    )
    expectTypeOf(timed).toEqualTypeOf<Pipeline.Pipeline<string, string, "miss", Db | Cache>>()

    const passing = Pipeline.make<string>("p").pipe(
      Pipeline.stage("ask", ask, {
        timeout: "1 second",
        recover: (error) => error === "db" ? Effect.succeed(1) : Effect.fail(error)
      })
    )
    expectTypeOf(passing).toEqualTypeOf<Pipeline.Pipeline<string, string | number, Pipeline.StageTimeout, Db>>()
  })

  it("a stage function without annotations is inferred beside a recovery", () => {
    const inferred = Pipeline.make<string>("p").pipe(
      Pipeline.stage("ask", (text) => text === "" ? Effect.fail("empty" as const) : Effect.succeed(text.length), {
        timeout: "1 second",
        retry: RetryPolicy.exponential(),
        recover: (error, text) => Effect.succeed(error === "empty" ? text : error.stage)
      }),
      Pipeline.stage("format", (answer) => {
        expectTypeOf(answer).toEqualTypeOf<string | number>()
        return Effect.succeed(String(answer))
      })
    )
    expectTypeOf(inferred).toEqualTypeOf<Pipeline.Pipeline<string, string>>()
  })

  it("options of a wide type add all errors and requirements that they allow", () => {
    const options: Pipeline.StageOptions<string, string, "db" | Pipeline.StageTimeout, number, "miss", Cache> = {}
    const perhaps = Pipeline.make<string>("p").pipe(Pipeline.stage("ask", ask, options))
    expectTypeOf(perhaps).toEqualTypeOf<
      Pipeline.Pipeline<string, string | number, "db" | "miss" | Pipeline.StageTimeout, Db | Cache>
    >()
  })

  it("a recovery from other errors than the stage's does not compile", () => {
    const recover = (error: "db") => Effect.succeed<string>(error)
    // @ts-expect-error with a timeout there is StageTimeout as well
    const timed = () => Pipeline.make<string>("p").pipe(Pipeline.stage("ask", ask, { timeout: "1 second", recover }))
    const other = (error: "other") => Effect.succeed<string>(error)
    // @ts-expect-error the stage fails with "db"
    const wrong = () => Pipeline.make<string>("p").pipe(Pipeline.stage("ask", ask, { recover: other }))
    assert.isFunction(timed)
    assert.isFunction(wrong)
  })

  it("a stage's classifier gets the exit of an attempt", () => {
    const policy = RetryPolicy.exponential()
    const retried = Pipeline.make<string>("p").pipe(
      Pipeline.stage("ask", ask, {
        retry: {
          policy,
          classify: (exit) => {
            expectTypeOf(exit).toEqualTypeOf<Exit.Exit<string, "db">>()
            return undefined
          }
        }
      })
    )
    expectTypeOf(retried).toEqualTypeOf<Pipeline.Pipeline<string, string, "db", Db>>()
    Pipeline.stage("ask", ask, {
      timeout: "1 second",
      retry: {
        policy,
        classify: (exit) => {
          expectTypeOf(exit).toEqualTypeOf<Exit.Exit<string, "db" | Pipeline.StageTimeout>>()
          return undefined
        }
      }
    })
  })

  it("errors of the inputs are in the stream's error type, and not in the exits", () => {
    const inputs: Stream.Stream<number, "input", Db> = Stream.empty
    expectTypeOf(inputs.pipe(Pipeline.runStream(fickle))).toEqualTypeOf<Stream.Stream<number, "two" | "input", Db>>()
    expectTypeOf(Pipeline.runStreamExit(inputs, fickle)).toEqualTypeOf<
      Stream.Stream<Exit.Exit<number, "two">, "input", Db>
    >()
  })

  it("runStreamEntries pairs an exit with its input", () => {
    const inputs: Stream.Stream<number, "input", Db> = Stream.empty
    expectTypeOf(Pipeline.runStreamEntries(inputs, fickle)).toEqualTypeOf<
      Stream.Stream<Pipeline.Entry<number, number, "two">, "input", Db>
    >()
    expectTypeOf(inputs.pipe(Pipeline.runStreamEntries(fickle, { unordered: true }))).toEqualTypeOf<
      Stream.Stream<Pipeline.Entry<number, number, "two">, "input", Db>
    >()
  })

  it("withTimings moves the error into the exit", () => {
    const pipeline = Pipeline.make<string>("p").pipe(Pipeline.stage("ask", ask))
    expectTypeOf(Pipeline.withTimings(pipeline)("x")).toEqualTypeOf<
      Effect.Effect<readonly [exit: Exit.Exit<string, "db">, timings: Pipeline.Timings], never, Db>
    >()
    expectTypeOf(pipeline.pipe(Pipeline.withTimings)).toEqualTypeOf<
      (input: string) => Effect.Effect<readonly [exit: Exit.Exit<string, "db">, timings: Pipeline.Timings], never, Db>
    >()
  })

  it("a stage that does not fit the one before, and a wrong input, do not compile", () => {
    const base = Pipeline.make<string>("p")
    // @ts-expect-error a stage for numbers after a string
    base.pipe(Pipeline.stage("add", (n: number) => Effect.succeed(n + 1)))
    // @ts-expect-error a number is no input
    void base(1)
    assert.strictEqual(Pipeline.stageCount(base), 0)
  })

  it("a pipeline is contravariant in its input and covariant in its output", () => {
    const wide = Pipeline.make<unknown>("wide").pipe(Pipeline.stage("text", () => Effect.succeed("text" as const)))
    const narrow: Pipeline.Pipeline<number, string> = wide
    assert.strictEqual(narrow.name, "wide")
  })
})
