import { Effect } from "effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

export interface Received {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly body: string
}

export interface StreamingProvider {
  readonly url: string
  readonly received: ReadonlyArray<Received>
  /** Responses that have not ended and whose connection is open. */
  readonly open: () => number
}

/** A provider whose responses are written by the test. It keeps its requests. Stops with the scope. */
export const streamingProvider = (answer: (received: Received, n: number) => void) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<StreamingProvider & { readonly close: () => void }>((resume) => {
        const received: Array<Received> = []
        const server = createServer((request, response) => {
          let body = ""
          request.on("data", (data: Buffer) => body += data.toString("latin1"))
          request.on("error", () => {})
          response.on("error", () => {})
          request.on("end", () => {
            const one = { request, response, body }
            received.push(one)
            answer(one, received.length)
          })
        })
        server.listen(0, "127.0.0.1", () => {
          // It listens on a port, so its address is no path.
          const { port } = server.address() as AddressInfo
          resume(Effect.succeed({
            url: `http://127.0.0.1:${port}/v1`,
            received,
            // A connection can close before its request is handed over, so events would miss some.
            open: () => received.filter(({ response }) => !response.closed && !response.destroyed).length,
            close: () => {
              server.closeAllConnections()
              server.close()
            }
          }))
        })
      }),
      ({ close }) => Effect.sync(close)
    ),
    (provider): StreamingProvider => provider
  )

const event = (choice: object): string => `data: ${JSON.stringify({ id: "c", choices: [{ index: 0, ...choice }] })}\n\n`

/** Events of a stream of chat completions. */
export const head = event({ delta: { role: "assistant", content: "" } })
export const word = (text: string): string => event({ delta: { content: text } })
export const finish = `${event({ delta: {}, finish_reason: "stop" })}data: [DONE]\n\n`

export const begin = ({ response }: Pick<Received, "response">): void => {
  response.writeHead(200, { "content-type": "text/event-stream" })
  response.write(head)
}
