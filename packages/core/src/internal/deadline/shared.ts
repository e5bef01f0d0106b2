import type { Deadline } from "../../Deadline.ts"

/** A deadline that can move, such as that of a run which several callers share. */
export interface MovingDeadline extends Deadline {
  /** Calls `onEarlier` whenever the moment may have moved closer, until the returned function is called. */
  watch(onEarlier: () => void): () => void
}

export const isMoving = (deadline: Deadline): deadline is MovingDeadline => "watch" in deadline

/** A caller that waits for a shared run. */
export interface Waiter {
  readonly deadline: Deadline | undefined
  /** The caller that joined after this one. */
  readonly next: Waiter | undefined
}

/**
 * The deadline of a shared run: the latest deadline among the callers that wait now.
 *
 * It is infinitely far if one of the callers has no deadline, and for the finalizers of a run that every caller has left.
 */
export abstract class SharedDeadline implements MovingDeadline {
  abstract readonly waiters: { readonly first: Waiter | undefined }
  private watchers: Set<() => void> | undefined
  /** The earliest moment that was reported to a watcher. */
  private watchedAt = Number.POSITIVE_INFINITY
  private deadlineOfLastWaiter: Deadline | undefined

  get at(): number {
    return this.latest()?.at ?? Number.POSITIVE_INFINITY
  }

  get budgetMillis(): number {
    return this.latest()?.budgetMillis ?? Number.POSITIVE_INFINITY
  }

  /** `at`, or what it was before the last caller left: decides whether a run that every caller has left was late. */
  get lastMoment(): number {
    if (this.waiters.first !== undefined) return this.at
    return this.deadlineOfLastWaiter === undefined
      ? Number.POSITIVE_INFINITY
      : lastMomentOf(this.deadlineOfLastWaiter)
  }

  /** A caller left. If it alone had the latest deadline, the moment has moved closer. */
  onLeave(waiter: Waiter): void {
    if (this.waiters.first === undefined) this.deadlineOfLastWaiter = waiter.deadline
    if (this.watchers === undefined) return
    const moment = momentOf(waiter)
    if (moment < this.watchedAt || this.isAwaitedUntil(moment)) return
    this.watchedAt = Math.min(this.watchedAt, this.at)
    for (const onEarlier of Array.from(this.watchers)) onEarlier()
  }

  watch(onEarlier: () => void): () => void {
    this.watchers ??= new Set()
    this.watchers.add(onEarlier)
    this.watchedAt = Math.min(this.watchedAt, this.at)
    const stops = [() => this.unwatch(onEarlier)]
    // A caller can be part of another shared run, whose deadline moves as well.
    for (let { first: waiter } = this.waiters; waiter !== undefined; waiter = waiter.next) {
      if (waiter.deadline !== undefined && isMoving(waiter.deadline)) stops.push(waiter.deadline.watch(onEarlier))
    }
    return () => {
      for (const stop of stops) stop()
    }
  }

  private unwatch(onEarlier: () => void): void {
    this.watchers?.delete(onEarlier)
    if (this.watchers?.size !== 0) return
    this.watchers = undefined
    this.watchedAt = Number.POSITIVE_INFINITY
  }

  private isAwaitedUntil(moment: number): boolean {
    for (let { first: waiter } = this.waiters; waiter !== undefined; waiter = waiter.next) {
      if (momentOf(waiter) >= moment) return true
    }
    return false
  }

  private latest(): Deadline | undefined {
    let latest: Deadline | undefined
    for (let { first: waiter } = this.waiters; waiter !== undefined; waiter = waiter.next) {
      const { deadline } = waiter
      if (deadline === undefined) return undefined
      if (latest === undefined || deadline.at > latest.at) latest = deadline
    }
    return latest
  }
}

/** The moment of a deadline; of a shared one that every caller has left, what it was before. */
export const lastMomentOf = (deadline: Deadline): number =>
  deadline instanceof SharedDeadline ? deadline.lastMoment : deadline.at

const momentOf = ({ deadline }: Waiter): number => deadline?.at ?? Number.POSITIVE_INFINITY
