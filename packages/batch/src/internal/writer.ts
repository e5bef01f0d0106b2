/** Stores results in groups, so that a thousand answers a second are at most two hundred statements. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import type { Persist } from "./persist.ts"

/** A request keeps its slot until its result is stored, so this is lost time of each slot: 20 ms cost a fifth of the rate at calls of 75 ms. */
const groupMillis = 5

/** Small enough for one statement: SQLite blocks the process meanwhile. */
const maxRows = 2_000
const maxBytes = 4 * 2 ** 20

export interface Writer<A> {
  /** Ends when the row is stored. While the database is down, it waits. */
  readonly write: (row: A) => Effect.Effect<void>
}

interface Entry<A> {
  readonly row: A
  readonly stored: Deferred.Deferred<void>
}

/** Makes a writer that lives as long as its scope. `store` has to be safe to repeat. */
export const make = <A>(options: {
  readonly store: (rows: ReadonlyArray<A>) => Effect.Effect<unknown, SqlError>
  readonly bytesOf: (row: A) => number
  readonly persist: Persist
}): Effect.Effect<Writer<A>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const entries: Array<Entry<A>> = []
    const filled = yield* Latch.make()

    const next = (): ReadonlyArray<Entry<A>> => {
      let size = 0
      let bytes = 0
      for (const { row } of entries) {
        bytes += options.bytesOf(row)
        if (size === maxRows || (size > 0 && bytes > maxBytes)) break
        size += 1
      }
      return entries.splice(0, size)
    }

    const flush = Effect.suspend(() => {
      const group = next()
      if (entries.length === 0) filled.closeUnsafe()
      return Effect.andThen(
        options.persist(options.store(group.map(({ row }) => row))),
        Effect.sync(() => {
          for (const { stored } of group) Deferred.doneUnsafe(stored, Effect.void)
        })
      )
    })

    yield* filled.await.pipe(
      Effect.andThen(Effect.sleep(groupMillis)),
      Effect.andThen(flush),
      Effect.forever,
      Effect.forkScoped
    )

    return {
      write: (row) =>
        Effect.suspend(() => {
          const stored = Deferred.makeUnsafe<void>()
          entries.push({ row, stored })
          filled.openUnsafe()
          return Deferred.await(stored)
        })
    }
  })
