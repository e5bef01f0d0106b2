import * as Front from "@sluice/ai/Front"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ClientRequest, request } from "node:http"
// The guard that the front puts around every stream. The package does not export it, so it is imported by its path.
import { Guard } from "../../../ai/src/internal/front/guard.ts"
import { pieces } from "../front/answer.ts"
import {
  type Asked,
  awaited,
  bodyOf,
  chat,
  json,
  messages,
  provider,
  proxy,
  relayed,
  repeated,
  warmedUp
} from "../front/served.ts"
import { type Contenders, timed } from "../measure.ts"
import type { Builders } from "./builders.ts"

type Pair = Contenders<"bare proxy" | "Sluice">

const node = { "bare proxy": proxy("bare"), "Sluice": proxy("front") }
const web = { "bare proxy": proxy("bare"), "bare Web proxy": proxy("bare-web"), "Sluice": proxy("front-web") }

/** How many requests a round has. */
const streams = { form: "stream", concurrency: 32, operations: 64 } as const
const wholes = { form: "whole", concurrency: 1, operations: 100 } as const

const heldStreams = 500
const heldBody = bodyOf({ model: "held", stream: true })

/** Resident bytes. A process keeps what it has, so each round has a process of its own. */
const held = Effect.gen(function*(): Effect.fn.Return<Pair, never, Scope.Scope> {
  const upstream = yield* provider
  const of = (kind: "bare" | "front") => () =>
    Effect.runPromise(Effect.scoped(Effect.flatMap(proxy(kind)(upstream), (served) =>
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
    const headers = { ...json, "content-length": heldBody.length }
    const sent = request(`${url}/chat/completions`, { agent: false, method: "POST", headers }, (response) => {
      response.once("data", () => resolve(sent))
      response.on("error", () => {})
    })
    sent.on("error", reject)
    sent.end(heldBody)
  })

const inProcess = Effect.gen(function*(): Effect.fn.Return<Contenders<"fetch of Node" | "Sluice">, never, Scope.Scope> {
  const { url } = yield* provider
  const targets = [{ name: "provider", url, speaks: "openai" as const }]
  const front = yield* Effect.acquireRelease(
    Effect.promise(() => Front.make({ targets })),
    (front) => Effect.promise(() => front.close())
  )
  const of = Effect.fnUntraced(function*(fetch: (url: string, init: RequestInit) => Promise<Response>) {
    const ask = ({ body, isWhole, path }: Asked) => async () => {
      const response = await fetch(`${url}${path}`, { method: "POST", headers: json, body })
      let bytes = 0
      for await (const { length } of response.body ?? []) bytes += length
      if (!isWhole(bytes, "")) throw new Error(`an answer of ${bytes} bytes is not whole`)
    }
    yield* warmedUp(ask(chat.whole))
    return async (operations: number) => {
      const before = process.cpuUsage()
      await repeated(operations, streams.concurrency, ask(chat.stream))
      const { system, user } = process.cpuUsage(before)
      return (user + system) * 1_000 / operations
    }
  })
  return {
    _tag: "Served",
    operations: streams.operations,
    runs: { "fetch of Node": yield* of(fetch), "Sluice": yield* of(front.fetch) }
  }
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
  "front-stream": relayed({ ...streams, servers: node }),
  "front-whole": relayed({ ...wholes, servers: node }),
  "front-latency": awaited({ ...wholes, servers: node }),
  "front-translated": relayed({ ...streams, servers: node, wires: { "Sluice": messages } }),
  "front-web-stream": relayed({ ...streams, servers: web }),
  "front-web-whole": relayed({ ...wholes, servers: web }),
  "front-fetch": inProcess,
  "front-guard": guard,
  "front-memory": held
}
