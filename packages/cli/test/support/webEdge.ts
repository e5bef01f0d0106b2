/** Serves the Web handler of a front over the target in `TARGET`, and prints the port. */
import * as Front from "@sluice/ai/Front"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"

const front = await Front.make({ targets: [{ name: "a", url: process.env["TARGET"] ?? "", speaks: "openai" }] })

const server = createServer(async (incoming, outgoing) => {
  const { headers, method, url } = incoming
  const response = await front.handler(
    new Request(`http://localhost${url}`, {
      method: method ?? "GET",
      headers: { "content-type": String(headers["content-type"]) },
      body: Buffer.concat(await incoming.toArray())
    })
  )
  outgoing.writeHead(response.status, Object.fromEntries(response.headers))
  if (response.body === null) outgoing.end()
  else await pipeline(Readable.fromWeb(response.body), outgoing)
})

server.listen(0, "127.0.0.1", () => {
  // It listens on a port, so its address is no path.
  const { port } = server.address() as AddressInfo
  process.stdout.write(`port ${port}.\n`)
})
