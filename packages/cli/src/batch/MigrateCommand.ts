/** `sluice migrate`: makes the tables of a database. */
import * as Batches from "@sluice/batch/Batches"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { SqlClient } from "effect/sql/SqlClient"
import * as DatabaseError from "../DatabaseError.ts"
import * as ExitCode from "../ExitCode.ts"
import * as Flag from "../Flag.ts"
import * as Audit from "../fleet/Audit.ts"
import * as Say from "../Say.ts"
import * as Keys from "../serve/Keys.ts"
import * as Sources from "../Sources.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"

/** Makes what is missing and returns the exit code. */
export const execute = (given: string): Promise<number> => {
  const refuse = (problem: string): number => {
    Say.error("sluice migrate", problem)
    return ExitCode.unusable
  }
  const whole = Sources.databaseOf(given, Sources.here().env)
  if (!whole.ok) return Promise.resolve(refuse(`URL ${whole.requirement}`))
  const url = Flag.batchesUrl(whole.value)
  if (!url.ok) return Promise.resolve(refuse(`URL must be ${url.requirement}`))
  const all = [
    ["stores", SqlStores.migrate()],
    ["batches", Batches.migrations.migrate],
    ["keys", Keys.migrations.migrate],
    ["audit", Audit.migrations.migrate]
  ] as const
  const done = Effect.forEach(all, ([name, migrate]) =>
    Effect.map(migrate, (steps) => {
      // The tables and the functions of the stores have steps of the same names.
      const what = steps.length === 0 ? "up to date" : `made ${[...new Set(steps)].join(", ")}`
      process.stdout.write(`${name}: ${what}\n`)
    }), { discard: true })
  // Tells a server that cannot be reached from one that refuses a table.
  const reached = Effect.flatMap(SqlClient, (sql) => sql`SELECT 1`)
  return Effect.runPromise(
    Effect.andThen(reached, done).pipe(
      Effect.provide(SqlDatabase.layer({ url: Redacted.make(url.value) })),
      Effect.as(ExitCode.ok),
      Effect.catch((error) =>
        Effect.sync(() =>
          refuse(`cannot use ${Terminal.escape(UrlSecrets.shown(url.value))}: ${DatabaseError.describe(error)}`)
        )
      )
    )
  )
}
