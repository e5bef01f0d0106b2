/** Waits for a database that is down: nothing that was paid is given up. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as PersistedQueue from "effect/persistence/PersistedQueue"
import * as Schedule from "effect/Schedule"
import type * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"

const retryMillis = 300

/** Thousands of requests may wait for one database. */
const warnMillis = 10_000

type PersistError = SqlError | PersistedQueue.PersistedQueueError | Schema.SchemaError

export type Persist = <A>(effect: Effect.Effect<A, PersistError>) => Effect.Effect<A>

/** Repeats an effect until the database accepts it, and logs a warning now and then. One for each worker. */
export const make = (): Persist => {
  let warnedAt = -Infinity
  const warn = (error: PersistError) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      if (now - warnedAt < warnMillis) return Effect.void
      warnedAt = now
      // The message of a database can name values.
      const reason = error._tag === "SqlError" ? error.reason._tag : error._tag
      return Effect.logWarning(`The database does not store the work of a batch (${reason}). Trying again`)
    })
  return (effect) => Effect.orDie(Effect.retry(Effect.tapError(effect, warn), Schedule.spaced(retryMillis)))
}
