/** Servers in processes of their own, and clients that measure them. */
import * as Effect from "effect/Effect"
import * as Record from "effect/Record"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { Agent, request } from "node:http"
import { fileURLToPath } from "node:url"
import { spread } from "../judge.ts"
import { type Contenders, Effort } from "../measure.ts"
import { pieces, whole } from "./answer.ts"

/** A process with a server. */
export interface Served {
  /** Up to `/v1`. */
  readonly url: string
  /** What the process says to a question. */
  readonly ask: (question: "cpu" | "memory") => Promise<number>
  /** What its clients send besides their own headers. */
  readonly headers?: Readonly<Record<string, string>> | undefined
}

const heard = (running: ChildProcess): Promise<unknown> =>
  new Promise((resolve, reject) => {
    running.once("message", resolve)
    running.once("error", reject)
    running.once("exit", (code) => reject(new Error(`a server ended with exit code ${code}`)))
  })

const meter = new URL("meter.ts", import.meta.url).href

/** Starts a process that can be asked for what it uses. */
export const running = (
  args: ReadonlyArray<string>,
  stdout: "ignore" | "inherit" = "inherit"
): Effect.Effect<ChildProcess, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [...process.execArgv, "--import", meter, ...args], {
        stdio: ["ignore", stdout, stdout, "ipc"]
      })
        .setMaxListeners(0)
    ),
    (running) => Effect.sync(() => running.kill())
  )

export const asking = (running: ChildProcess): Served["ask"] => (question) => {
  const answer = heard(running)
  running.send(question)
  return answer.then(Number)
}

const pathOf = (file: string): string => fileURLToPath(new URL(file, import.meta.url))

const started = (file: string, ...args: ReadonlyArray<string>): Effect.Effect<Served, never, Scope.Scope> =>
  Effect.gen(function*() {
    const server = yield* running([pathOf(file), ...args])
    const url = String(yield* Effect.promise(() => heard(server)))
    return { url, ask: asking(server) }
  })

export const provider = started("provider.ts")

/** Starts a server in front of the provider. */
export type Server = (provider: Served) => Effect.Effect<Served, never, Scope.Scope>

export const proxy = (kind: "bare" | "bare-web" | "front" | "front-web"): Server => ({ url }) =>
  started("proxy.ts", kind, url)

/** What a client asks for. */
export interface Asked {
  readonly path: string
  readonly body: string
  /** Whether an answer of this length, and with this end, is whole. */
  readonly isWhole: (bytes: number, end: string) => boolean
}

export const bodyOf = (asked: object): string =>
  JSON.stringify({ model: "m1", messages: [{ role: "user", content: "What is 1 plus 1? Answer in words." }], ...asked })

const streamBytes = pieces.reduce((sum, { length }) => sum + length, 0)

/** The answers of an API, whole and as a stream. */
export interface Wire {
  readonly whole: Asked
  readonly stream: Asked
}

export const chat: Wire = {
  whole: { path: "/chat/completions", body: bodyOf({}), isWhole: (bytes) => bytes === whole.length },
  stream: { path: "/chat/completions", body: bodyOf({ stream: true }), isWhole: (bytes) => bytes === streamBytes }
}

/** Asks for translations. */
export const messages: Wire = {
  whole: { path: "/messages", body: bodyOf({ max_tokens: 100 }), isWhole: (_, end) => end.endsWith("}") },
  stream: {
    path: "/messages",
    body: bodyOf({ max_tokens: 100, stream: true }),
    isWhole: (_, end) => end.endsWith("data: {\"type\":\"message_stop\"}\n\n")
  }
}

export const json = { "content-type": "application/json" }

/** A client that checks that each answer is whole. */
const client = ({ headers: more, url }: Served, { body, isWhole, path }: Asked, concurrency: number) => {
  const agent = new Agent({ keepAlive: true, maxSockets: concurrency })
  const headers = { ...json, ...more, "content-length": body.length }
  return () =>
    new Promise<void>((resolve, reject) => {
      const sent = request(`${url}${path}`, { agent, method: "POST", headers }, (response) => {
        let bytes = 0
        let end: Buffer | undefined
        response.on("data", (chunk: Buffer) => {
          bytes += chunk.length
          end = chunk
        })
        response.on("end", () =>
          isWhole(bytes, String(end))
            ? resolve()
            : reject(new Error(`an answer of ${bytes} bytes with status ${response.statusCode} is not whole`)))
        response.on("error", reject)
      })
      sent.on("error", reject)
      sent.end(body)
    })
}

/** Does the work as often as that, so many at once. */
export const repeated = async (
  operations: number,
  concurrency: number,
  work: () => Promise<unknown>
): Promise<void> => {
  let left = operations
  const one = async (): Promise<void> => {
    while (left-- > 0) await work()
  }
  await Promise.all(Array.from({ length: concurrency }, one))
}

/** What a row measures. */
export interface Relaying<Name extends string> {
  readonly form: keyof Wire
  readonly concurrency: number
  readonly operations: number
  readonly servers: { readonly [_ in Name]: Server }
  /** What the clients of each server speak. Default chat completions. */
  readonly wires?: { readonly [_ in Name]?: Wire } | undefined
}

const warmUpConcurrency = 4

/** Asks for whole answers, which take less time than streams. What runs once for each call is compiled late. */
export const warmedUp = (ask: () => Promise<unknown>): Effect.Effect<void> =>
  Effect.flatMap(Effort, ({ calls }) => Effect.promise(() => repeated(calls, warmUpConcurrency, ask)))

type Runs<Name extends string> = { readonly [_ in Name]: (operations: number) => Promise<number> }

/** Starts the servers, and makes the rounds of each with `roundOf`. */
const served = <Name extends string>(
  { concurrency, form, operations, servers, wires }: Relaying<Name>,
  roundOf: (server: Served, work: () => Promise<void>) => (operations: number) => Promise<number>
): Effect.Effect<Contenders<Name>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const upstream = yield* provider
    const runs = yield* Effect.forEach(
      Record.toEntries(servers),
      Effect.fnUntraced(function*([name, start]) {
        const server = yield* start(upstream)
        const wire = wires?.[name] ?? chat
        yield* warmedUp(client(server, wire.whole, warmUpConcurrency))
        return [name, roundOf(server, client(server, wire[form], concurrency))] as const
      })
    )
    // Its type forgets the keys.
    return { _tag: "Served", operations, runs: Object.fromEntries(runs) as Runs<Name> }
  })

/** The CPU time of the servers for these requests. That of the client and the provider does not count. */
export const relayed = <Name extends string>(relaying: Relaying<Name>) =>
  served(relaying, ({ ask }, work) => async (operations) => {
    const before = await ask("cpu")
    await repeated(operations, relaying.concurrency, work)
    return (await ask("cpu") - before) / operations
  })

/** The median time from a request to its whole answer. */
export const awaited = <Name extends string>(relaying: Omit<Relaying<Name>, "concurrency">) =>
  served({ ...relaying, concurrency: 1 }, (_, work) => async (operations) => {
    const times: Array<number> = []
    await repeated(operations, 1, async () => {
      const before = performance.now()
      await work()
      times.push(performance.now() - before)
    })
    return spread(times).median * 1e6
  })
