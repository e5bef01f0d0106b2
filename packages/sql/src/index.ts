/**
 * Sluice's stores on Postgres and SQLite.
 *
 * @since 0.1.0
 */
export * as Migrations from "./Migrations.ts"
export * as SqlDatabase from "./SqlDatabase.ts"
