/**
 * Connects to a database by its URL: Postgres, or a file of SQLite.
 *
 * **When to use**
 *
 * Where the URL decides which database is used, as in a command or a deployment. A program that has a `SqlClient` already needs
 * nothing of this module: the stores take any client for Postgres or SQLite.
 *
 * **Details**
 *
 * | URL | database |
 * |---|---|
 * | `postgres://user:password@host:5432/name` | Postgres, by `@effect/sql-pg`. Parameters are those of libpq, such as `sslmode=require` |
 * | `postgres://user@host:6432/name?pgbouncer=true` | Postgres behind a pooler that reuses connections between transactions |
 * | `sqlite:FILE`, or a path | a file of SQLite, by `node:sqlite`; made if it is missing, and readable by its owner only |
 * | `sqlite::memory:` | SQLite in memory, for tests |
 *
 * | option | default | why this default |
 * |---|---|---|
 * | `connections` | 10 | statements of the stores take less than a millisecond, so ten connections serve thousands of calls a second |
 * | `busyTimeout` | 5 seconds | longer than any transaction of the stores; only a program that keeps the file locked exceeds it |
 *
 * - A URL of Postgres without a user takes that of the operating system, and one without a database takes the name of the user.
 * - Connections to Postgres are opened when they are needed. So the layer also builds while the server is down.
 * - A missing file of SQLite is made when the layer is built. The layer fails if it cannot be made. A file that is locked, corrupt or on a
 *   full disk fails statements only, and works again when the cause has gone. So does a file that was deleted or replaced: the next
 *   statement opens the new one.
 * - A driver is loaded only if the URL needs it.
 * - All tables and functions have names that begin with `sluice_`. They are in the first schema of the search path. To keep those of two
 *   applications apart, give each its own schema: `postgres://host/name?options=-c%20search_path%3Dbilling`.
 *
 * **Gotchas**
 *
 * - A statement on SQLite blocks the event loop while it runs.
 * - A network file system can corrupt a file of SQLite that several machines write.
 * - Node 22 warns that `node:sqlite` is experimental. Node 24 does not.
 * - A pooler that reuses connections between transactions, such as PgBouncer with `pool_mode = transaction`, loses prepared statements and
 *   subscriptions. `pgbouncer=true` in the URL uses neither.
 * - Such a pooler may refuse or ignore `options` of the URL. Set the search path of the role instead:
 *   `alter role app set search_path = billing`.
 *
 * **Example** (A database in memory)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { SqlClient } from "effect/sql"
 * import * as SqlDatabase from "@sluice/sql/SqlDatabase"
 *
 * const program = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   return yield* sql`SELECT 1 + 1 AS sum`
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.provide(SqlDatabase.layer({ url: "sqlite::memory:" })))))
 * // => [ [Object: null prototype] { sum: 2 } ]
 * ```
 *
 * @since 0.1.0
 */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Redacted from "effect/Redacted"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { userInfo } from "node:os"

/**
 * Options for `SqlDatabase.layer`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SqlDatabaseOptions {
  /** The URL of the database. It often contains a password, so prefer a redacted one. */
  readonly url: string | Redacted.Redacted
  /** The most connections to Postgres, 1 to 1,000. Default 10. A file of SQLite has one. */
  readonly connections?: number | undefined
  /** How long a statement waits for a file of SQLite that another process has locked, up to an hour. Default 5 seconds. */
  readonly busyTimeout?: Duration.Input | undefined
}

/**
 * Provides the `SqlClient` of a URL.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: SqlDatabaseOptions): Layer.Layer<SqlClient, InvalidOptions | SqlError> =>
  Layer.unwrap(Effect.map(readOptions(options), layerOf))

/**
 * Provides the `SqlClient` of a URL in the configuration.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = (
  options: Config.Wrap<SqlDatabaseOptions>
): Layer.Layer<SqlClient, Config.ConfigError | InvalidOptions | SqlError> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))

type Settings =
  | {
    readonly driver: "postgres"
    readonly url: Redacted.Redacted
    /** The user, if the URL has none. */
    readonly username: string | undefined
    readonly connections: number
    /** Statements keep their names on a connection, which a pooler may take away between two transactions. */
    readonly prepare: boolean
  }
  | { readonly driver: "sqlite"; readonly filename: string; readonly busyMillis: number }

const layerOf = (settings: Settings): Layer.Layer<SqlClient, SqlError> =>
  settings.driver === "postgres"
    ? Layer.unwrap(Effect.map(
      Effect.promise(() => import("@effect/sql-pg/PgClient")),
      (PgClient): Layer.Layer<SqlClient, SqlError> =>
        PgClient.layer({
          url: settings.url,
          username: settings.username,
          maxConnections: settings.connections,
          prepare: settings.prepare,
          applicationName: "sluice"
        })
    ))
    : Layer.effect(
      SqlClient,
      Effect.flatMap(Effect.promise(() => import("./internal/sqliteClient.ts")), ({ make }) => make(settings))
    ).pipe(Layer.provide(Reactivity.layer))

const readOptions = (input: SqlDatabaseOptions): Effect.Effect<Settings, InvalidOptions> => {
  const options = new OptionsReader("SqlDatabase")
  const known = { url: true, connections: true, busyTimeout: true } as const
  const { busyTimeout = "5 seconds", connections = 10, url: given } = options.object("options", input, known)
  const busyMillis = options.millis("busyTimeout", busyTimeout, 0, 3_600_000)
  options.integer("connections", connections, 1, 1_000)
  const url = Redacted.isRedacted(given) ? Redacted.value(given) : given
  if (typeof url !== "string" || url === "") {
    options.refuse("url", url, requirement)
    return options.check({ driver: "sqlite", filename: "", busyMillis })
  }
  const [, scheme, rest = ""] = /^([a-z][a-z0-9+.-]+):(.*)$/is.exec(url) ?? []
  const isPostgres = scheme === "postgres" || scheme === "postgresql"
  // Not the URL itself, which may contain a password.
  if (isPostgres ? !URL.canParse(url) : scheme === "sqlite" ? rest === "" : scheme !== undefined) {
    options.refuse("url", `${scheme}:...`, requirement)
  }
  const username = isPostgres && !hasUser(url) ? systemUser() : undefined
  if (username === "") options.refuse("url", `${scheme}:...`, "must name a user, as postgres://USER@HOST/DATABASE")
  return isPostgres
    ? options.check({ driver: "postgres", username, connections, ...poolerOf(url) })
    : options.check({ driver: "sqlite", filename: scheme === "sqlite" ? rest : url, busyMillis })
}

/** Reads the parameter of a pooler, whose name is that of other clients. The driver does not know it. */
const poolerOf = (text: string): { readonly url: Redacted.Redacted; readonly prepare: boolean } => {
  const url = URL.parse(text)
  if (url?.searchParams.get("pgbouncer") !== "true") return { url: Redacted.make(text), prepare: true }
  url.searchParams.delete("pgbouncer")
  return { url: Redacted.make(url.href), prepare: false }
}

const requirement = "must be postgres://HOST/DATABASE, sqlite:FILE or the path of a file of SQLite"

const hasUser = (url: string): boolean => {
  const parsed = URL.parse(url)
  return parsed === null || parsed.username !== "" || parsed.searchParams.has("user")
}

/** The user of the process, as libpq takes it. The driver would read `USER`, which services and containers often lack. */
const systemUser = (): string => {
  try {
    return userInfo().username
  } catch {
    // A container can run as a user without a name.
    return ""
  }
}
