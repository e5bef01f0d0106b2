/** Servers that a soak has for itself, which it restarts and freezes, and a file of SQLite, which it locks. */
import { once } from "node:events"
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { lock } from "../../packages/sql/test/support/fileFaults.ts"
import * as Postgres from "../../packages/sql/test/support/server.ts"

export interface Server {
  readonly url: string
  /** What `restart` and `freeze` do. */
  readonly labels: { readonly restart: string; readonly freeze: string }
  /** Whether a process that was stopped holds a lock that the others wait for. */
  readonly isHeld: () => Promise<boolean>
  /** Stops it in order, and starts it again after the time. What was answered is kept. */
  readonly restart: (downMillis: number) => Promise<void>
  /** Its connections stay open, and nothing is answered for the time. */
  readonly freeze: (millis: number) => Promise<void>
  readonly stop: () => Promise<void>
}

const labels = { restart: "server restarted", freeze: "server stopped for a while" }

const isHeld = () => Promise.resolve(false)

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/** A Redis on a Unix socket, which writes each change to a file before it answers. */
export const redis = async (): Promise<Server> => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-soak-"))
  const path = join(folder, "redis.sock")
  const options = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "yes", "--dir", folder]
  let child: ChildProcess
  const start = async () => {
    child = spawn("redis-server", options, { stdio: "ignore" })
    const missing = new Promise<never>((_, reject) => child.once("error", reject))
    for (let tries = 0; !await Promise.race([answers(path), missing]); tries++) {
      if (tries === 400) throw new Error("redis-server does not answer")
      await sleep(25)
    }
  }
  const end = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, "exit")
    child.kill("SIGCONT")
    child.kill("SIGTERM")
    await ended
  }
  // A soak that is stopped leaves no server behind.
  const onExit = () => void child.kill("SIGKILL")
  process.once("exit", onExit)
  await start()
  return {
    url: `unix://${path}`,
    labels,
    isHeld,
    restart: async (downMillis) => {
      await end()
      await sleep(downMillis)
      await start()
    },
    freeze: async (millis) => {
      child.kill("SIGSTOP")
      await sleep(millis)
      child.kill("SIGCONT")
    },
    stop: async () => {
      await end()
      process.off("exit", onExit)
      rmSync(folder, { recursive: true })
    }
  }
}

const answers = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(path, () => void socket.write("PING\r\n"))
    socket.on("error", () => resolve(false))
    socket.on("data", (data) => {
      resolve(data.toString().startsWith("+PONG"))
      socket.destroy()
    })
  })

export const postgres = async (): Promise<Server> => {
  const server = await Postgres.startServer()
  if (server === undefined) throw new Error("no Postgres is installed")
  return {
    url: server.url,
    labels,
    isHeld,
    restart: async (downMillis) => {
      server.shutDown()
      await sleep(downMillis)
      server.start()
    },
    freeze: async (millis) => {
      server.freeze(true)
      await sleep(millis)
      server.freeze(false)
    },
    stop: async () => server.stop()
  }
}

/** A file of SQLite. In place of a restart it is locked for 5 s. */
export const sqlite = async (): Promise<Server> => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-soak-"))
  const file = join(folder, "soak.db")
  const locked = async (millis: number) => {
    const release = await lock(file)
    await sleep(millis)
    await release()
  }
  const isFree = () => {
    const db = new DatabaseSync(file, { timeout: 0 })
    try {
      db.exec("BEGIN IMMEDIATE; ROLLBACK")
      return true
    } catch {
      return false
    } finally {
      db.close()
    }
  }
  return {
    url: `sqlite:${file}`,
    labels: { restart: "file locked for 5 s", freeze: "file locked for a moment" },
    isHeld: async () => {
      for (let tries = 0; tries < 10; tries++) {
        if (isFree()) return false
        await sleep(10)
      }
      return true
    },
    restart: () => locked(5_000),
    freeze: locked,
    stop: async () => rmSync(folder, { recursive: true })
  }
}

/** Whether both servers are installed. */
export const areInstalled = async (): Promise<boolean> => {
  const version = spawn("redis-server", ["--version"], { stdio: "ignore" })
  const hasRedis = await Promise.race([
    once(version, "exit").then(() => true),
    once(version, "error").then(() => false)
  ]).catch(() => false)
  return hasRedis && Postgres.isInstalled()
}
