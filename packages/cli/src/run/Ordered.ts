/** Puts results into the order of the input, for `--ordered`. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Written } from "./Batch.ts"
import type { Engine } from "./Engine.ts"
import type { Malformed, Prompt } from "./Prompt.ts"
import * as Samples from "./Samples.ts"

/** Limits the results that wait for an earlier one. */
export interface Window {
  /** Lines from the first without a written result to the last that was read. */
  readonly lines: number
  /** Bytes of results that wait. No further line is started above it, apart from the first. */
  readonly bytes: number
}

/**
 * The window of a run. It has to hold the lines that pass while one call takes long: with 64 calls of 2 seconds at once and a
 * few of 30 seconds, 16 windows of the concurrency cost 3 % of the time, 8 cost half of it.
 */
export const windowOf = (concurrency: number): Window => ({ lines: 16 * concurrency, bytes: 64 * 2 ** 20 })

/** Writes a result. Calls `written` once it is written, or with the error, and never before it returns. */
type Write<E> = (written: Written<E>) => void

/** A line that was read and has no result yet, or one that waits. */
interface Place<E> {
  /** As `Samples.keyOf` gives it. */
  readonly line: number
  result: { readonly write: Write<E>; readonly bytes: number } | undefined
}

export class Ordered<E> {
  private readonly window: Window
  /** In the order of the input. Those before `head` are done. */
  private places: Array<Place<E>> = []
  private head = 0
  private readonly byLine = new Map<number, Place<E>>()
  private bytes = 0
  /** Done at the next change, and replaced by another one. `undefined` if no one waits. */
  private changed: Deferred.Deferred<void> | undefined

  constructor(window: Window) {
    this.window = window
  }

  /** Gives each item the next place as it is read. */
  items<E2>(items: Stream.Stream<Prompt | Malformed, E2>): Stream.Stream<Prompt | Malformed, E2> {
    // One at a time, since the first items of an array have to pass before its last ones find room.
    return Stream.tap(Stream.rechunk(items, 1), (item) => this.admit(Samples.keyOf(item)))
  }

  /** An engine that starts no prompt while the results that wait take too many bytes. */
  engine(engine: Engine): Engine {
    return {
      ...engine,
      complete: (prompt, turn) => Effect.andThen(this.started(Samples.keyOf(prompt)), engine.complete(prompt, turn))
    }
  }

  /** Gives the line the next place. Waits while the window is full. */
  admit(line: number): Effect.Effect<void> {
    return Effect.andThen(
      this.until(() => this.places.length - this.head < this.window.lines),
      Effect.sync(() => {
        const place: Place<E> = { line, result: undefined }
        this.places.push(place)
        this.byLine.set(line, place)
      })
    )
  }

  /** Waits while results of later lines take too many bytes. The first line never waits, so that it makes room. */
  started(line: number): Effect.Effect<void> {
    return this.until(() => this.bytes < this.window.bytes || this.places[this.head]?.line === line)
  }

  /**
   * Calls `write` once all lines before it were. If an earlier one is missing, calls `written` at once, so that the line frees its
   * turn. The line that is missing is then told that it is written when all that waited for it are, or of their error.
   */
  push(line: number, bytes: number, write: Write<E>, written: Written<E>): void {
    const place = this.byLine.get(line)
    if (place === undefined) return write(written)
    place.result = { write, bytes }
    this.bytes += bytes
    if (place === this.places[this.head]) this.drain(written)
    else queueMicrotask(() => written(undefined))
  }

  /** Writes all results from the head to the next line without one. */
  private drain(written: Written<E>): void {
    const ready: Array<Write<E>> = []
    for (let place = this.places[this.head]; place?.result !== undefined; place = this.places[this.head]) {
      ready.push(place.result.write)
      this.bytes -= place.result.bytes
      this.byLine.delete(place.line)
      this.head++
    }
    // In halves, so that each place is moved a constant number of times.
    if (2 * this.head > this.places.length) {
      this.places = this.places.slice(this.head)
      this.head = 0
    }
    let left = ready.length
    let first: E | undefined
    for (const write of ready) {
      write((error) => {
        first ??= error
        if (--left === 0) written(first)
      })
    }
    const { changed } = this
    this.changed = undefined
    if (changed !== undefined) Deferred.doneUnsafe(changed, Effect.void)
  }

  private until(isReady: () => boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (isReady()) return Effect.void
      this.changed ??= Deferred.makeUnsafe<void>()
      return Effect.andThen(Deferred.await(this.changed), this.until(isReady))
    })
  }
}
