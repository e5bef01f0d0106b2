import { spawn, spawnSync } from "node:child_process"
import { mkdirSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { userInfo } from "node:os"
import { join } from "node:path"

/** Whether a pooler can be started here: `apt-get install pgbouncer`. */
export const isInstalled = (): boolean => spawnSync("pgbouncer", ["--version"]).status === 0

export interface Pooler {
  /** Of the same database, through the pooler. */
  readonly url: string
  readonly stop: () => void
}

/** Starts a PgBouncer on the port, before the server of the URL. A transaction needs few connections, a session keeps its own. */
export const start = async (
  folder: string,
  server: string,
  mode: "transaction" | "session",
  port: number
): Promise<Pooler> => {
  const { hostname, pathname, port: behind, username } = new URL(server)
  const place = join(folder, `pgbouncer-${mode}`)
  mkdirSync(place)
  const settings = join(place, "pgbouncer.ini")
  writeFileSync(
    settings,
    `[databases]
* = host=${hostname} port=${behind} user=${username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = ${mode}
default_pool_size = ${mode === "transaction" ? 4 : 60}
max_client_conn = 200
`
  )
  // It refuses to run as root.
  const command = ["pgbouncer", "-q", settings]
  const [program = "", ...args] = userInfo().uid === 0
    ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", ...command]
    : command
  if (userInfo().uid === 0) spawnSync("chmod", ["755", folder])
  const pooler = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] })
  let said = ""
  pooler.stderr.on("data", (data: Buffer) => said += data.toString())
  pooler.unref()
  for (let tries = 0;; tries++) {
    if (await accepts(port)) break
    if (tries === 200 || pooler.exitCode !== null) throw new Error(`pgbouncer has not started: ${said}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const parameter = mode === "transaction" ? "?pgbouncer=true" : ""
  return {
    url: `postgres://${username}@127.0.0.1:${port}${pathname}${parameter}`,
    stop: () => void pooler.kill("SIGINT")
  }
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" })
    socket.on("connect", () => resolve(true))
    socket.on("error", () => resolve(false))
    socket.on("close", () => socket.destroy())
    socket.on("connect", () => socket.destroy())
  })
