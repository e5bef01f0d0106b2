/**
 * A server between clients and the provider: the front, or a proxy of `node:http` that only copies. Sends its URL to its parent, and
 * what it uses when it is asked: CPU time in nanoseconds, or resident bytes after a collection.
 */
import * as Front from "@sluice/ai/Front"
import { Agent, createServer, request, type RequestListener } from "node:http"

const [kind, upstream = ""] = process.argv.slice(2)

const bare = (): RequestListener => {
  const agent = new Agent({ keepAlive: true })
  const { hostname, port } = new URL(upstream)
  return (received, response) => {
    const { headers, method, url } = received
    const sent = request({ agent, hostname, port, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    sent.on("error", () => response.destroy())
    response.on("close", () => {
      if (!response.writableFinished) sent.destroy()
    })
    received.pipe(sent)
  }
}

const front = async (): Promise<RequestListener> => {
  const { listener } = await Front.make({ targets: [{ name: "provider", url: upstream, speaks: "openai" }] })
  return listener
}

const used = (of: unknown): number => {
  if (of === "memory") {
    for (let times = 0; times < 2; times++) globalThis.gc?.({ type: "major", execution: "sync" })
    return process.memoryUsage.rss()
  }
  const { system, user } = process.cpuUsage()
  return (user + system) * 1_000
}

const server = createServer(kind === "front" ? await front() : bare())
server.listen(0, "127.0.0.1", () => {
  const address = server.address()
  if (typeof address === "object") process.send?.(`http://127.0.0.1:${address?.port}/v1`)
})
process.on("message", (of) => process.send?.(used(of)))
process.once("disconnect", () => process.exit())
