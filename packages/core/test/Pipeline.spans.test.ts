import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Schema, Tracer } from "effect"
import { TestClock } from "effect/testing"
import * as Pipeline from "../src/Pipeline.ts"
import * as RetryPolicy from "../src/RetryPolicy.ts"
import { interruptEverywhere, yields } from "./support/probe.ts"

/** A tracer that keeps every span and counts how often each was ended. */
const capture = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const ends = new Map<Tracer.NativeSpan, number>()
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      const end = span.end.bind(span)
      span.end = (endTime, exit) => {
        ends.set(span, (ends.get(span) ?? 0) + 1)
        end(endTime, exit)
      }
      spans.push(span)
      ends.set(span, 0)
      return span
    }
  })
  return { spans, ends, tracer }
}

/** Runs an effect for an hour of the test clock. Returns its spans. */
const spansOf = <A, E>(self: Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const { spans, tracer } = capture()
    const fiber = yield* self.pipe(
      Effect.provideService(Tracer.Tracer, tracer),
      Effect.exit,
      Effect.forkChild({ startImmediately: true })
    )
    yield* TestClock.adjust("1 hour")
    yield* Fiber.join(fiber)
    return spans
  })

const parentOf = (span: Tracer.NativeSpan) =>
  Option.getOrUndefined(Option.map(span.parent, (parent) => (parent as Tracer.Span).name))

const attributesOf = (span: Tracer.NativeSpan | undefined) => Object.fromEntries(span?.attributes ?? [])

const exitOf = (span: Tracer.NativeSpan | undefined) => span?.status._tag === "Ended" ? span.status.exit : undefined

/** Whether a text can be reached from a value by any path. */
const reaches = (root: unknown, text: string): boolean => {
  const seen = new Set<unknown>()
  const left: Array<unknown> = [root]
  while (left.length > 0) {
    const value = left.pop()
    if (typeof value === "string" && value.includes(text)) return true
    if ((typeof value !== "object" && typeof value !== "function") || value === null || seen.has(value)) continue
    seen.add(value)
    if (value instanceof Map) left.push(...value.keys(), ...value.values())
    if (value instanceof Set) left.push(...value)
    for (const key of Reflect.ownKeys(value)) {
      const descriptor = Reflect.getOwnPropertyDescriptor(value, key)
      left.push(key.toString(), descriptor && "value" in descriptor ? descriptor.value : undefined)
    }
  }
  return false
}

class Refused extends Schema.TaggedError<Refused>()("Refused", { text: Schema.String }) {
  override get message(): string {
    return `refused: ${this.text}`
  }
}

describe("Pipeline spans", () => {
  it.effect("a run has a span, with a child span for each stage, nested like the pipelines", () =>
    Effect.gen(function*() {
      const inner = Pipeline.make<string>("inner").pipe(
        Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
        Pipeline.stage("ask", (text) => Effect.withSpan(Effect.succeed(text), "call"))
      )
      const outer = Pipeline.make<string>("outer").pipe(
        Pipeline.stage("clean", inner),
        Pipeline.stage("store", (text) => inner(text))
      )
      const spans = yield* spansOf(Effect.withSpan(outer("x"), "caller"))
      assert.deepStrictEqual(spans.map((span) => [span.name, parentOf(span)]), [
        ["caller", undefined],
        ["outer", "caller"],
        ["outer/clean", "outer"],
        ["inner", "outer/clean"],
        ["inner/trim", "inner"],
        ["inner/ask", "inner"],
        ["call", "inner/ask"],
        ["outer/store", "outer"],
        ["inner", "outer/store"],
        ["inner/trim", "inner"],
        ["inner/ask", "inner"],
        ["call", "inner/ask"]
      ])
    }))

  it.effect("there are no spans without a tracer or with tracing off", () =>
    Effect.gen(function*() {
      const seen: Array<string | undefined> = []
      const look = Effect.map(
        Effect.option(Effect.currentParentSpan),
        (span) => seen.push(Option.getOrUndefined(Option.map(span, (span) => (span as Tracer.Span).name)))
      )
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", () => look, { timeout: "1 second", retry: RetryPolicy.exponential() })
      )
      yield* pipeline("x")
      yield* Effect.withSpan(pipeline("x"), "outer")
      yield* Pipeline.withTimings(pipeline)("x")
      assert.deepStrictEqual(seen, [undefined, "outer", undefined])

      const spans = yield* spansOf(Effect.withTracerEnabled(pipeline("x"), false))
      assert.deepStrictEqual(spans, [])
    }))

  it.effect("a stage's span shows attempts, timeouts and recovery", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
        Pipeline.stage("ask", (): Effect.Effect<string> => Effect.never, {
          timeout: "1 second",
          retry: RetryPolicy.constant({ maxAttempts: 2, jitter: "none" }),
          recover: () => Effect.succeed("fallback")
        })
      )
      const [run, trim, ask] = yield* spansOf(pipeline("x"))
      assert.deepStrictEqual(attributesOf(run), { "sluice.pipeline": "p", "sluice.ending": "Success" })
      assert.deepStrictEqual(attributesOf(trim), {
        "sluice.pipeline": "p",
        "sluice.stage": "trim",
        "sluice.stage.index": 0,
        "sluice.ending": "Success",
        "sluice.attempts": 1,
        "sluice.timeouts": 0
      })
      assert.deepStrictEqual(attributesOf(ask), {
        "sluice.pipeline": "p",
        "sluice.stage": "ask",
        "sluice.stage.index": 1,
        "sluice.ending": "Recovered",
        "sluice.attempts": 2,
        "sluice.timeouts": 2,
        "error.type": "StageTimeout"
      })
      assert.deepStrictEqual(exitOf(ask), Exit.void)
    }))

  it.effect("spans show the failed stage and the tag of its error", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
        Pipeline.stage("ask", (text) => Effect.fail(new Refused({ text })))
      )
      const [run, , ask] = yield* spansOf(pipeline("x"))
      assert.deepStrictEqual(attributesOf(run), {
        "sluice.pipeline": "p",
        "sluice.ending": "Failure",
        "error.type": "Refused",
        "sluice.failed.stage": "ask"
      })
      assert.strictEqual(attributesOf(ask)["error.type"], "Refused")
      const exit = exitOf(ask)
      assert.isTrue(exit !== undefined && Exit.hasFails(exit))
    }))

  const endings: ReadonlyArray<readonly [string, Effect.Effect<string, unknown>, Record<string, unknown>]> = [
    ["a failure without a tag", Effect.fail("canary"), { "sluice.ending": "Failure", "error.type": "untagged" }],
    ["a defect", Effect.die(new Error("canary")), { "sluice.ending": "Defect", "error.type": "untagged" }],
    ["an interruption", Effect.interrupt, { "sluice.ending": "Interrupted" }],
    [
      "a failure beside a defect",
      Effect.failCause(Cause.combine(Cause.fail(new Refused({ text: "canary" })), Cause.die("canary"))),
      { "sluice.ending": "Defect", "error.type": "untagged" }
    ]
  ]
  for (const [what, ask, shown] of endings) {
    it.effect(`spans show ${what} as a distinct ending`, () =>
      Effect.gen(function*() {
        const pipeline = Pipeline.make<string>("p").pipe(Pipeline.stage("ask", () => ask))
        const [run, span] = yield* spansOf(pipeline("x"))
        assert.containsSubset(attributesOf(span), shown)
        assert.containsSubset(attributesOf(run), shown)
        const exit = exitOf(span)
        assert.strictEqual(exit && Exit.hasFails(exit), shown["sluice.ending"] === "Failure")
        assert.strictEqual(exit && Exit.hasDies(exit), shown["sluice.ending"] === "Defect")
        assert.strictEqual(exit && Exit.hasInterrupts(exit), shown["sluice.ending"] === "Interrupted")
      }))
  }

  it.effect("no span contains an input, a result or an error message", () =>
    Effect.gen(function*() {
      const tag = { text: "canary in" }
      const inner = Pipeline.make<typeof tag>("inner").pipe(
        Pipeline.stage("fail", ({ text }) => Effect.fail(new Refused({ text: `canary ${text}` })), {
          retry: RetryPolicy.constant({ maxAttempts: 2 }),
          recover: (error, { text }) => Effect.fail(new Refused({ text: `canary ${error.message} ${text}` }))
        })
      )
      const outer = Pipeline.make<typeof tag>("outer").pipe(
        Pipeline.stage("keep", (input) => Effect.sync(() => ({ ...input, answer: "canary out" }))),
        Pipeline.stage("recovered", (input) => Effect.fail(input), { recover: (error) => Effect.succeed(error) }),
        Pipeline.stage("inner", inner, {
          timeout: "1 second",
          recover: (error) => Effect.die(new Error(`canary ${error}`))
        })
      )
      const spans = yield* spansOf(outer(tag))
      assert.deepStrictEqual(spans.map((span) => span.name), [
        "outer",
        "outer/keep",
        "outer/recovered",
        "outer/inner",
        "inner",
        "inner/fail"
      ])
      assert.isFalse(spans.some((span) => reaches(span, "canary")))
      // The search finds a text that is there.
      const [found] = yield* spansOf(Effect.withSpan(Effect.fail(new Refused({ text: "canary" })), "theirs"))
      assert.isTrue(reaches(found, "canary"))
    }))

  it.effect("a printed span error has the name of the error and no message of it", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", (text) => Effect.fail(new Refused({ text })))
      )
      const [, ask] = yield* spansOf(pipeline("canary"))
      const exit = exitOf(ask)
      assert.isTrue(exit !== undefined && Exit.isFailure(exit))
      const printed = exit !== undefined && Exit.isFailure(exit) ? Cause.prettyErrors(exit.cause) : []
      assert.deepStrictEqual(printed.map((error) => [error.name, error.message]), [["Refused", "p/ask failed"]])
    }))

  it.effect("results, failures and annotations are the same with and without a tracer", () =>
    Effect.gen(function*() {
      const { tracer } = capture()
      const traced = <A, E>(self: Effect.Effect<A, E>) => Effect.provideService(self, Tracer.Tracer, tracer)
      const shout = Pipeline.make<string>("shout").pipe(
        Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
        Pipeline.stage("check", (text) => text === "" ? Effect.fail("empty") : Effect.sync(() => text.toUpperCase()))
      )
      const outer = Pipeline.make<string>("outer").pipe(Pipeline.stage("shout", shout))
      assert.strictEqual(yield* traced(outer(" a ")), "A")
      const [with_, without] = yield* Effect.all([
        Effect.flip(Effect.sandbox(traced(outer(" ")))),
        Effect.flip(Effect.sandbox(outer(" ")))
      ])
      assert.deepStrictEqual(with_, without)
      assert.deepStrictEqual(Pipeline.failedStage(with_), Pipeline.failedStage(without))
    }))

  it.effect("every span of a run interrupted anywhere is ended once", () =>
    Effect.gen(function*() {
      const points = yield* interruptEverywhere({
        make: Effect.sync(capture),
        run: ({ tracer }) => {
          const inner = Pipeline.make<number>("inner").pipe(Pipeline.stage("wait", (n) => Effect.as(yields(8), n)))
          const outer = Pipeline.make<number>("outer").pipe(
            Pipeline.stage("bare", inner),
            Pipeline.stage("timed", inner, { timeout: "1 hour", recover: () => Effect.succeed(0) })
          )
          return Effect.provideService(outer(1), Tracer.Tracer, tracer)
        },
        after: ({ ends }, at) =>
          Effect.sync(() => {
            for (const [span, times] of ends) assert.strictEqual(times, 1, `${span.name} ${at}`)
          })
      })
      assert.isAtLeast(points, 300)
    }), 40_000)
})
