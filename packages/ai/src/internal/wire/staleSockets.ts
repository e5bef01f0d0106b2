import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as Http from "node:http"
import type { Duplex } from "node:stream"

/**
 * How long a connection has to be idle before a reset of it says nothing about the provider.
 *
 * Servers keep idle connections for 2 s and more: gunicorn 2, Node, uvicorn and Apache 5, load balancers 60. After a
 * shorter pause it is the provider that broke off, and the request may have been received and paid for.
 */
export const idleMillis = 1000

/**
 * How soon after the sending the reset has to come. The other end of a stale connection resets it at the first byte, so the answer
 * takes one round trip. After a longer time the server was at work on the request, and it may have been paid for.
 */
export const resetMillis = 1000

/** What Node says about a connection that the other end had closed. */
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
    // Once the request has its connection, the parser reads from it too. Before, a listener would take the bytes away.
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

  private isStale({ reason }: HttpClientError.HttpClientError): boolean {
    return reason._tag === "TransportError" && typeof reason.cause === "object" && reason.cause !== null &&
      this.stale.has(reason.cause)
  }
}

/** Whether the body is still there. A stream was read by the first attempt. */
const canRepeat = ({ body }: HttpClientRequest.HttpClientRequest): boolean =>
  body._tag === "Empty" || body._tag === "Uint8Array"
