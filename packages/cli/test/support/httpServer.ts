import { Effect } from "effect"
import type { IncomingHttpHeaders } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

export interface Reply {
  readonly status?: number
  readonly json: object
}

/** A server that keeps the URLs, the headers and the JSON bodies of its requests, and replies with JSON. Stops with the scope. */
export const httpServer = (reply: (body: { readonly [field: string]: unknown }) => Reply) =>
  Effect.acquireRelease(
    Effect.callback<{
      readonly url: string
      readonly paths: Array<string>
      readonly headers: Array<IncomingHttpHeaders>
      readonly bodies: Array<{ readonly [field: string]: unknown }>
      readonly close: () => void
    }>((resume) => {
      const paths: Array<string> = []
      const headers: Array<IncomingHttpHeaders> = []
      const bodies: Array<{ readonly [field: string]: unknown }> = []
      const server = createServer((request, response) => {
        let text = ""
        request.on("data", (data: Buffer) => text += data.toString())
        request.on("end", () => {
          const body: { readonly [field: string]: unknown } = JSON.parse(text)
          paths.push(request.url ?? "")
          headers.push(request.headers)
          bodies.push(body)
          const { json, status = 200 } = reply(body)
          response.writeHead(status, { "content-type": "application/json" })
          response.end(JSON.stringify(json))
        })
      })
      server.listen(0, "127.0.0.1", () => {
        // The address of a server that listens on a port.
        const { port } = server.address() as AddressInfo
        const close = () => {
          server.closeAllConnections()
          server.close()
        }
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}/v1`, paths, headers, bodies, close }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )

/** An answer of OpenAI's chat completions. */
export const chatAnswer = {
  id: "1",
  model: "rules",
  choices: [{ index: 0, message: { content: "fine" }, finish_reason: "stop" }]
}
