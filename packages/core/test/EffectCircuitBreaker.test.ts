import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as EffectCircuitBreaker from "@sluice/core/EffectCircuitBreaker"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Stream } from "effect"
import * as Theirs from "effect/persistence/CircuitBreaker"
import { TestClock } from "effect/testing"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"

const root = fileURLToPath(new URL("../../..", import.meta.url))

/** The runnable examples in the documentation of an Effect module that `keep` accepts. */
const examplesOf = (module: string, keep: (code: string) => boolean): ReadonlyArray<string> => {
  const source = readFileSync(join(root, "node_modules/effect/src", module), "utf8")
  return [...source.matchAll(/^ *\* ```ts import\.meta\.vitest\n([\s\S]*?)^ *\* ```$/gm)]
    .map(([, code = ""]) => code.replace(/^ *\* ?/gm, ""))
    .filter(keep)
}

/** The example on our breaker. It exports its result, and the expected one from its last comment. */
const onOurs = (code: string): string => {
  const support = pathToFileURL(join(root, "packages/core/test/support/effectPersistence.ts")).href
  return code
    .replaceAll("\"effect/persistence\"", JSON.stringify(support))
    .replace(/^(await .*?) \/\/ => (.*)$/m, "export const actual = $1\nexport const expected = $2")
}

const runExamples = (examples: ReadonlyArray<string>) => {
  for (const [index, code] of examples.entries()) {
    const expectedText = /\/\/ => (.*)$/m.exec(code)?.[1] ?? "nothing"
    it(`example ${index + 1} returns ${expectedText} on our breaker`, async () => {
      mkdirSync(join(root, "build"), { recursive: true })
      const folder = mkdtempSync(join(root, "build", "effect-docs-"))
      try {
        const file = join(folder, `${index}.ts`)
        writeFileSync(file, onOurs(code))
        const { actual, expected } = await import(pathToFileURL(file).href)
        assert.deepStrictEqual(actual, expected)
        assert.isDefined(expected)
      } finally {
        rmSync(folder, { recursive: true, force: true })
      }
    })
  }
}

describe("EffectCircuitBreaker", () => {
  describe("examples of effect/persistence/CircuitBreaker", () => {
    const examples = examplesOf("persistence/CircuitBreaker.ts", (code) => !/Redis/.test(code))
    it("the examples are found", () => assert.isAtLeast(examples.length, 8))
    runExamples(examples)
  })

  describe("examples of HttpClient.withCircuitBreaker", () => {
    const examples = examplesOf("http/HttpClient.ts", (code) => code.includes("withCircuitBreaker"))
    it("the examples are found", () => assert.isAtLeast(examples.length, 2))
    runExamples(examples)
  })

  const withTheirs = <A, E>(test: (breaker: Theirs.CircuitBreaker) => Effect.Effect<A, E>) =>
    Effect.flatMap(CircuitBreaker.CircuitBreaker, (ours) => test(EffectCircuitBreaker.fromBreaker(ours))).pipe(
      Effect.provide(CircuitBreaker.layer({ trip: CircuitBreaker.consecutive(1), openFor: "30 seconds" }))
    )
  const fail = (breaker: Theirs.CircuitBreaker) => Effect.exit(breaker.execute(Effect.fail("503"), { key: "a" }))

  it.effect("a refusal is Effect's CircuitOpen with retryAfter", () =>
    withTheirs((breaker) =>
      Effect.gen(function*() {
        yield* fail(breaker)
        const error = yield* Effect.flip(breaker.execute(Effect.void, { key: "a" }))
        assert.deepStrictEqual(
          error.reason,
          new Theirs.CircuitOpen({ key: "a", retryAfter: Duration.seconds(30) })
        )
      })
    ))

  it.effect("a probe makes other calls fail with CircuitHalfOpen, and every transition is reported", () =>
    withTheirs((breaker) =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        yield* Stream.runForEach(breaker.transitions, ({ from, to }) => Effect.sync(() => seen.push(`${from}->${to}`)))
          .pipe(Effect.forkScoped({ startImmediately: true }))
        yield* fail(breaker)
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual((yield* breaker.state("a"))._tag, "Open")
        const probe = yield* Effect.forkChild(breaker.execute(Effect.sleep("1 second"), { key: "a" }), {
          startImmediately: true
        })
        assert.deepInclude(yield* breaker.state("a"), { _tag: "HalfOpen", probing: true })
        const refused = yield* Effect.flip(breaker.execute(Effect.void, { key: "a" }))
        assert.strictEqual(refused.reason._tag, "CircuitHalfOpen")
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(probe)
        yield* TestClock.adjust(0)
        assert.deepStrictEqual(seen, ["Closed->Open", "Open->HalfOpen", "HalfOpen->Closed"])
      }).pipe(Effect.scoped)
    ))

  it.effect("a refusal by another breaker inside the call is unchanged", () =>
    withTheirs((breaker) =>
      withTheirs((inner) =>
        Effect.gen(function*() {
          yield* fail(inner)
          const error = yield* Effect.flip(breaker.execute(inner.execute(Effect.void, { key: "a" }), { key: "outer" }))
          assert.deepStrictEqual(error.reason._tag, "CircuitOpen")
          assert.deepInclude(error.reason, { key: "a" })
        })
      )
    ))

  it.effect("a classifier that dies counts as Ignored, and the call dies", () =>
    withTheirs((breaker) =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(
          breaker.execute(Effect.fail("503"), { key: "a", classify: () => Effect.die("no idea") })
        )
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        assert.strictEqual((yield* breaker.state("a"))._tag, "Closed")
      })
    ))

  it.effect("a forced circuit maps to Effect's states", () =>
    Effect.gen(function*() {
      const ours = yield* CircuitBreaker.CircuitBreaker
      const breaker = EffectCircuitBreaker.fromBreaker(ours)
      yield* ours.control({ key: "a", mode: "ForcedOpen", reason: "maintenance", for: "1 minute" })
      assert.deepInclude(yield* breaker.state("a"), { _tag: "Open", retryAfter: Duration.minutes(1) })
      yield* ours.control({ key: "a", mode: "Disabled", reason: "the dependency lies" })
      assert.strictEqual((yield* breaker.state("a"))._tag, "Closed")
    }).pipe(Effect.provide(CircuitBreaker.layer())))
})
