import * as Front from "@sluice/ai/Front"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { Agent, type ClientRequest, request } from "node:http"
import { fileURLToPath } from "node:url"
// The guard that the front puts around every stream. The package does not export it, so it is imported by its path.
import { Guard } from "../../../ai/src/internal/front/guard.ts"
import { pieces, whole } from "../front/answer.ts"
import { type Contenders, timed } from "../measure.ts"
import type { Builders } from "./builders.ts"

/** A process with a server. */
interface Served {
  readonly url: string
  /** What the process says to a question. */
  readonly ask: (question: string) => Promise<number>
}

const heard = (running: ChildProcess): Promise<unknown> =>
  new Promise((resolve, reject) => {
    running.once("message", resolve)
    running.once("error", reject)
    running.once("exit", (code) => reject(new Error(`a server ended with exit code ${code}`)))
  })

const started = (file: string, ...args: ReadonlyArray<string>): Effect.Effect<Served, never, Scope.Scope> =>
  Effect.gen(function*() {
    const running = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [...process.execArgv, fileURLToPath(new URL(file, import.meta.url)), ...args], {
          stdio: ["ignore", "inherit", "inherit", "ipc"]
        }).setMaxListeners(0)
      ),
      (running) => Effect.sync(() => running.kill())
    )
    const url = String(yield* Effect.promise(() => heard(running)))
    return {
      url,
      ask: (question) => {
        const answer = heard(running)
        running.send(question)
        return answer.then(Number)
      }
    }
  })

const provider = started("../front/provider.ts")
const proxy = (kind: "bare" | "front", { url }: Served) => started("../front/proxy.ts", kind, url)

const bodyOf = (asked: object): string =>
  JSON.stringify({ model: "m1", messages: [{ role: "user", content: "What is 1 plus 1? Answer in words." }], ...asked })

const wholeBody = bodyOf({})
const streamBody = bodyOf({ stream: true })
const heldBody = bodyOf({ model: "held", stream: true })

const bytesOf = (body: string): number =>
  body === wholeBody ? whole.length : pieces.reduce((sum, { length }) => sum + length, 0)

const headersOf = { "content-type": "application/json" }

/** A client of a server that checks that each answer is whole. */
const client = (url: string, body: string, concurrency: number) => {
  const agent = new Agent({ keepAlive: true, maxSockets: concurrency })
  const headers = { ...headersOf, "content-length": body.length }
  const expected = bytesOf(body)
  return () =>
    new Promise<void>((resolve, reject) => {
      const sent = request(`${url}/chat/completions`, { agent, method: "POST", headers }, (response) => {
        let bytes = 0
        response.on("data", ({ length }: Buffer) => {
          bytes += length
        })
        response.on("end", () =>
          bytes === expected ? resolve() : reject(new Error(`${bytes} bytes instead of ${expected}`)))
        response.on("error", reject)
      })
      sent.on("error", reject)
      sent.end(body)
    })
}

/** Does the work as often as that, so many at once. */
const repeated = async (operations: number, concurrency: number, work: () => Promise<unknown>): Promise<void> => {
  let left = operations
  const one = async (): Promise<void> => {
    while (left-- > 0) await work()
  }
  await Promise.all(Array.from({ length: concurrency }, one))
}

type Pair = Contenders<"bare proxy" | "Sluice">

/** The CPU time of the proxies for these requests. That of the client and the provider does not count. */
const relayed = (body: string, concurrency: number, operations: number) =>
  Effect.gen(function*(): Effect.fn.Return<Pair, never, Scope.Scope> {
    const upstream = yield* provider
    const of = (served: Served) => {
      const work = client(served.url, body, concurrency)
      return async (operations: number): Promise<number> => {
        const before = await served.ask("cpu")
        await repeated(operations, concurrency, work)
        return (await served.ask("cpu") - before) / operations
      }
    }
    return {
      _tag: "Served",
      operations,
      runs: { "bare proxy": of(yield* proxy("bare", upstream)), "Sluice": of(yield* proxy("front", upstream)) }
    }
  })

const heldStreams = 500

/** Resident bytes. A process keeps what it has, so each round has a process of its own. */
const held = Effect.gen(function*(): Effect.fn.Return<Pair, never, Scope.Scope> {
  const upstream = yield* provider
  const of = (kind: "bare" | "front") => () =>
    Effect.runPromise(Effect.scoped(Effect.flatMap(proxy(kind, upstream), (served) =>
      Effect.promise(async () => {
        const open = (count: number) => Promise.all(Array.from({ length: count }, () => opened(served.url)))
        // What the first streams compile and allocate is not theirs.
        const streams = await open(heldStreams / 10)
        const before = await served.ask("memory")
        streams.push(...await open(heldStreams))
        const bytes = await served.ask("memory") - before
        for (const stream of streams) stream.destroy()
        return bytes / heldStreams
      }))))
  return { _tag: "Process", runs: { "bare proxy": of("bare"), "Sluice": of("front") } }
})

/** Opens a stream, and reads its first output. */
const opened = (url: string): Promise<ClientRequest> =>
  new Promise((resolve, reject) => {
    const headers = { ...headersOf, "content-length": heldBody.length }
    const sent = request(`${url}/chat/completions`, { agent: false, method: "POST", headers }, (response) => {
      response.once("data", () => resolve(sent))
      response.on("error", () => {})
    })
    sent.on("error", reject)
    sent.end(heldBody)
  })

const fetchConcurrency = 32

const inProcess = Effect.gen(function*() {
  const { url } = yield* provider
  const targets = [{ name: "provider", url, speaks: "openai" as const }]
  const front = yield* Effect.acquireRelease(
    Effect.promise(() => Front.make({ targets })),
    (front) => Effect.promise(() => front.close())
  )
  const expected = bytesOf(streamBody)
  const of = (fetch: (url: string, init: RequestInit) => Promise<Response>) => (operations: number) =>
    repeated(operations, fetchConcurrency, async () => {
      const response = await fetch(`${url}/chat/completions`, { method: "POST", headers: headersOf, body: streamBody })
      let bytes = 0
      for await (const { length } of response.body ?? []) bytes += length
      if (bytes !== expected) throw new Error(`${bytes} bytes instead of ${expected}`)
    })
  return timed({ "fetch of Node": of(fetch), "Sluice": of(front.fetch) })
})

const received = pieces.map((piece) => Buffer.from(piece))
let guarded = 0

const guard = Effect.sync(() =>
  timed({
    "no guard": async (streams) => {
      for (; streams > 0; streams--) for (const piece of received) guarded += piece.length
    },
    "Sluice": async (streams) => {
      for (; streams > 0; streams--) {
        const guard = new Guard("chat")
        for (const piece of received) guarded += guard.feed(piece)?.length ?? 0
        if (!guard.isComplete) throw new Error("the stream is complete")
      }
    }
  })
)

export const builders: Builders<"front"> = {
  "front-stream": relayed(streamBody, 32, 64),
  "front-whole": relayed(wholeBody, 1, 100),
  "front-fetch": inProcess,
  "front-guard": guard,
  "front-memory": held
}
