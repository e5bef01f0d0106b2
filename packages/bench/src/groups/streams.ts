import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"
// The guard that `ResilientModel` puts around every stream. The package does not export it, so it is imported by its path.
import { type Guard, guard } from "../../../ai/src/internal/stream/guard.ts"
import { type Run, timed } from "../measure.ts"
import type { Builders } from "./builders.ts"

type Part = { readonly type: "text-delta" | "finish" }
type Chunk = readonly [Part]

const delta = Effect.succeed<Chunk>([{ type: "text-delta" }])
const finish = Effect.succeed<Chunk>([{ type: "finish" }])

/** Each part is its own chunk, as providers send them. */
const parts = (count: number, before: (part: Effect.Effect<Chunk>) => Effect.Effect<Chunk>): Stream.Stream<Part> => {
  const each = before(delta)
  return Stream.fromPull(Effect.sync(() => {
    let left = count
    return Effect.suspend((): Pull.Pull<Chunk> => left === 0 ? Cause.done() : --left === 0 ? finish : each)
  }))
}

const model: Guard<Part, never> = {
  isOutput: (part) => part.type === "text-delta",
  isComplete: (part) => part.type === "finish",
  failureOf: () => undefined,
  sizeOf: () => 16,
  truncated: () => impossible(),
  silent: () => impossible(),
  late: () => impossible(),
  empty: () => undefined
}

const impossible = (): never => {
  throw new Error("no part is late or missing")
}

const limitMillis = 60_000
const limited: Guard<Part, never> = { ...model, firstTokenMillis: limitMillis, idleMillis: limitMillis }

const around = (before: (part: Effect.Effect<Chunk>) => Effect.Effect<Chunk>) => {
  const of = (protect: (stream: Stream.Stream<Part>) => Stream.Stream<Part>): Run => (count) =>
    Effect.runPromise(Stream.runDrain(protect(parts(count, before))))
  return Effect.sync(() =>
    timed({
      "the stream alone": of((stream) => stream),
      "without limits": of((stream) => guard(stream, model)),
      "Sluice": of((stream) => guard(stream, limited)),
      "Effect": of(Stream.timeout(Duration.millis(limitMillis)))
    })
  )
}

export const builders: Builders<"streams"> = {
  "stream-sync": around((part) => part),
  "stream-yielding": around((part) => Effect.andThen(Effect.yieldNow, part))
}
