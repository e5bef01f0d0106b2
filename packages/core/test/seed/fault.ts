import { assert, it } from "@effect/vitest"
import { Duration, Effect, Schema, type Scope } from "effect"

/** One fault of the seed. Both results are asserted, so that neither side can change unnoticed. */
export const fault = <A, E1, E2>(id: string, title: string, options: {
  /** The result of our primitive. */
  readonly wanted: A
  readonly ours: Effect.Effect<A, E1, Scope.Scope>
  /** The result of the seed's algorithm. */
  readonly faulty: unknown
  readonly seed: Effect.Effect<unknown, E2, Scope.Scope>
}) =>
  it.effect(`${id} ${title}`, () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Effect.scoped(options.ours), options.wanted)
      assert.deepStrictEqual(yield* Effect.scoped(options.seed), options.faulty)
      assert.notDeepEqual(options.wanted, options.faulty)
    }))

export const countRuns = () => {
  let runs = 0
  const counting = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      runs++
      return effect
    })
  return { counting, runs: () => runs }
}

/** An error of a provider: 5xx and 429 are retryable, and 429 has a Retry-After. */
export class HttpError extends Schema.TaggedError<HttpError>()("HttpError", { status: Schema.Int }) {
  get isRetryable(): boolean {
    return this.status >= 500 || this.status === 429
  }
  get retryAfter(): Duration.Duration | undefined {
    return this.status === 429 ? Duration.seconds(5) : undefined
  }
}

export const isEqual = (a: unknown, b: unknown): boolean => {
  try {
    assert.deepStrictEqual(a, b)
    return true
  } catch {
    return false
  }
}
