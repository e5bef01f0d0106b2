/**
 * Makes the tables and functions that a part of the program needs, in numbered steps that each run once.
 *
 * **When to use**
 *
 * `SqlStores.migrations` has the steps of the stores. Make a list of your own for other tables that have to be there before a program
 * starts.
 *
 * **Details**
 *
 * - `migrate` makes what is missing, with Effect's `Migrator`: in one transaction, and once, also if several processes do so at the same
 *   time. It needs a role that may create tables.
 * - `check` reads the version and nothing else. A running process needs no right to create tables.
 * - `layer` migrates when it is built. It suits tests and a file of SQLite. For a database of several machines run `sluice migrate` in the
 *   deployment instead.
 * - A newer version than the program knows passes. So migrate before the new program starts; the old one continues. Steps therefore only
 *   add: a step that changes a function gives it a new name.
 *
 * **Example** (A list of one step)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { SqlClient } from "effect/sql"
 * import * as Migrations from "@sluice/sql/Migrations"
 * import * as SqlDatabase from "@sluice/sql/SqlDatabase"
 *
 * const migrations = Migrations.make({
 *   name: "notes",
 *   steps: {
 *     "0001_notes": Effect.gen(function*() {
 *       const sql = yield* SqlClient.SqlClient
 *       yield* sql`CREATE TABLE sluice_notes (id text PRIMARY KEY, note text NOT NULL)`
 *     })
 *   }
 * })
 *
 * const program = Effect.gen(function*() {
 *   console.log((yield* Effect.flip(migrations.check)).message)
 *   console.log(yield* migrations.migrate)
 *   yield* migrations.check
 *   console.log(yield* migrations.migrate)
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(SqlDatabase.layer({ url: "sqlite::memory:" }))))
 * // => notes: the tables are missing. Run `migrate` of these migrations, with a role that may create tables
 * // => [ '0001_notes' ]
 * // => []
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Migrator from "effect/sql/Migrator"
import { SqlClient } from "effect/sql/SqlClient"
import { isSqlError, type SqlError } from "effect/sql/SqlError"
import { codeOf, describeError } from "./internal/describeError.ts"

/**
 * Steps that make tables.
 *
 * @since 0.1.0
 * @category models
 */
export interface Migrations {
  readonly name: string
  /** Runs the steps that have not run, in order, and returns their names. */
  readonly migrate: Effect.Effect<ReadonlyArray<string>, MigrationFailed, SqlClient>
  /** Succeeds if all steps have run. */
  readonly check: Effect.Effect<void, TablesOutdated | SqlError, SqlClient>
  /** Migrates when it is built. */
  readonly layer: Layer.Layer<never, MigrationFailed, SqlClient>
}

/**
 * Makes a list of migrations.
 *
 * **Details**
 *
 * The steps that have run are in the table `sluice_NAME_migrations`. A step's name is its number and words, as `0001_circuits`. Its
 * statements run one by one, in the order of the numbers.
 *
 * **Gotchas**
 *
 * - A step that has been published must not change.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = ({ command, name, steps }: {
  /** Names the list: small letters and underscores. */
  readonly name: string
  /** The command that runs them, for `TablesOutdated`, such as `npm run migrate`. By default, the error names `migrate`. */
  readonly command?: string | undefined
  readonly steps: Readonly<Record<`${number}_${string}`, Effect.Effect<unknown, unknown, SqlClient>>>
}): Migrations => {
  const table = `sluice_${name}_migrations`
  const needed = Math.max(...Object.keys(steps).map((step) => Number.parseInt(step, 10)))
  const names = new Map(Object.keys(steps).map((step) => [Number.parseInt(step, 10), step]))
  const loader = Migrator.fromRecord(Object.fromEntries(
    Object.entries(steps).map(([step, effect]) => [step, Effect.asVoid(effect)])
  ))
  const migrate = Migrator.make({})({ loader, table }).pipe(
    Effect.map((done) => done.map(([id, step]) => names.get(id) ?? step)),
    Effect.mapError((error) => new MigrationFailed({ migrations: name, description: describe(error) }))
  )
  const check = Effect.flatMap(
    SqlClient,
    (sql) =>
      sql<{ version: unknown }>`SELECT max(migration_id) AS version FROM ${sql(table)}`.withoutTransform.pipe(
        Effect.map(([row]) => Number(row?.version ?? 0)),
        Effect.catchIf(isMissingTable, () => Effect.succeed(0)),
        Effect.flatMap((found) =>
          found < needed ? Effect.fail(new TablesOutdated({ migrations: name, command, found, needed })) : Effect.void
        )
      )
  )
  return { name, migrate, check, layer: Layer.effectDiscard(migrate) }
}

const describe = (error: Migrator.MigrationError | SqlError): string => {
  const cause = error._tag === "SqlError" ? error : error.cause
  const description = isSqlError(cause) ? `${describeError(cause)}${roleOf(cause)}` : undefined
  if (error._tag === "SqlError" || error.kind !== "Failed") return description ?? error.message
  return description === undefined ? error.message : `${error.message}: ${description}`
}

/** The code of Postgres for a missing right. */
const roleOf = ({ reason: { cause } }: SqlError): string =>
  codeOf(cause) === "42501" ? "; use a role that may create tables" : ""

const isMissingTable = ({ reason: { cause } }: SqlError): boolean =>
  codeOf(cause) === "42P01" || (cause instanceof Error && cause.message.startsWith("no such table"))

/**
 * The tables are missing, or older than the program needs.
 *
 * @since 0.1.0
 * @category errors
 */
export class TablesOutdated extends Schema.Error<TablesOutdated>("@sluice/sql/TablesOutdated")({
  _tag: Schema.tag("TablesOutdated"),
  /** The name of the migrations. */
  migrations: Schema.String,
  /** The command that runs them, if they have one. */
  command: Schema.optional(Schema.String),
  /** The version of the tables. 0: they are missing. */
  found: Schema.Int,
  /** The version that the program needs. */
  needed: Schema.Int
}) {
  override get message(): string {
    const found = this.found === 0
      ? "the tables are missing"
      : `the tables have version ${this.found}, and version ${this.needed} is needed`
    const remedy = this.command === undefined ? "`migrate` of these migrations," : `\`${this.command}\``
    return `${this.migrations}: ${found}. Run ${remedy} with a role that may create tables`
  }
}

/**
 * A migration failed. The tables are as they were before.
 *
 * @since 0.1.0
 * @category errors
 */
export class MigrationFailed extends Schema.Error<MigrationFailed>("@sluice/sql/MigrationFailed")({
  _tag: Schema.tag("MigrationFailed"),
  /** The name of the migrations. */
  migrations: Schema.String,
  description: Schema.String
}) {
  override get message(): string {
    return `${this.migrations}: ${this.description}. Nothing was changed`
  }
}
