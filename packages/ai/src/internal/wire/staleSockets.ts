import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as Http from "node:http"
import type { Duplex } from "node:stream"

/**
 * The idle time after which a reset of the connection is no failure of the provider.
 *
 * Servers keep idle connections for 2 s and more: gunicorn 2, Node, uvicorn and Apache 5, load balancers 60. After a
 * shorter pause the reset is the provider's, and the request may have been received and paid for.
 */
export const idleMillis = 1000

/**
 * The longest time from the sending to a reset of a stale connection. The other end resets it at the first byte, so the reset
 * takes one round trip. A later reset means that the server was working on the request, which may have been paid for.
 */
export const resetMillis = 1000

/** Node's error codes for a connection that the other end had closed. */
const resets = new Set<unknown>(["ECONNRESET", "EPIPE", "ECONNABORTED"])

/** Marks the errors of requests that were sent on a connection that had been idle, and were reset soon without a byte. */
export class StaleSockets {
  private readonly idleSince = new WeakMap<Duplex, number>()
  private readonly stale = new WeakSet<object>()
  private readonly now: () => number

  /** `now`: a clock in milliseconds that is never set back. */
  constructor(now: () => number) {
    this.now = now
  }

  /** Observes the connections of an agent. */
  watch(agent: Http.Agent): void {
    const keepSocketAlive = agent.keepSocketAlive.bind(agent)
    agent.keepSocketAlive = (socket) => {
      this.idleSince.set(socket, this.now())
      return keepSocketAlive(socket)
    }
    const reuseSocket = agent.reuseSocket.bind(agent)
    agent.reuseSocket = (socket, request) => {
      const since = this.idleSince.get(socket)
      const now = this.now()
      if (since !== undefined && now - since >= idleMillis) this.expectReset(request, now)
      return reuseSocket(socket, request)
    }
  }

  private expectReset(request: Http.ClientRequest, sentAt: number): void {
    let hasBytes = false
    const onData = () => {
      hasBytes = true
    }
    // Once the request has its connection, the parser reads from it too. An earlier listener would consume the bytes.
    request.once("socket", (socket) => {
      socket.once("data", onData)
      request.once("close", () => socket.off("data", onData))
    })
    request.prependOnceListener("error", (error: NodeJS.ErrnoException) => {
      if (!hasBytes && resets.has(error.code) && this.now() - sentAt <= resetMillis) this.stale.add(error)
    })
  }

  /** Sends a request once more, on a connection of `fresh`, if its own connection had gone stale while it was idle. */
  retried(
    client: HttpClient.HttpClient,
    fresh: HttpClient.HttpClient
  ): HttpClient.HttpClient {
    return HttpClient.transform(client, (effect, request) =>
      effect.pipe(
        Effect.catch((error) => this.isStale(error) && canRepeat(request) ? fresh.execute(request) : Effect.fail(error))
      ))
  }

  /** Whether this is the error of a connection that had gone stale. */
  has(error: object): boolean {
    return this.stale.has(error)
  }

  private isStale({ reason }: HttpClientError.HttpClientError): boolean {
    return reason._tag === "TransportError" && typeof reason.cause === "object" && reason.cause !== null &&
      this.stale.has(reason.cause)
  }
}

/** Whether the body can be sent again. The first attempt has consumed a stream. */
const canRepeat = ({ body }: HttpClientRequest.HttpClientRequest): boolean =>
  body._tag === "Empty" || body._tag === "Uint8Array"
