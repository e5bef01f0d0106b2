import { execFileSync, spawn } from "node:child_process"
import { existsSync, globSync, mkdtempSync } from "node:fs"
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
export const startServer = async (): Promise<Server | undefined> => {
  const bin = binaries()
  if (bin === undefined) return undefined
  for (let attempt = 0; attempt < 5; attempt++) {
    // Another process may take the free port first. Then try another port.
    const port = await freePort()
    const shell = spawn("sh", ["-c", guardScript, "sh", bin, newFolder(), String(port)], {
      stdio: ["pipe", "ignore", "ignore"]
    })
    // This process may end while the server runs.
    shell.unref()
    const stop = () => void shell.stdin.end()
    for (let tries = 0; tries < 400; tries++) {
      if (await accepts(port)) return { url: urlOf(port), stop }
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    stop()
  }
  return undefined
}

// The shell waits until its input ends: when this process closes it, or dies by any signal. Then it stops the server. A direct
// child of this process would outlive a kill.
const guardScript = `bin=$1 folder=$2 port=$3
as() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
as "$bin/initdb" -D "$folder/data" -U postgres -A trust --no-sync >/dev/null
as "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -F" start
cat >/dev/null
as "$bin/pg_ctl" -D "$folder/data" -m immediate stop
rm -rf "$folder"`

const newFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-postgres-"))
  if (userInfo().uid === 0) execFileSync("chown", ["postgres", folder])
  return folder
}

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
