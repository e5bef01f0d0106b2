/** What connects the front's edges with its calls. An answer goes by callbacks, so that no fiber lives as long as a stream. */

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
  /**
   * Whether it is work that can wait, such as a request of a batch. It takes only permits and quota that no other call waits for, and is
   * refused with `backpressure_shed` or `quota_exceeded` otherwise. Default false.
   */
  readonly isBackground?: boolean | undefined
}

/** Receives the answer to a request. */
export interface Sink {
  /** Called once, before `write` and `end`. */
  readonly head: (status: number, headers: OutgoingHeaders) => void
  /** Returns false if the client is slow. `onDrain` reports when it can take more. */
  readonly write: (bytes: Uint8Array) => boolean
  readonly end: (bytes?: Uint8Array | string) => void
  /** Breaks an answer off that has no form of its own for an error. */
  readonly abort: () => void
  /** Sets the listener. A later one replaces it. */
  readonly onDrain: (listener: () => void) => void
  /** Sets the listener, which is called if the client leaves before the end, and at once if it has left. A later one replaces it. */
  readonly onLeave: (listener: () => void) => void
  /**
   * Sets the listener, which is called once the client wants no further attempt. A call whose attempt runs ends with it. One that waits
   * before its next attempt is refused. Without it, only `onLeave` ends a call early.
   */
  readonly onLastAttempt?: ((listener: () => void) => void) | undefined
}
