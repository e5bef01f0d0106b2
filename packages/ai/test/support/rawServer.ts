import { Effect } from "effect"
import type { Scope } from "effect"
import * as Http from "node:http"
import type { AddressInfo, Socket } from "node:net"

export interface Received {
  readonly method: string
  readonly path: string
  readonly headers: Http.IncomingHttpHeaders
  readonly body: string
}

export interface RawServer {
  /** The base URL for a client. */
  readonly url: string
  readonly origin: string
  readonly port: number
  readonly requests: ReadonlyArray<Received>
  /** The number of connections so far. */
  readonly connections: () => number
  /** Waits until the next connection closes. Returns that time in milliseconds. */
  readonly nextClose: Effect.Effect<number>
}

/** Answers a request. `n` is the number of the request, from 1. */
export type Answer = (response: Http.ServerResponse, received: Received, n: number) => void

/** A server whose responses are written by the test, byte for byte. */
export const rawServer = (
  answer: Answer
): Effect.Effect<RawServer, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<Started>((resume) => {
        const requests: Array<Received> = []
        let connections = 0
        let onClose: Array<(at: number) => void> = []
        const server = Http.createServer((request, response) => {
          let body = ""
          request.setEncoding("utf8").on("data", (chunk: string) => body += chunk).on("end", () => {
            const received = { method: request.method!, path: request.url!, headers: request.headers, body }
            requests.push(received)
            answer(response, received, requests.length)
          })
        })
        server.on("connection", (socket: Socket) => {
          connections++
          socket.on("close", () => {
            const waiting = onClose
            onClose = []
            for (const resolve of waiting) resolve(performance.now())
          })
        })
        server.listen(0, "127.0.0.1", () =>
          resume(Effect.succeed({
            server,
            requests,
            connections: () => connections,
            onClose: (resolve) => onClose.push(resolve)
          })))
      }),
      ({ server }) =>
        Effect.callback<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    ),
    ({ connections, onClose, requests, server }) => {
      const { port } = server.address() as AddressInfo
      const origin = `http://127.0.0.1:${port}`
      const nextClose = Effect.callback<number>((resume) => onClose((at) => resume(Effect.succeed(at))))
      return { url: `${origin}/v1`, origin, port, requests, connections, nextClose }
    }
  )

interface Started {
  readonly server: Http.Server
  readonly requests: ReadonlyArray<Received>
  readonly connections: () => number
  readonly onClose: (resolve: (at: number) => void) => void
}

/** Sends the text as an event stream and ends it. */
export const sse = (response: Http.ServerResponse, text: string): void => {
  response.writeHead(200, { "content-type": "text/event-stream" })
  response.end(text)
}

export const json = (
  response: Http.ServerResponse,
  status: number,
  body: unknown,
  headers: Http.OutgoingHttpHeaders = {}
) => {
  response.writeHead(status, { "content-type": "application/json", ...headers })
  response.end(typeof body === "string" ? body : JSON.stringify(body))
}

/** One event of a stream. */
export const event = (data: unknown): string => `data: ${JSON.stringify(data)}\n\n`

export const delta = (content: string) =>
  event({ id: "c1", model: "m1", created: 1_700_000_000, choices: [{ index: 0, delta: { content } }] })

export const finish = (reason = "stop") =>
  event({ id: "c1", choices: [{ index: 0, delta: {}, finish_reason: reason }] })

export const done = "data: [DONE]\n\n"

/** The body of a whole answer. */
export const completion = (message: unknown, more?: object) => ({
  id: "c1",
  model: "m1",
  created: 1_700_000_000,
  choices: [{ index: 0, message, finish_reason: "stop" }],
  ...more
})
