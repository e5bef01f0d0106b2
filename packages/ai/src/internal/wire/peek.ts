import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/** The bytes that are read before `peek` gives up. Servers send blanks to keep a connection alive. */
export const maxHeldBytes = 16 * 1024

export interface Peeked<out A, out E> {
  /** The result of `decide`. `undefined` if the bytes ended or failed before, or exceeded the limit. */
  readonly kind: A | undefined
  /** All bytes, including those that `decide` has read. */
  readonly bytes: Stream.Stream<Uint8Array, E>
}

type Chunks = Arr.NonEmptyReadonlyArray<Uint8Array>

/** Reads the beginning of a stream until `decide` returns a kind. Never fails: reading `bytes` fails instead. */
export const peek = <A, E>(
  bytes: Stream.Stream<Uint8Array, E>,
  decide: (beginning: Uint8Array) => A | undefined
): Effect.Effect<Peeked<A, E>, never, Scope.Scope> =>
  Effect.flatMap(Stream.toPull(bytes), (pull) => {
    let held: Uint8Array = new Uint8Array(0)
    const peeked = (kind: A | undefined, rest: Pull.Pull<Chunks, E>): Peeked<A, E> => {
      let isFirst = held.length > 0
      const next: Pull.Pull<Chunks, E> = Effect.suspend(() => {
        if (!isFirst) return rest
        isFirst = false
        return Effect.succeed<Chunks>([held])
      })
      // `Pull` puts the end of a stream among the errors, and `fromPull` takes it out again.
      return { kind, bytes: Stream.fromPull(Effect.succeed(next)) as Stream.Stream<Uint8Array, E> }
    }
    const read: Effect.Effect<Peeked<A, E>> = Effect.matchCauseEffect(pull, {
      onSuccess: (chunks) => {
        held = join(held, chunks)
        const kind = decide(held)
        return kind === undefined && held.length < maxHeldBytes ? read : Effect.succeed(peeked(kind, pull))
      },
      onFailure: (cause) => Effect.succeed(peeked(undefined, Effect.failCause(cause)))
    })
    return read
  })

const join = (held: Uint8Array, chunks: Chunks): Uint8Array => {
  if (held.length === 0 && chunks.length === 1) return chunks[0]
  const joined = new Uint8Array(chunks.reduce((length, chunk) => length + chunk.length, held.length))
  joined.set(held)
  let at = held.length
  for (const chunk of chunks) {
    joined.set(chunk, at)
    at += chunk.length
  }
  return joined
}
