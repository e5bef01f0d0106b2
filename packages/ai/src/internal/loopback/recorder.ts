import type * as Clock from "effect/Clock"
import type { Mutable } from "effect/Types"
import type * as Journal from "../../testing/Journal.ts"

/** An entry while its request runs. */
export type Draft = Mutable<Journal.Entry>

/** Keeps the journal of the last `capacity` requests. */
export class Recorder {
  private readonly clock: Clock.Clock
  private readonly capacity: number
  private drafts: Array<Draft> = []
  private count = 0
  private openNow = 0
  /** How many older requests were dropped. */
  dropped = 0

  constructor(clock: Clock.Clock, capacity: number) {
    this.clock = clock
    this.capacity = capacity
  }

  now(): typeof Journal.Instant.Type {
    return {
      epoch: this.clock.currentTimeMillisUnsafe(),
      monotonic: Number(this.clock.monotonicTimeNanosUnsafe()) / 1e6
    }
  }

  begin(): Draft {
    const draft: Draft = {
      n: ++this.count,
      digest: "",
      attempt: 1,
      model: "",
      down: false,
      received: this.now(),
      ending: "open",
      inputTokens: 0,
      outputTokens: 0,
      open: ++this.openNow
    }
    this.drafts.push(draft)
    if (this.drafts.length > this.capacity) {
      this.drafts.shift()
      this.dropped++
    }
    return draft
  }

  /** Only the first end of a request counts. */
  end(draft: Draft, ending: Journal.Entry["ending"]): void {
    if (draft.ending !== "open") return
    draft.ending = ending
    draft.ended = this.now()
    this.openNow--
  }

  entries(): ReadonlyArray<Journal.Entry> {
    return this.drafts.map((draft) => ({ ...draft }))
  }

  clear(): void {
    this.drafts = []
    this.count = 0
    this.dropped = 0
  }
}
