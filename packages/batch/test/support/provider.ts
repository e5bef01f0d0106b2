import { randomBytes } from "node:crypto"
import type { AddressInfo } from "node:net"
import { serve } from "./http.ts"

/** The provider's counts of one batch. */
class Ledger {
  /** How often each request was asked while the provider was up, by its place in the batch. */
  readonly asked: Array<number> = []
  /** Requests that were asked. */
  keys = 0
  calls = 0
  /** When it was asked last, by `performance.now()`. */
  askedAt = -Infinity

  add(seq: number): void {
    const before = this.asked[seq] ?? 0
    this.asked[seq] = before + 1
    if (before === 0) this.keys += 1
    this.calls += 1
  }
}

/** A provider over HTTP with a ledger by idempotency key: the witness of what was asked and paid. */
export class Provider implements AsyncDisposable {
  private readonly ledgers = new Map<string, Ledger>()
  /** All calls, also those that were refused. */
  calls = 0
  /** While true, it answers 503. */
  isDown = false
  /** Calls beyond this number of keys wait, so that events meet calls in flight. */
  private room = Infinity
  private keys = 0
  private readonly running = new Map<string, number>()
  private readonly held: Array<() => void> = []
  private readonly close: () => Promise<void>
  private readonly padding: string
  readonly url: string

  private constructor(url: string, padding: string, close: () => Promise<void>) {
    this.url = url
    this.padding = padding
    this.close = close
  }

  /** A provider that takes `millis` for an answer, give or take a third. */
  static async start(
    { answerBytes = 0, millis }: { readonly millis: number; readonly answerBytes?: number }
  ): Promise<Provider> {
    // A database cannot compress it.
    const padding = randomBytes(Math.ceil(answerBytes / 2)).toString("hex")
    let count = 0
    const server = serve(({ answer, key, worker }) => {
      const slash = key.indexOf("/")
      const ledger = provider.ledgerOf(key.slice(0, slash))
      const isDown = provider.isDown
      provider.calls += 1
      provider.count(worker, 1)
      ledger.askedAt = performance.now()
      if (!isDown) {
        const { keys } = ledger
        ledger.add(Number(key.slice(slash + 1)))
        provider.keys += ledger.keys - keys
      }
      // Spread evenly, without chance.
      const wait = () =>
        void setTimeout(() => {
          provider.count(worker, -1)
          answer(isDown ? 503 : 200, provider.answerTo(key))
        }, millis * (0.67 + 0.66 * (count++ * 0.618 % 1)))
      if (isDown || provider.keys <= provider.room) wait()
      else provider.held.push(wait)
    })
    const sockets = new Set<{ destroy: () => unknown }>()
    server.on("connection", (socket) => {
      sockets.add(socket)
      socket.on("close", () => sockets.delete(socket))
    })
    // As many connections as calls in flight come at once.
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", 10_000, resolve))
    // The address of a server that listens on a port.
    const { port } = server.address() as AddressInfo
    const provider = new Provider(`http://127.0.0.1:${port}/`, padding, async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    })
    return provider
  }

  private count(worker: string, calls: number): void {
    this.running.set(worker, this.inFlightOf(worker) + calls)
  }

  /** Calls of a process that are not answered. */
  inFlightOf(worker: string): number {
    return this.running.get(worker) ?? 0
  }

  private ledgerOf(batch: string): Ledger {
    let ledger = this.ledgers.get(batch)
    if (ledger === undefined) this.ledgers.set(batch, ledger = new Ledger())
    return ledger
  }

  /** Answers no more than these many keys, until `release`. */
  holdAfter(keys: number): void {
    this.room = keys
  }

  release(): void {
    this.room = Infinity
    for (const wait of this.held.splice(0)) wait()
  }

  /** The charges of a provider that ignores keys, of one batch. */
  callsOf(batch: string): number {
    return this.ledgerOf(batch).calls
  }

  /** The charges of a provider that honours keys. */
  keysOf(batch: string): number {
    return this.ledgerOf(batch).keys
  }

  askedAt(batch: string): number {
    return this.ledgerOf(batch).askedAt
  }

  wasAsked(batch: string, seq: number): boolean {
    return (this.ledgerOf(batch).asked[seq] ?? 0) > 0
  }

  answerTo(key: string): string {
    return `answer ${key} ${this.padding}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release()
    await this.close()
  }
}
