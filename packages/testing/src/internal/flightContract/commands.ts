import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Random from "effect/Random"

/** The caller: a new one, or the last or last but one of its key. */
export type Who = "new" | "latest" | "before"

/** A brief duration is over before the next command, and a long one does not end. */
export type Duration = "none" | "brief" | "long"

/** The lease that a caller has followed. */
export type Following = "latest" | "older" | "oldest" | undefined

/** A request about one of `flights`, or time that passes. */
export type Command =
  | {
    readonly do: "claim"
    readonly flight: number
    readonly who: Who
    readonly following: Following
    readonly lease: Duration
  }
  | { readonly do: "renew"; readonly flight: number; readonly who: Who; readonly lease: Duration }
  | {
    readonly do: "complete"
    readonly flight: number
    readonly who: Who
    readonly result: string
    readonly fresh: Duration
    readonly keep: Duration
  }
  | { readonly do: "release"; readonly flight: number; readonly who: Who }
  | { readonly do: "purge"; readonly flight: number; readonly by: "key" | "operation" | "tenant" }
  | { readonly do: "wait" }

export const flights = [
  { key: "a", operation: "one", tenant: "x" },
  { key: "b", operation: "one", tenant: "y" },
  { key: "c", operation: "two", tenant: "x" }
] as const

const who = Random.choice(["new", "new", "latest", "latest", "before"] as const)

const kinds = [
  "claim",
  "claim",
  "claim",
  "claim",
  "claim",
  "claim",
  "renew",
  "complete",
  "complete",
  "complete",
  "release",
  "purge",
  "wait"
] as const

const random = (nth: number): Effect.Effect<Command> =>
  Effect.gen(function*() {
    // Mostly the same flight, or no sequence would be long enough.
    const flight = yield* Random.choice([0, 0, 0, 1, 2] as const)
    const kind = yield* Random.choice(kinds)
    switch (kind) {
      case "claim": {
        const following = yield* Random.choice([undefined, undefined, "latest", "older", "oldest"] as const)
        const lease = yield* Random.choice(["long", "long", "long", "brief"] as const)
        return { do: kind, flight, who: yield* who, following, lease }
      }
      case "renew":
        return { do: kind, flight, who: yield* who, lease: yield* Random.choice(["long", "brief"] as const) }
      case "complete": {
        const fresh = yield* Random.choice(["none", "none", "long", "brief"] as const)
        const keep = yield* Random.choice(["none", "long", "long", "brief"] as const)
        return {
          do: kind,
          flight,
          who: yield* who,
          result: yield* Random.choice(["", `result ${nth}`] as const),
          fresh,
          keep
        }
      }
      case "release":
        return { do: kind, flight, who: yield* who }
      case "purge":
        return { do: kind, flight, by: yield* Random.choice(["key", "operation", "tenant"] as const) }
      case "wait":
        return { do: kind }
    }
  })

/** Draws sequences of commands. The same seed draws the same ones. */
export const sequences = (
  { commands, runs, seed }: { readonly commands: number; readonly runs: number; readonly seed: number }
): Effect.Effect<ReadonlyArray<ReadonlyArray<Command>>> =>
  Random.withSeed(
    Effect.forEach(
      Array.from({ length: runs }),
      () => Effect.forEach(Array.from({ length: commands }), (_, nth) => random(nth))
    ),
    seed
  )

export const show = (command: Command): string => Formatter.format(command)
