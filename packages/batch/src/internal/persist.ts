/** Waits for a database that is down: nothing that was paid is given up. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as PersistedQueue from "effect/persistence/PersistedQueue"
import * as Schedule from "effect/Schedule"
import type * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import { reasonOf } from "./reason.ts"

const retryMillis = 300

/** Thousands of requests may wait for one database, and a feeder asks it five times a second. */
const warnMillis = 10_000

export type PersistError = SqlError | PersistedQueue.PersistedQueueError | Schema.SchemaError

export type Persist = <A>(effect: Effect.Effect<A, PersistError>) => Effect.Effect<A>

/** Logs a failure of the database once in ten seconds. Its message can name values, so only its reason is logged. */
export const warn = (what: string): (error: PersistError) => Effect.Effect<void> => {
  let warnedAt = -Infinity
  return (error) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      if (now - warnedAt < warnMillis) return Effect.void
      warnedAt = now
      const reason = error._tag === "SqlError" ? reasonOf(error) : error._tag
      return Effect.logWarning(`${what} (${reason}). Trying again`)
    })
}

/** Repeats an effect until the database accepts it. One for each worker. */
export const make = (): Persist => {
  const tell = warn("The database does not store the work of a batch")
  return (effect) => Effect.orDie(Effect.retry(Effect.tapError(effect, tell), Schedule.spaced(retryMillis)))
}
