import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { randomUUID } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  findServer,
  isInstalled,
  type OwnServer,
  type Server,
  type ServerOptions,
  startServer
} from "../../../sql/test/support/server.ts"
import { type Disk, smallDisk } from "./disk.ts"

/** The part of a database that belongs to a scenario. */
export interface Place extends AsyncDisposable {
  readonly url: string
}

export interface PlaceOnDisk extends Place {
  readonly disk: Disk
  /** Starts a database that did not survive the full disk. */
  readonly mend?: () => void
}

const sqliteIn = (folder: string): string => `sqlite:${join(folder, "batches.db")}`

const sqlite = (): Promise<Place> => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-sqlite-"))
  return Promise.resolve({
    url: sqliteIn(folder),
    [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true })
  })
}

/** A new schema of a server. */
const postgres = async (server: Server): Promise<Place> => {
  const schema = `sluice_test_${randomUUID().replaceAll("-", "")}`
  const run = (statement: string) =>
    Effect.runPromise(
      SqlClient.SqlClient.use((sql) => sql.unsafe(statement)).pipe(
        Effect.provide(SqlDatabase.layer({ url: server.url }))
      )
    )
  await run(`create schema ${schema}`)
  const url = new URL(server.url)
  url.searchParams.set("options", `-csearch_path=${schema}`)
  return { url: url.href, [Symbol.asyncDispose]: async () => void await run(`drop schema ${schema} cascade`) }
}

const required = <S>(server: S | undefined): S => {
  if (server === undefined) throw new Error("no Postgres by DATABASE_URL, at 127.0.0.1:5432 or in /usr/lib/postgresql")
  return server
}

/** A database of each kind. */
export const all = {
  SQLite: sqlite,
  Postgres: async () => postgres(required(await findServer()))
}

/** A server that a scenario may restart. */
export const ownServer = async (options?: ServerOptions): Promise<OwnServer & AsyncDisposable> => {
  const server = required(await startServer(options))
  return { ...server, [Symbol.asyncDispose]: () => Promise.resolve(server.stop()) }
}

/** A disk that holds the results of these many requests of 4 KB, or why there is none. */
const diskFor = (requests: number) => smallDisk(128 + Math.ceil(requests / 100))

const postgresOn = async (disk: Disk, options: ServerOptions): Promise<PlaceOnDisk> => {
  const server = required(await startServer(options))
  const mend = () => {
    try {
      server.crash()
    } catch {
      // It has ended by itself.
    }
    server.start()
  }
  return {
    url: server.url,
    disk,
    // A server that cannot write its log ends.
    ...(options.walIn === disk.folder && { mend }),
    [Symbol.asyncDispose]: async () => {
      server.stop()
      await Promise.resolve(disk.remove())
    }
  }
}

type OnDisk = (requests: number) => Promise<PlaceOnDisk | string>

const whereInstalled = (place: (disk: Disk) => Promise<PlaceOnDisk>): OnDisk => async (requests) => {
  if (!isInstalled()) return "Postgres is not installed"
  const disk = await diskFor(requests)
  return typeof disk === "string" ? disk : place(disk)
}

/** A database of each kind on a disk that a scenario may fill, or why there is none. */
export const onSmallDisk: { readonly [name: string]: OnDisk } = {
  SQLite: async (requests) => {
    const disk = await diskFor(requests)
    if (typeof disk === "string") return disk
    return {
      url: sqliteIn(disk.folder),
      disk,
      [Symbol.asyncDispose]: () => Promise.resolve(disk.remove())
    }
  },
  "the data of Postgres": whereInstalled((disk) => postgresOn(disk, { dataIn: disk.folder, walIn: tmpdir() })),
  "the log of Postgres": whereInstalled((disk) => postgresOn(disk, { walIn: disk.folder }))
}
