import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { constTrue } from "effect/Function"
import * as HttpHeaders from "effect/http/Headers"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpMethod from "effect/http/HttpMethod"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import type { ResponseHead } from "./failure.ts"

/** Receives the response to one request. Nothing is called after `ended`, `lost` or `died`, or after `Exchange.close`. */
export interface Listener {
  readonly answered: (head: ResponseHead) => void
  readonly data: (bytes: Uint8Array) => void
  readonly ended: () => void
  /** The connection failed, before the response or within it. */
  readonly lost: (error: HttpClientError.HttpClientError) => void
  readonly died: (cause: Cause.Cause<never>) => void
}

/** A request that was sent. */
export interface Exchange {
  /** Closes the connection, unless the response has ended. */
  readonly close: () => void
  /** Stops reading. A little more can still arrive. */
  readonly pause: () => void
  readonly resume: () => void
}

/** Holds up a fiber that reads while the exchange is paused. */
export class Gate {
  private isClosed = false
  private open_: (() => void) | undefined

  readonly pass: Effect.Effect<void> = Effect.suspend(() => this.isClosed ? this.waiting : Effect.void)

  private readonly waiting = Effect.callback<void>((resume) => {
    if (!this.isClosed) return resume(Effect.void)
    this.open_ = () => resume(Effect.void)
  })

  close(): void {
    this.isClosed = true
  }

  open(): void {
    this.isClosed = false
    this.open_?.()
    this.open_ = undefined
  }
}

/** A request to a provider. */
export interface Sent {
  readonly method: HttpMethod.HttpMethod
  readonly url: URL
  /** With the type of the body. The transport adds `content-length`. */
  readonly headers: Readonly<Record<string, string | ReadonlyArray<string>>>
  readonly body: string | Uint8Array
}

/** Sends a request and reads the response by callbacks. A fiber for each piece would cost more than reading it. */
export type Post = (sent: Sent, listener: Listener, context: Context.Context<never>) => Exchange

const posts = new WeakMap<HttpClient.HttpClient, Post>()

/** The way around a client. `undefined` for a client that is not of `HttpTransport`, or that a caller has transformed. */
export const postOf = (client: HttpClient.HttpClient): Post | undefined => posts.get(client)

/** Returns the client, with a way around it. */
export const withPost = (client: HttpClient.HttpClient, post: Post): HttpClient.HttpClient => {
  posts.set(client, post)
  return client
}

/** Posts through any client, in a fiber. */
export const postThrough = (client: HttpClient.HttpClient): Post => {
  const scoped = HttpClient.withScope(client)
  return ({ body, headers, method, url }, listener, context) => {
    let isOver = false
    const gate = new Gate()
    const request = withBody(
      HttpClientRequest.make(method)(url.href, { headers: HttpHeaders.fromInput(headers) }),
      body
    )
    const received = Effect.flatMap(scoped.execute(request), (response) => {
      if (!isOver) listener.answered(response)
      return Stream.runForEachArray(response.stream, (chunks) => {
        for (const chunk of chunks) if (!isOver) listener.data(chunk)
        return gate.pass
      })
    })
    const fiber = Effect.runForkWith(context)(
      Effect.scoped(Effect.provideService(received, HttpClient.TracerDisabledWhen, constTrue))
    )
    fiber.addObserver((exit) => {
      if (isOver) return
      isOver = true
      if (Exit.isSuccess(exit)) return listener.ended()
      const error = Cause.hasDies(exit.cause) ? undefined : Cause.findError(exit.cause)
      if (error !== undefined && Result.isSuccess(error)) listener.lost(error.success)
      // Without a failure: a defect of the client, or an interruption by it.
      else listener.died(exit.cause as Cause.Cause<never>)
    })
    return {
      close: () => {
        if (isOver) return
        isOver = true
        fiber.interruptUnsafe()
      },
      pause: () => gate.close(),
      resume: () => gate.open()
    }
  }
}

const withBody = (
  request: HttpClientRequest.HttpClientRequest,
  body: string | Uint8Array
): HttpClientRequest.HttpClientRequest => {
  if (body.length === 0) return request
  const type = request.headers["content-type"]
  return typeof body === "string"
    ? HttpClientRequest.bodyText(request, body, type)
    : HttpClientRequest.bodyUint8Array(request, body, type)
}
