/** Writes texts in batches, so that a busy run makes one system call per turn of the event loop and not one per line. */
import * as Effect from "effect/Effect"

/** Called once the system has taken a text, or with the error that prevented it. */
export type Written<E> = (error: E | undefined) => void

/** What came of a batch: how many of its texts the system has taken whole, and the error if these are not all. */
export interface Taken<E> {
  readonly whole: number
  readonly error: E | undefined
}

/** Appends texts in order. Must not reject. */
export type Append<E> = (texts: ReadonlyArray<string>) => Promise<Taken<E>>

/** Queues texts and writes one batch at a time. The first error ends it, and is the answer to all later texts. */
export class Batch<E> {
  private readonly append: Append<E>
  private texts: Array<string> = []
  private waiting: Array<Written<E>> = []
  private isWriting = false
  private isDue = false
  private error: E | undefined
  private readonly onSettled: Array<() => void> = []

  constructor(append: Append<E>) {
    this.append = append
  }

  /** Queues a text until the end of this turn. Never calls `written` before it returns. */
  push(text: string, written: Written<E>): void {
    const { error } = this
    if (error !== undefined) return queueMicrotask(() => written(error))
    this.texts.push(text)
    this.waiting.push(written)
    if (this.isWriting || this.isDue) return
    this.isDue = true
    setImmediate(() => {
      this.isDue = false
      this.flush()
    })
  }

  /** Starts to write what is queued, unless a batch is being written. What is queued then follows that batch. */
  flush(): void {
    if (!this.isWriting && this.texts.length > 0) void this.drain()
  }

  /** Waits until no text is queued or being written. */
  readonly settled: Effect.Effect<void> = Effect.callback((resume) => {
    this.flush()
    if (this.isWriting) this.onSettled.push(() => resume(Effect.void))
    else resume(Effect.void)
  })

  private async drain(): Promise<void> {
    this.isWriting = true
    while (this.texts.length > 0) {
      const { texts, waiting } = this
      this.texts = []
      this.waiting = []
      const { error, whole } = await this.append(texts)
      this.error = error
      for (const [index, written] of waiting.entries()) written(index < whole ? undefined : error)
      if (error !== undefined) this.refuse(error)
    }
    this.isWriting = false
    for (const settled of this.onSettled.splice(0)) settled()
  }

  private refuse(error: E): void {
    this.texts = []
    for (const written of this.waiting.splice(0)) written(error)
  }
}
