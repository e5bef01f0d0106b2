import { execFileSync, spawn } from "node:child_process"
import { mkdtempSync } from "node:fs"
import { connect, createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A Redis that tests may talk to. */
export interface Server {
  readonly url: string
  readonly stop: () => void
}

/** By REDIS_URL, at its usual port on this machine, or started from the `redis-server` of the PATH; else undefined. */
export const findServer = async (): Promise<Server | undefined> => {
  const url = process.env["REDIS_URL"]
  if (url !== undefined && url !== "") return { url, stop: () => {} }
  if (await answersPing(6379)) return { url: urlOf(6379), stop: () => {} }
  return startServer()
}

const urlOf = (port: number): string => `redis://127.0.0.1:${port}`

/**
 * A server of one's own, if there is a `redis-server` on the PATH: nothing of it outlives this process, in whatever way that
 * ends. As a cluster it is one node that has all slots, and refuses what would not work on several.
 */
export const startServer = async (mode: "alone" | "cluster" = "alone"): Promise<Server | undefined> => {
  if (!isInstalled()) return undefined
  for (let attempt = 0; attempt < 5; attempt++) {
    // Between the look for a free port and its use somebody may take it: then we look for another.
    const cluster = mode === "cluster" ? { "cluster-enabled": "yes", "cluster-port": String(await freePort()) } : {}
    const server = spawnServer(await freePort(), cluster)
    if (await isReady(server, mode)) return { url: urlOf(server.port), stop: server.stop }
    server.stop()
  }
  return undefined
}

interface Spawned {
  readonly port: number
  readonly stop: () => void
}

// The shell waits for the end of its input, which comes when this process closes it or dies by whatever signal, and clears up.
// A server that were this process's own child would outlive it.
const guarded = `folder=$1
shift
redis-server "$@" >/dev/null 2>&1 &
server=$!
cat >/dev/null
kill -9 $server
wait $server
rm -rf "$folder"`

const spawnServer = (port: number, more: { readonly [option: string]: string }): Spawned => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-redis-"))
  const options = { port: String(port), bind: "127.0.0.1", save: "", appendonly: "no", dir: folder, ...more }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  const shell = spawn("sh", ["-c", guarded, "sh", folder, ...args], { stdio: ["pipe", "ignore", "ignore"] })
  // What is over does not wait for its server.
  shell.unref()
  return { port, stop: () => void shell.stdin.end() }
}

const isReady = async (server: Spawned, mode: "alone" | "cluster"): Promise<boolean> => {
  const ask = (command: string) => answerOf(server.port, command)
  for (let look = 0; look < 200; look++) {
    if (mode === "alone" && (await ask("PING")).startsWith("+PONG")) return true
    if (mode === "cluster" && (await ask("CLUSTER INFO")).includes("cluster_state:ok")) return true
    // It refuses what it has already.
    if (mode === "cluster") await ask("CLUSTER ADDSLOTSRANGE 0 16383")
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

// One that wants a password is not ours to test with.
const answersPing = async (port: number): Promise<boolean> => (await answerOf(port, "PING")).startsWith("+PONG")

/** The beginning of what a server says; nothing if it says nothing. */
const answerOf = (port: number, command: string): Promise<string> =>
  new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" })
    const settle = (answer: string) => {
      socket.destroy()
      resolve(answer)
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
      // A server that listens on a port has an address that is no string.
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
