import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

/** A provider over HTTP with a ledger by idempotency key: the witness of what was asked and paid. */
export class Provider implements AsyncDisposable {
  /** How often each key was asked while the provider was up. */
  readonly asked = new Map<string, number>()
  /** When each batch was asked last, by `performance.now()`. */
  readonly askedAt = new Map<string, number>()
  /** All calls, also those that were refused. */
  calls = 0
  /** While true, it answers 503. */
  isDown = false
  /** Calls beyond this number wait, so that events meet calls in flight. */
  private room = Infinity
  private readonly held: Array<() => void> = []
  private readonly close: () => Promise<void>
  readonly url: string

  private constructor(url: string, close: () => Promise<void>) {
    this.url = url
    this.close = close
  }

  /** A provider that takes `millis` for an answer, give or take a third. */
  static async start({ millis }: { readonly millis: number }): Promise<Provider> {
    let count = 0
    const server = createServer((request, response) => {
      const key = String(request.headers["idempotency-key"])
      provider.calls += 1
      provider.askedAt.set(key.slice(0, key.indexOf("/")), performance.now())
      const isDown = provider.isDown
      if (!isDown) provider.asked.set(key, (provider.asked.get(key) ?? 0) + 1)
      request.resume()
      const answer = () => void response.writeHead(isDown ? 503 : 200).end(`answer ${key}`)
      // Spread evenly, without chance.
      const wait = () => setTimeout(answer, millis * (0.67 + 0.66 * (count++ * 0.618 % 1)))
      if (isDown || provider.asked.size <= provider.room) wait()
      else provider.held.push(wait)
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    // The address of a server that listens on a port.
    const { port } = server.address() as AddressInfo
    const provider = new Provider(`http://127.0.0.1:${port}/`, async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    })
    return provider
  }

  /** Answers no more than these many keys, until `release`. */
  holdAfter(keys: number): void {
    this.room = keys
  }

  release(): void {
    this.room = Infinity
    for (const wait of this.held.splice(0)) wait()
  }

  /** The calls that were paid if keys are ignored, of one batch. */
  callsOf(batch: string): number {
    let calls = 0
    for (const [key, count] of this.asked) if (key.startsWith(`${batch}/`)) calls += count
    return calls
  }

  keysOf(batch: string): number {
    let keys = 0
    for (const key of this.asked.keys()) if (key.startsWith(`${batch}/`)) keys += 1
    return keys
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release()
    await this.close()
  }
}
