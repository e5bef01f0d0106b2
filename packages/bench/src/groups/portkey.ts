import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { execFile } from "node:child_process"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { connect, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { promisify } from "node:util"
import { asking, proxy, relayed, running, type Server } from "../front/served.ts"
import type { Builders } from "./builders.ts"

/** Without these versions every stream is an error: the package allows later ones, which it does not work with. */
const manifest = {
  private: true,
  dependencies: { "@portkey-ai/gateway": "1.15.2" },
  overrides: { "hono": "4.9.7", "@hono/node-server": "1.13.5", "@hono/node-ws": "1.2.0" }
}

/**
 * A temporary folder with the gateway. It is no dependency of the workspace: nearly a hundred packages would come with it. Their
 * scripts do not run.
 */
const folder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(async () => {
    const folder = await mkdtemp(join(tmpdir(), "sluice-bench-"))
    await writeFile(join(folder, "package.json"), JSON.stringify(manifest))
    await promisify(execFile)("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder })
    return folder
  }),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.on("error", reject)
    server.listen(0, () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0))
    })
  })

const isUp = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1")
    socket.on("connect", () => {
      socket.destroy()
      resolve(true)
    })
    socket.on("error", () => resolve(false))
  })

/** Portkey's gateway. It listens on all interfaces of the machine, and has no option against that. */
const portkey: Server = (provider) =>
  Effect.gen(function*() {
    const start = join(yield* folder, "node_modules/@portkey-ai/gateway/build/start-server.js")
    const port = yield* Effect.promise(freePort)
    const server = yield* running([start, "--headless", `--port=${port}`], "ignore")
    yield* Effect.promise(async () => {
      while (server.exitCode === null && !await isUp(port)) await setTimeout(50)
    })
    return {
      url: `http://127.0.0.1:${port}/v1`,
      ask: asking(server),
      headers: { "x-portkey-provider": "openai", "x-portkey-custom-host": provider.url, authorization: "Bearer none" }
    }
  })

const servers = { "bare proxy": proxy("bare"), "Sluice": proxy("front"), "Portkey": portkey }

export const builders: Builders<"portkey"> = {
  "portkey-stream": relayed({ form: "stream", concurrency: 32, operations: 64, servers }),
  "portkey-whole": relayed({ form: "whole", concurrency: 1, operations: 100, servers })
}
