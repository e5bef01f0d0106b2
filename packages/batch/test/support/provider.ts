import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

/** A provider over HTTP that honours idempotency keys, with a ledger: what it was asked, and what it was paid for. */
export class Provider {
  asked = 0
  readonly paid = new Set<string>()
  /** While true, it answers 503. */
  isDown = false
  running = 0

  static async start(options: { readonly millis: number }): Promise<Provider & AsyncDisposable> {
    const provider = new Provider()
    const server = createServer((request, response) => {
      const key = String(request.headers["idempotency-key"])
      provider.asked += 1
      provider.running += 1
      const millis = options.millis * (0.67 + 0.66 * Math.random())
      request.resume()
      const timer = setTimeout(() => {
        if (!provider.isDown) provider.paid.add(key)
        response.writeHead(provider.isDown ? 503 : 200).end(`answer ${key}`)
      }, millis)
      response.once("close", () => {
        clearTimeout(timer)
        provider.running -= 1
      })
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    // The address of a server that listens on a port.
    const { port } = server.address() as AddressInfo
    return Object.assign(provider, {
      url: `http://127.0.0.1:${port}/`,
      [Symbol.asyncDispose]: async () => {
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      }
    })
  }

  url = ""
}
