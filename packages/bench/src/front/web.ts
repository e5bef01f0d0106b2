/** Serves a handler of Web requests on `node:http`, as frameworks do. */
import { Agent, type IncomingMessage, request, type RequestListener } from "node:http"

export type Handler = (request: Request) => Promise<Response>

export const webServer = (handler: Handler): RequestListener => (received, response) => {
  const chunks: Array<Buffer> = []
  const answer = async () => {
    const left = new AbortController()
    response.on("close", () => {
      if (!response.writableFinished) left.abort()
    })
    const { headers, method = "GET", url } = received
    const { body, headers: answered, status } = await handler(
      new Request(`http://${headers.host}${url}`, {
        method,
        headers: headersOf(received),
        body: Buffer.concat(chunks),
        signal: left.signal
      })
    )
    response.writeHead(status, Object.fromEntries(answered))
    for await (const chunk of body ?? []) response.write(chunk)
    response.end()
  }
  received.on("data", (chunk: Buffer) => chunks.push(chunk))
  received.on("end", () => {
    answer().catch(() => response.destroy())
  })
}

const headersOf = ({ headers }: IncomingMessage): Array<[string, string]> =>
  Object.entries(headers).map(([name, value]) => [name, String(value)])

/** A handler that only copies, with the client of `node:http`: `fetch` costs more. */
export const bareHandler = (upstream: string): Handler => {
  const agent = new Agent({ keepAlive: true })
  const { hostname, port } = new URL(upstream)
  return async (received) => {
    const body = new Uint8Array(await received.arrayBuffer())
    const { pathname } = new URL(received.url)
    const headers = Object.fromEntries(received.headers)
    return new Promise((resolve, reject) => {
      const sent = request({ agent, hostname, port, method: received.method, path: pathname, headers }, (answer) => {
        resolve(new Response(bodyOf(answer), { status: answer.statusCode ?? 502, headers: headersOf(answer) }))
      })
      sent.on("error", reject)
      received.signal.addEventListener("abort", () => sent.destroy())
      sent.end(body)
    })
  }
}

const bodyOf = (answer: IncomingMessage): ReadableStream<Uint8Array> =>
  new ReadableStream({
    start: (controller) => {
      answer.on("data", (chunk: Buffer) => controller.enqueue(chunk))
      answer.on("end", () => controller.close())
      answer.on("error", (error) => controller.error(error))
    }
  })
