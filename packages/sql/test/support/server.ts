import { execFileSync, spawn } from "node:child_process"
import { existsSync, globSync, mkdtempSync, readFileSync } from "node:fs"
import { connect, createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { tmpdir, userInfo } from "node:os"
import { dirname, join } from "node:path"

/** A Postgres for tests. */
export interface Server {
  /** Without a search path. */
  readonly url: string
  readonly stop: () => void
}

/** A server that a test has for itself. */
export interface OwnServer extends Server {
  /** Crashes the server. It does not write what it has in memory. */
  readonly crash: () => void
  /** Stops the server in order. */
  readonly shutDown: () => void
  readonly start: () => void
  /** Stops its processes, so that connections stay open and nothing is answered. */
  readonly freeze: (isFrozen: boolean) => void
}

export interface ServerOptions {
  readonly env?: { readonly [name: string]: string }
  /** The port of a server of which this one is a replica. */
  readonly replicaOf?: number
  /** Where its folder is made. */
  readonly dataIn?: string
  /** Where its log is, in small files. */
  readonly walIn?: string
}

/** The Postgres at `DATABASE_URL`, or at 127.0.0.1:5432, or a new server. `undefined` if there is none. */
export const findServer = async (): Promise<Server | undefined> => {
  const url = process.env["DATABASE_URL"]
  if (url !== undefined && url !== "") return { url, stop: () => {} }
  if (await accepts(5432)) return { url: urlOf(5432), stop: () => {} }
  return startServer()
}

const urlOf = (port: number): string => `postgres://postgres@127.0.0.1:${port}/postgres`

/**
 * Starts a server, if Postgres is installed. It ends with this process, however that ends. Postgres refuses to run as root, so root runs
 * it as the user `postgres`.
 */
export const startServer = async (
  { dataIn = tmpdir(), env = {}, replicaOf, walIn }: ServerOptions = {}
): Promise<OwnServer | undefined> => {
  const bin = binaries()
  if (bin === undefined) return undefined
  for (let attempt = 0; attempt < 5; attempt++) {
    // Another process may take the free port first. Then try another port.
    const port = await freePort()
    const folder = newFolder(dataIn)
    const wal = walIn === undefined ? "" : newFolder(walIn)
    const options = walIn === undefined ? serverOptions(port) : `${serverOptions(port)} ${smallWal}`
    const primary = String(replicaOf ?? "")
    const shell = spawn("sh", ["-c", guardScript, "sh", bin, folder, options, primary, wal], {
      stdio: ["pipe", "ignore", "ignore"],
      env: { ...process.env, ...env }
    })
    // This process may end while the server runs.
    shell.unref()
    const stop = () => void shell.stdin.end()
    for (let tries = 0; tries < 400; tries++) {
      if (await accepts(port)) return { url: urlOf(port), stop, ...controls(bin, folder, options) }
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    stop()
  }
  return undefined
}

// The shell waits until its input ends: when this process closes it, or dies by any signal. Then it stops the server. A direct
// child of this process would outlive a kill.
const guardScript = `bin=$1 folder=$2 options=$3 primary=$4 wal=$5
as() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
if [ -n "$primary" ]; then
  as "$bin/pg_basebackup" -D "$folder/data" -d "postgres://postgres@127.0.0.1:$primary" -R --checkpoint=fast --no-sync
else
  as "$bin/initdb" -D "$folder/data" -U postgres -A trust --no-sync \${wal:+--waldir="$wal/wal" --wal-segsize=1} >/dev/null
fi
as "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -o "$options" start
cat >/dev/null
as "$bin/pg_ctl" -D "$folder/data" -m immediate stop
rm -rf "$folder" \${wal:+"$wal"}`

const controls = (bin: string, folder: string, options: string): Omit<OwnServer, "url" | "stop"> => {
  const data = join(folder, "data")
  const asRoot = userInfo().uid === 0
  const pgCtl = (...args: ReadonlyArray<string>) => {
    const command = [join(bin, "pg_ctl"), "-D", data, "-w", ...args]
    const [program = "", ...rest] = asRoot ? ["runuser", "-u", "postgres", "--", ...command] : command
    execFileSync(program, rest, { stdio: "ignore" })
  }
  return {
    crash: () => pgCtl("-m", "immediate", "stop"),
    shutDown: () => pgCtl("-m", "fast", "stop"),
    start: () => pgCtl("-l", join(folder, "log"), "-o", options, "start"),
    freeze: (isFrozen) => {
      const [main = ""] = readFileSync(join(data, "postmaster.pid"), "utf8").split("\n")
      const signal = isFrozen ? "SIGSTOP" : "SIGCONT"
      const children = readFileSync(`/proc/${main}/task/${main}/children`, "utf8").trim().split(/\s+/)
      for (const pid of [main, ...children]) send(Number(pid), signal)
    }
  }
}

/** Sends a signal, unless the process has ended since its number was read. */
const send = (pid: number, signal: "SIGSTOP" | "SIGCONT") => {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error
  }
}

const serverOptions = (port: number | string) =>
  `-p ${port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off`

/** In megabytes. */
const smallWal = "-c min_wal_size=2 -c max_wal_size=8"

const newFolder = (parent: string): string => {
  const folder = mkdtempSync(join(parent, "sluice-postgres-"))
  if (userInfo().uid === 0) execFileSync("chown", ["postgres", folder])
  return folder
}

export const isInstalled = (): boolean => binaries() !== undefined

/** The folder of `initdb`. Debian has it outside of the PATH. */
const binaries = (): string | undefined => {
  const folders = (process.env["PATH"] ?? "").split(":").filter((folder) => existsSync(join(folder, "initdb")))
  return [...globSync("/usr/lib/postgresql/*/bin/initdb").map(dirname).toSorted().toReversed(), ...folders][0]
}

/** Whether a server that needs no password answers on the port. */
const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" })
    const settle = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(1_000, () => settle(false))
    socket.on("error", () => settle(false))
    socket.on("close", () => settle(false))
    // The reply to a startup message: R and the method of authentication, of which 0 is none.
    socket.on("data", (data) => settle(data[0] === 0x52 && data.readInt32BE(5) === 0))
    socket.on("connect", () => {
      const body = Buffer.from("\0\x03\0\0user\0postgres\0database\0postgres\0\0", "latin1")
      const length = Buffer.alloc(4)
      length.writeInt32BE(body.length + 4)
      socket.write(Buffer.concat([length, body]))
    })
  })

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.on("error", reject)
    server.listen(0, "127.0.0.1", () => {
      // A string only for a server on a Unix socket.
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
