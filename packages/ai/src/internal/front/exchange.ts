/** The types that connect the front's edges, the relay and the providers. All answers come by callbacks, so that no fiber lives as long as a stream. */

/** Headers by their names in lower case. */
export type IncomingHeaders = Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

/** Headers to send. */
export type OutgoingHeaders = Record<string, string | ReadonlyArray<string>>

/** A request of a client. */
export interface Exchange {
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly headers: IncomingHeaders
  readonly body: Uint8Array
}

/** Receives the answer to a request. */
export interface Sink {
  /** Called once, before `write` and `end`. */
  readonly head: (status: number, headers: OutgoingHeaders) => void
  /** Returns false if the client is slow. `onDrain` reports when it can take more. */
  readonly write: (bytes: Uint8Array) => boolean
  readonly end: (bytes?: Uint8Array | string) => void
  readonly onDrain: (listener: () => void) => void
  /** Calls the listener if the client leaves before the end. */
  readonly onLeave: (listener: () => void) => void
}

/** The response of a provider. */
export interface Outgoing {
  readonly status: number
  readonly headers: IncomingHeaders
  readonly onData: (listener: (bytes: Uint8Array) => void) => void
  readonly onEnd: (listener: () => void) => void
  readonly onLost: (listener: (error: Error) => void) => void
  readonly pause: () => void
  readonly resume: () => void
  /** Closes the connection. No listener is called after it. */
  readonly destroy: () => void
}

/** A request to a provider. */
export interface OutgoingRequest {
  readonly method: string
  readonly url: URL
  readonly headers: OutgoingHeaders
  readonly body: Uint8Array
}

/** Receives the response to a request, or the reason why there is none. One of them is called, once, unless the request was destroyed. */
export interface Answering {
  readonly answer: (outgoing: Outgoing) => void
  readonly lost: (error: Error) => void
}

/** Sends a request to a provider. */
export type Send = (request: OutgoingRequest, on: Answering) => { readonly destroy: () => void }
