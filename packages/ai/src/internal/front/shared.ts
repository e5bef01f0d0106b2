import * as Deduplicator from "@sluice/core/Deduplicator"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Gate } from "../wire/post.ts"
import type { Exchange, OutgoingHeaders, Sink } from "./exchange.ts"
import type { Refusal } from "./refusal.ts"
import { refuse } from "./reply.ts"
import type { Speaks } from "./route.ts"

/** A piece of an answer. */
type Piece =
  | { readonly _tag: "Head"; readonly status: number; readonly headers: OutgoingHeaders }
  | { readonly _tag: "Bytes"; readonly bytes: Uint8Array }
  | { readonly _tag: "End"; readonly bytes: Uint8Array | string | undefined }
  | { readonly _tag: "Abort" }

type Chunk = readonly [Piece, ...Array<Piece>]

/** Headers that the answer may depend on: whose request it is, and which variant of the API it asks for. */
const distinguishes = (name: string): boolean =>
  name === "authorization" || name.endsWith("api-key") || name.startsWith("anthropic-") || name.startsWith("openai-")

const operation = Deduplicator.operation<Piece>()("front", {
  key: ({ body, headers, path }: Exchange) => [
    path,
    body,
    Object.fromEntries(Object.entries(headers).filter(([name]) => distinguishes(name)))
  ]
})

const busy: Refusal = {
  status: 503,
  code: "backpressure_shed",
  message: "Too many calls are running at the moment.",
  retryAfter: Duration.seconds(1)
}

/** How long clients have to take the end of their answers when the front stops. */
const lastMillis = 1000

/** Lets identical requests in flight share one call. A client that joins reads the answer from its beginning. */
export class Shared {
  private readonly deduplicator: Deduplicator.Deduplicator["Service"]
  private readonly context: Context.Context<never>
  private readonly readers = new Set<Fiber.Fiber<unknown, unknown>>()

  constructor(deduplicator: Deduplicator.Deduplicator["Service"], context: Context.Context<never>) {
    this.deduplicator = deduplicator
    this.context = context
  }

  /** `start`: begins a call whose answer goes to the sink that it gets. */
  answer(exchange: Exchange, speaks: Speaks, sink: Sink, start: (sink: Sink) => void): void {
    let isJoined = false
    const pieces = this.deduplicator.dedupeStream(piecesOf(start), operation(exchange), {
      onServed: (served) => {
        isJoined = served === "Joined"
      }
    })
    let isOver = false
    // Remembers a drain that comes before the fiber waits for it.
    const gate = new Gate()
    sink.onDrain(() => gate.open())
    const read = Stream.runForEachArray(pieces, (chunk) => {
      for (const piece of chunk) {
        switch (piece._tag) {
          case "Head":
            sink.head(piece.status, isJoined ? { ...piece.headers, "x-sluice-shared": "true" } : piece.headers)
            break
          case "Bytes":
            if (!sink.write(piece.bytes)) gate.close()
            break
          case "End":
            isOver = true
            sink.end(piece.bytes)
            break
          case "Abort":
            isOver = true
            sink.abort()
        }
      }
      return isOver ? Effect.void : gate.pass
    })
    const refused = Effect.sync(() => {
      isOver = true
      refuse(sink, speaks, busy)
    })
    const reader = Effect.runForkWith(this.context)(read.pipe(Effect.catch(() => refused)))
    this.readers.add(reader)
    sink.onLeave(() => {
      isOver = true
      reader.interruptUnsafe()
    })
    reader.addObserver(() => {
      this.readers.delete(reader)
      if (!isOver) sink.abort()
    })
  }

  /** Waits until all clients have the end of their answers, but not long. */
  readonly over: Effect.Effect<void> = Effect.suspend(() =>
    Effect.ignore(Effect.timeout(Fiber.awaitAll([...this.readers]), Duration.millis(lastMillis)))
  )
}

/** The answer of a call as a stream. The call begins when the stream is read, and its client leaves when the stream is closed. */
const piecesOf = (start: (sink: Sink) => void): Stream.Stream<Piece> =>
  Stream.fromChannel(
    Channel.fromTransform((_, scope) =>
      Effect.suspend(() => {
        const pieces = new Pieces()
        start(pieces)
        return Effect.as(Scope.addFinalizer(scope, Effect.sync(() => pieces.leave())), pieces.pull)
      })
    )
  )

/** So much waits for the readers before the provider is paused. */
const maxWaiting = 64 * 1024

/** A sink whose pieces are pulled. */
class Pieces implements Sink {
  private pieces: Array<Piece> = []
  private waiting = 0
  private isEnded = false
  private resume: (() => void) | undefined
  private onDrained: () => void = () => {}
  private onLeft: () => void = () => {}

  readonly pull: Pull.Pull<Chunk> = Effect.suspend(() => {
    if (this.pieces.length > 0) return Effect.succeed(this.take())
    return this.isEnded ? Cause.done() : Effect.andThen(this.more, this.pull)
  })

  private readonly more = Effect.callback<void>((resume) => {
    if (this.pieces.length > 0 || this.isEnded) return resume(Effect.void)
    this.resume = () => resume(Effect.void)
  })

  head(status: number, headers: OutgoingHeaders): void {
    this.push({ _tag: "Head", status, headers })
  }

  write(bytes: Uint8Array): boolean {
    this.waiting += bytes.length
    this.push({ _tag: "Bytes", bytes })
    return this.waiting < maxWaiting
  }

  end(bytes?: Uint8Array | string): void {
    this.isEnded = true
    this.push({ _tag: "End", bytes })
  }

  abort(): void {
    this.isEnded = true
    this.push({ _tag: "Abort" })
  }

  onDrain(listener: () => void): void {
    this.onDrained = listener
  }

  onLeave(listener: () => void): void {
    this.onLeft = listener
  }

  /** No reader is left. */
  leave(): void {
    if (!this.isEnded) this.onLeft()
  }

  private take(): Chunk {
    const { pieces } = this
    const wasFull = this.waiting >= maxWaiting
    this.pieces = []
    this.waiting = 0
    if (wasFull) this.onDrained()
    // Only called if there is one.
    return pieces as ReadonlyArray<Piece> as Chunk
  }

  private push(piece: Piece): void {
    this.pieces.push(piece)
    const { resume } = this
    this.resume = undefined
    resume?.()
  }
}
