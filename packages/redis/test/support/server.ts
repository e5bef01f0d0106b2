import { execFileSync, spawn } from "node:child_process"
import { mkdtempSync } from "node:fs"
import { connect, createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A Redis for tests. */
export interface Server {
  readonly url: string
  readonly stop: () => void
}

/** What a server of its own is started with. */
export interface ServerOptions {
  /** A cluster is a single node with all slots; it refuses commands that span slots. */
  readonly mode?: "alone" | "cluster"
  /** Of `redis-server`, in addition to those of all servers here. */
  readonly config?: { readonly [option: string]: string }
  readonly env?: { readonly [name: string]: string }
}

/** The Redis at `REDIS_URL`, or at 127.0.0.1:6379, or a new `redis-server`. `undefined` if there is none. */
export const findServer = async (): Promise<Server | undefined> => {
  const url = process.env["REDIS_URL"]
  if (url !== undefined && url !== "") return { url, stop: () => {} }
  if (await answersPing(6379)) return { url: urlOf(6379), stop: () => {} }
  return startServer()
}

const urlOf = (port: number): string => `redis://127.0.0.1:${port}`

/** Starts a server if `redis-server` is on the PATH. It ends with this process, however that ends. */
export const startServer = async (
  { config = {}, env = {}, mode = "alone" }: ServerOptions = {}
): Promise<Server | undefined> => {
  if (!isInstalled()) return undefined
  for (let attempt = 0; attempt < 5; attempt++) {
    // Another process may take the free port first. Then try another port.
    const cluster = mode === "cluster" ? { "cluster-enabled": "yes", "cluster-port": String(await freePort()) } : {}
    const server = spawnServer(await freePort(), { ...cluster, ...config }, env)
    if (await isReady(server, mode)) return { url: urlOf(server.port), stop: server.stop }
    server.stop()
  }
  return undefined
}

interface Spawned {
  readonly port: number
  readonly stop: () => void
}

// The shell waits until its input ends: when this process closes it, or dies by any signal. Then it kills the server. A direct
// child of this process would outlive a kill.
const guardScript = `folder=$1
shift
redis-server "$@" >/dev/null 2>&1 &
server=$!
cat >/dev/null
kill -9 $server
wait $server
rm -rf "$folder"`

const spawnServer = (
  port: number,
  extra: { readonly [option: string]: string },
  env: { readonly [name: string]: string }
): Spawned => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-redis-"))
  const options = { port: String(port), bind: "127.0.0.1", save: "", appendonly: "no", dir: folder, ...extra }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  const shell = spawn("sh", ["-c", guardScript, "sh", folder, ...args], {
    stdio: ["pipe", "ignore", "ignore"],
    env: { ...process.env, ...env }
  })
  // This process may end while the server runs.
  shell.unref()
  return { port, stop: () => void shell.stdin.end() }
}

const isReady = async (server: Spawned, mode: "alone" | "cluster"): Promise<boolean> => {
  const send = (command: string) => replyOf(server.port, command)
  for (let tries = 0; tries < 200; tries++) {
    if (mode === "alone" && (await send("PING")).startsWith("+PONG")) return true
    if (mode === "cluster" && (await send("CLUSTER INFO")).includes("cluster_state:ok")) return true
    // Fails if the node has the slots already.
    if (mode === "cluster") await send("CLUSTER ADDSLOTSRANGE 0 16383")
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  return false
}

const isInstalled = (): boolean => {
  try {
    execFileSync("redis-server", ["--version"], { stdio: "ignore" })
    return true
  } catch {
    return false
  }
}

// False for a server with a password, which is not meant for tests.
const answersPing = async (port: number): Promise<boolean> => (await replyOf(port, "PING")).startsWith("+PONG")

/** The start of the reply. Empty if there is none. */
const replyOf = (port: number, command: string): Promise<string> =>
  new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" })
    const settle = (reply: string) => {
      socket.destroy()
      resolve(reply)
    }
    socket.setTimeout(1_000, () => settle(""))
    socket.on("error", () => settle(""))
    socket.on("close", () => settle(""))
    socket.on("data", (data) => settle(data.toString()))
    socket.on("connect", () => socket.write(`${command}\r\n`))
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
