import type * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Redacted } from "effect"
import { Agent, request } from "node:http"
import { connect } from "node:net"
import { join } from "node:path"
import type { Command } from "./command.ts"
import * as Process from "./command.ts"
import { says } from "./provider.ts"

export interface Gateway {
  readonly command: Command
  /** Without a path. */
  readonly url: string
  readonly port: number
  /** The token that it printed. Empty if clients need keys. */
  readonly token: string
}

type Environment = { readonly [name: string]: string }

/** Starts `sluice serve`, by default on a free port, with its keys in the folder. Kills it with the scope. */
export const start = (directory: string, args: ReadonlyArray<string>, env: Environment = {}, atPort = 0) =>
  Effect.gen(function*() {
    const command = yield* Effect.acquireRelease(
      Effect.sync(() => Process.start(["serve", "--port", String(atPort), ...args], env, directory)),
      ({ process }) => Effect.sync(() => process.kill("SIGKILL"))
    )
    yield* says(command, "started")
    const welcome = yield* Effect.promise(() => command.says("Ctrl-C stops it."))
    const port = Number(/:(\d+)/.exec(welcome)?.[1])
    const token = /sluice_[\w-]+/.exec(welcome)?.[0] ?? ""
    return { command, url: `http://127.0.0.1:${port}`, port, token } satisfies Gateway
  })

/** The flags and the environment of a gateway with the targets `a`, `b` and so on. */
export const over = (...providers: ReadonlyArray<LoopbackProvider.LoopbackProvider["Service"]>) => ({
  args: providers.flatMap(({ url }, index) => ["--target", `${"abc"[index]}=${url}`]),
  env: Object.fromEntries(
    providers.flatMap(({ apiKey }, index) =>
      apiKey === undefined ? [] : [[`SLUICE_KEY_${"ABC"[index]}`, Redacted.value(apiKey)]]
    )
  )
})

export const keysIn = (directory: string): string => join(directory, "sluice-keys.sqlite")

/** Runs `sluice keys` in a folder. */
export const keys = (directory: string, ...args: ReadonlyArray<string>) =>
  Effect.promise(() => Process.run(["keys", ...args], {}, directory))

/** Adds a key and returns its token. */
export const addKey = (directory: string, ...args: ReadonlyArray<string>) =>
  Effect.map(keys(directory, "add", ...args), ({ stdout }) => stdout.trim())

export interface Answer {
  readonly status: number
  readonly headers: { readonly [name: string]: string | ReadonlyArray<string> | undefined }
  readonly text: string
}

interface Sent {
  readonly method?: string
  readonly headers?: { readonly [name: string]: string }
  readonly body?: string
}

/** Sends a request with exactly these headers over a connection that is kept. */
export const send = ({ port }: Pick<Gateway, "port">, path: string, { body, headers = {}, method }: Sent = {}) =>
  Effect.promise(() =>
    new Promise<Answer>((resolve, reject) => {
      // As the official clients do.
      const agent = new Agent({ keepAlive: true })
      const sent = request({
        port,
        host: "127.0.0.1",
        path,
        method: method ?? (body === undefined ? "GET" : "POST"),
        headers: { ...headers },
        agent
      }, (response) => {
        const chunks: Array<Buffer> = []
        response.on("data", (chunk: Buffer) => chunks.push(chunk))
        response.on("error", reject)
        response.on("end", () => {
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text: Buffer.concat(chunks).toString()
          })
          // After a pause, in which a client would send its next request.
          setTimeout(() => agent.destroy(), 1_000)
        })
      })
      sent.on("error", reject)
      sent.end(body)
    })
  )

/** Asks for a chat completion. */
export const ask = (gateway: Pick<Gateway, "port">, token: string, more: { readonly [field: string]: unknown } = {}) =>
  send(gateway, "/v1/chat/completions", {
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ model: "m", messages: [{ role: "user", content: "Hello" }], ...more })
  })

export type Fields = { readonly [field: string]: unknown }

/** What a live page gets at its start: the targets, the changes by hand and the like. */
export const snapshot = ({ token, url }: Pick<Gateway, "token" | "url">) =>
  Effect.promise(async (signal) => {
    const response = await fetch(`${url}/sluice/events`, { headers: { authorization: `Bearer ${token}` }, signal })
    let text = ""
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk).toString()
      const [, json] = /event: snapshot\ndata: (.*)\n\n/.exec(text) ?? []
      // What the gateway sends is read here, not checked.
      if (json !== undefined) return JSON.parse(json) as { readonly [field: string]: ReadonlyArray<Fields> }
    }
    throw new Error(`no snapshot: ${text}`)
  })

/** Sends bytes over a connection of its own, and returns all that comes until it closes. */
export const sendRaw = ({ port }: Pick<Gateway, "port">, text: string | Uint8Array) =>
  Effect.promise(() =>
    new Promise<string>((resolve) => {
      let received = ""
      const socket = connect(port, "127.0.0.1", () => socket.write(text))
      socket.on("data", (data) => received += data.toString())
      socket.on("error", () => {})
      socket.on("close", () => resolve(received))
      socket.setTimeout(30_000, () => socket.destroy())
    })
  )

/** The lines of the log on standard error. */
export const logsOf = (stderr: string): ReadonlyArray<{ readonly [field: string]: unknown }> =>
  stderr.trim().split("\n").map((line) => JSON.parse(line))
