import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import { callAfter } from "../../Timer.ts"
import { type Linked, LinkedList } from "./linkedList.ts"

/** Something that is due after a time. */
export interface Timeout extends Linked<Timeout> {
  readonly millis: number
  /** Epoch milliseconds of the clock. Set by `Timeouts.start`. */
  dueAt: number
  /** Called at most once, when it is due. It has left the list by then. */
  onDue(now: number): void
}

/** Timeouts of one length, and the timer of the first. */
interface Line {
  readonly timeouts: LinkedList<Timeout>
  cancelTimer: () => void
}

/**
 * Timeouts that share timers. Of several with the same length the one that started first is due first, so a list and one
 * timer serve them all: starting and cancelling are O(1), and thousands of waiters are not thousands of timers.
 */
export class Timeouts {
  private readonly context: Context.Context<never>
  private readonly clock: Clock.Clock
  /** By length. A line without timeouts is removed. */
  private readonly lines = new Map<number, Line>()

  constructor(context: Context.Context<never>) {
    this.context = context
    this.clock = Context.get(context, Clock.Clock)
  }

  start(timeout: Timeout, now: number): void {
    const { millis } = timeout
    timeout.dueAt = now + millis
    let line = this.lines.get(millis)
    if (line === undefined) {
      line = { timeouts: new LinkedList(), cancelTimer: () => {} }
      this.lines.set(millis, line)
      this.arm(line, timeout.dueAt, millis)
    }
    line.timeouts.append(timeout)
  }

  cancel(timeout: Timeout): void {
    const line = this.lines.get(timeout.millis)
    if (line === undefined) return
    line.timeouts.remove(timeout)
    // While others are left the timer stays, even if it was armed for this one: cancelling stays O(1).
    if (line.timeouts.first !== undefined) return
    line.cancelTimer()
    this.lines.delete(timeout.millis)
  }

  private arm(line: Line, dueAt: number, millis: number): void {
    line.cancelTimer = callAfter(this.context, millis, () => this.onTimer(line, dueAt))
  }

  // When the timer fires it is `dueAt`, even if the clock was set back meanwhile.
  private onTimer(line: Line, dueAt: number): void {
    const now = Math.max(dueAt, this.clock.currentTimeMillisUnsafe())
    for (let { first } = line.timeouts; first !== undefined; { first } = line.timeouts) {
      if (first.dueAt > now) return this.arm(line, first.dueAt, first.dueAt - now)
      this.cancel(first)
      first.onDue(now)
    }
  }
}
