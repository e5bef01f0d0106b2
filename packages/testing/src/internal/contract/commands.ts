import type { Target, Window } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Random from "effect/Random"

/** The generation that a caller knows: the current one, the one before it, or 0. */
export type Under = "current" | "previous" | "zero"

/** A circuit with a window. */
export interface View {
  readonly key: string
  readonly window: Window
}

/** A request to the store, or time that passes. */
export type Command =
  | { readonly do: "read" | "list" } & View
  | { readonly do: "record"; readonly under: Under; readonly samples: string } & View
  | {
    readonly do: "lease"
    readonly under: Under
    readonly id: string
    readonly limit: number
    readonly ttlMillis: number
  } & View
  /** The outcome of a recent probe, in the generation that admitted it. `nthLast` counts back from the latest, which is 0. */
  | { readonly do: "settle"; readonly nthLast: number; readonly samples: string } & View
  | { readonly do: "transition"; readonly under: Under; readonly to: Target } & View
  /** Sends the last transition again. */
  | { readonly do: "repeat" } & View
  | { readonly do: "wait"; readonly millis: number }
  /** The store's clock is set back. */
  | { readonly do: "setBack"; readonly millis: number }

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

const oneOf = <const A>(...choices: readonly [A, ...ReadonlyArray<A>]): Effect.Effect<A> =>
  Effect.map(Random.nextIntBetween(0, choices.length - 1), (nth) => choices[nth] ?? choices[0])

const view: Effect.Effect<View> = Effect.all({
  key: oneOf(keys[0], keys[0], keys[0], keys[1]),
  window: oneOf(main, main, main, main, main, main, ...others)
})
const under = oneOf<Under>("current", "current", "current", "current", "previous", "zero")
const id = oneOf("one", "two", "three")

// A choice that is listed several times is drawn more often. The waits end just before, at and just after the times that the other
// commands set.
const draws = {
  record: Effect.all({ under, samples: oneOf("0", "X", "X", "1", "Y", "D", "0X", "XX0D1") }),
  lease: Effect.all({ under, id, limit: oneOf(1, 2, 2, 3), ttlMillis: oneOf(10, 25, 60_000, 60_000) }),
  settle: Effect.all({ nthLast: oneOf(0, 0, 0, 1, 2), samples: oneOf("0", "X", "") }),
  transition: Effect.all({ under, to: oneOf(...targets) }),
  wait: Effect.all({ millis: oneOf(1, 1, 9, 10, 11, 15, 25) }),
  setBack: Effect.all({ millis: oneOf(5, 12, 30, 3_600_000) })
}

const verb = oneOf(
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
)

/** `verb`, and one command in twenty sets the clock back. */
const verbOrSetBack = Effect.flatMap(
  Random.nextIntBetween(1, 20),
  (drawn): typeof verb | Effect.Effect<"setBack"> => drawn === 1 ? Effect.succeed("setBack" as const) : verb
)

const command = (setsBack: boolean): Effect.Effect<Command> =>
  Effect.flatMap(
    setsBack ? verbOrSetBack : verb,
    (verb): Effect.Effect<Command> => {
      switch (verb) {
        case "record":
          return Effect.zipWith(view, draws.record, (view, drawn) => ({ do: verb, ...view, ...drawn }))
        case "lease":
          return Effect.zipWith(view, draws.lease, (view, drawn) => ({ do: verb, ...view, ...drawn }))
        case "settle":
          return Effect.zipWith(view, draws.settle, (view, drawn) => ({ do: verb, ...view, ...drawn }))
        case "transition":
          return Effect.zipWith(view, draws.transition, (view, drawn) => ({ do: verb, ...view, ...drawn }))
        case "wait":
          return Effect.map(draws.wait, (drawn) => ({ do: verb, ...drawn }))
        case "setBack":
          return Effect.map(draws.setBack, (drawn) => ({ do: verb, ...drawn }))
        default:
          return Effect.map(view, (view) => ({ do: verb, ...view }))
      }
    }
  )

/** Draws sequences of commands from a seed. `setsBack`: whether they set the store's clock back. */
export const sequences = (
  options: {
    readonly seed: number
    readonly runs: number
    readonly commands: number
    readonly setsBack: boolean
  }
): Effect.Effect<ReadonlyArray<ReadonlyArray<Command>>> =>
  command(options.setsBack).pipe(
    Effect.replicateEffect(options.commands),
    Effect.replicateEffect(options.runs),
    Random.withSeed(options.seed)
  )

/** A command for the error message. */
export const show = (command: Command): string => {
  const { do: verb, ...rest } = command
  return `${verb} ${Formatter.format(rest)}`
}
