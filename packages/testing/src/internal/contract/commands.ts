import type { Target, Window } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Random from "effect/Random"

/** Which generation a caller believes in: the one that stands, the one before it, or none. */
export type Belief = "standing" | "former" | "none"

/** A circuit, through a window. */
export interface Seen {
  readonly key: string
  readonly window: Window
}

/** What callers and the passing time can do to a store. */
export type Command =
  | { readonly do: "read" | "list" } & Seen
  | { readonly do: "record"; readonly under: Belief; readonly samples: string } & Seen
  | {
    readonly do: "lease"
    readonly under: Belief
    readonly id: string
    readonly limit: number
    readonly ttlMillis: number
  } & Seen
  /** What one of the last probes says, counted from the latest, under the generation in which it was let through. */
  | { readonly do: "settle"; readonly nthLast: number; readonly samples: string } & Seen
  | { readonly do: "transition"; readonly under: Belief; readonly to: Target } & Seen
  /** The last transition that was asked for, once more. */
  | { readonly do: "repeat" } & Seen
  | { readonly do: "wait"; readonly millis: number }

export const keys = ["a", "b"] as const
const main: Window = { calls: 4, bucketMillis: 10, buckets: 3 }
const others: readonly [Window, ...ReadonlyArray<Window>] = [
  { calls: 4, bucketMillis: 10, buckets: 2 },
  { calls: 3, bucketMillis: 0, buckets: 0 },
  { calls: 0, bucketMillis: 10, buckets: 3 }
]
export const windows = [main, ...others]

const because = { calls: 4, failures: 2, slow: 1 }
const halfOpen: Target = { _tag: "Open", forMillis: 0, openings: 1, hintMillis: 0, because }
const targets: readonly [Target, ...ReadonlyArray<Target>] = [
  halfOpen,
  halfOpen,
  halfOpen,
  halfOpen,
  halfOpen,
  { _tag: "Open", forMillis: 0, openings: 2, hintMillis: 15, because },
  { _tag: "Open", forMillis: 10, openings: 1, hintMillis: 0, because },
  { _tag: "Open", forMillis: 15, openings: 3, hintMillis: 20, because },
  { _tag: "Closed", rampMillis: 0, openings: 0, lastOpen: 0, reason: "" },
  { _tag: "Closed", rampMillis: 20, openings: 2, lastOpen: 15, reason: "reset" },
  { _tag: "Forced", forMillis: 0, mode: "ForcedClosed", reason: "a drill" },
  { _tag: "Forced", forMillis: 10, mode: "Disabled", reason: "a drill" },
  { _tag: "Forced", forMillis: 0, mode: "ObserveOnly", reason: "a drill" }
]

const oneOf = <const A>(...some: readonly [A, ...ReadonlyArray<A>]): Effect.Effect<A> =>
  Effect.map(Random.nextIntBetween(0, some.length - 1), (nth) => some[nth] ?? some[0])

const seen: Effect.Effect<Seen> = Effect.all({
  key: oneOf(keys[0], keys[0], keys[0], keys[1]),
  window: oneOf(main, main, main, main, main, main, ...others)
})
const under = oneOf<Belief>("standing", "standing", "standing", "standing", "former", "none")
const id = oneOf("one", "two", "three")

// The more often a command stands in the list, the more often it is drawn. Times are just before, at and just behind the ends
// of those that the other commands set.
const draws = {
  record: Effect.all({ under, samples: oneOf("0", "X", "X", "1", "Y", "D", "0X", "XX0D1") }),
  lease: Effect.all({ under, id, limit: oneOf(1, 2, 2, 3), ttlMillis: oneOf(10, 25, 60_000, 60_000) }),
  settle: Effect.all({ nthLast: oneOf(0, 0, 0, 1, 2), samples: oneOf("0", "X", "") }),
  transition: Effect.all({ under, to: oneOf(...targets) }),
  wait: Effect.all({ millis: oneOf(1, 1, 9, 10, 11, 15, 25) })
}

const command: Effect.Effect<Command> = Effect.flatMap(
  oneOf(
    "record",
    "record",
    "lease",
    "lease",
    "lease",
    "lease",
    "settle",
    "settle",
    "settle",
    "transition",
    "transition",
    "wait",
    "wait",
    "read",
    "repeat",
    "list"
  ),
  (verb): Effect.Effect<Command> => {
    switch (verb) {
      case "record":
        return Effect.zipWith(seen, draws.record, (of, drawn) => ({ do: verb, ...of, ...drawn }))
      case "lease":
        return Effect.zipWith(seen, draws.lease, (of, drawn) => ({ do: verb, ...of, ...drawn }))
      case "settle":
        return Effect.zipWith(seen, draws.settle, (of, drawn) => ({ do: verb, ...of, ...drawn }))
      case "transition":
        return Effect.zipWith(seen, draws.transition, (of, drawn) => ({ do: verb, ...of, ...drawn }))
      case "wait":
        return Effect.map(draws.wait, (drawn) => ({ do: verb, ...drawn }))
      default:
        return Effect.map(seen, (of) => ({ do: verb, ...of }))
    }
  }
)

/** The sequences that a seed stands for. */
export const sequences = (
  options: { readonly seed: number; readonly runs: number; readonly commands: number }
): Effect.Effect<ReadonlyArray<ReadonlyArray<Command>>> =>
  command.pipe(
    Effect.replicateEffect(options.commands),
    Effect.replicateEffect(options.runs),
    Random.withSeed(options.seed)
  )

/** Commands as a reader follows them. */
export const show = (command: Command): string => {
  const { do: verb, ...rest } = command
  return `${verb} ${Formatter.format(rest)}`
}
