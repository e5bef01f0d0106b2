import type { CircuitOpen } from "@sluice/core/CircuitBreaker"
import type { Deadline } from "@sluice/core/Deadline"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { constTrue } from "effect/Function"
import type * as AiRejection from "../../AiRejection.ts"
import type { Settings } from "./settings.ts"
import type { AnyTarget, Target } from "./target.ts"
import type { Asked } from "./targetQuota.ts"

/** A target to ask. `isForced`: its circuit is open, and so are all others. */
export interface Choice<S> {
  readonly target: Target<S>
  readonly isForced: boolean
}

/** The targets that cannot be asked now. `open` is the refusal of the last circuit that was looked at. */
interface Passed {
  readonly skipped: ReadonlyArray<AiRejection.Unavailable>
  readonly open: CircuitOpen | undefined
}

/** What a look at the targets has found so far. */
interface Seen<S> {
  readonly skipped: Array<AiRejection.Unavailable>
  open: CircuitOpen | undefined
  /** The first target whose permits, or calls at once of its quota, are all in use. */
  busy: Target<S> | undefined
  /** The target whose quota has room first. */
  waiting: { readonly target: Target<S>; readonly millis: number } | undefined
  /** The first target whose quota will never have room for the call. */
  refused: Target<S> | undefined
}

/** The result of looking for a target: one to ask, a time to wait before looking again, or none. */
export type Selection<S> =
  | { readonly _tag: "Found"; readonly choice: Choice<S>; readonly skipped: ReadonlyArray<AiRejection.Unavailable> }
  | { readonly _tag: "Wait"; readonly delay: Duration.Duration }
  | { readonly _tag: "None" } & Passed

/** What one call knows of its targets, and which of them it asks next. */
export class Candidates<S> {
  readonly targets: ReadonlyArray<Target<S>>
  private readonly settings: Settings
  private readonly deadline: Deadline | undefined
  private readonly now: () => number
  private readonly asked: (target: AnyTarget) => Asked
  private readonly accepts: (target: Target<S>) => boolean
  private readonly failures = new Map<AnyTarget, number>()
  private readonly excluded = new Set<AnyTarget>()
  /** A target with no more context than this is of no use to the call. */
  private tooSmallContext = 0
  private lastFailed: AnyTarget | undefined = undefined
  /** The target to try again before all others. */
  private here: AnyTarget | undefined = undefined
  private needsPrefill = false

  constructor(
    targets: ReadonlyArray<Target<S>>,
    settings: Settings,
    deadline: Deadline | undefined,
    now: () => number,
    asked: (target: AnyTarget) => Asked,
    accepts: (target: Target<S>) => boolean = constTrue
  ) {
    this.targets = targets
    this.settings = settings
    this.deadline = deadline
    this.now = now
    this.asked = asked
    this.accepts = accepts
  }

  // ---------- what the call has learnt

  failed(target: AnyTarget): void {
    this.lastFailed = target
    this.failures.set(target, this.failuresOf(target) + 1)
  }

  failuresOf(target: AnyTarget): number {
    return this.failures.get(target) ?? 0
  }

  /** The target cannot answer this call. */
  exclude(target: AnyTarget): void {
    this.excluded.add(target)
  }

  /** Tries this target next, if it is available. `undefined`: by the usual order. */
  stayAt(target: AnyTarget | undefined): void {
    this.here = target
  }

  get isStaying(): boolean {
    return this.here !== undefined
  }

  /** From now on selects only targets with `prefill`. Returns whether there is one. */
  requirePrefill(): boolean {
    this.needsPrefill = this.targets.some(({ prefill }) => prefill)
    return this.needsPrefill
  }

  /** The prompt does not fit into the target's context. */
  outgrew({ contextTokens }: AnyTarget): void {
    this.tooSmallContext = Math.max(this.tooSmallContext, contextTokens ?? Number.MAX_SAFE_INTEGER)
  }

  /**
   * Whether another target than the last one can be asked, without looking at its circuit. `"fresh"`: one that has not failed
   * in this call.
   */
  hasOther(which: "fresh" | "any"): boolean {
    const now = this.now()
    return this.targets.some((target) => {
      if (target === this.lastFailed || (which === "fresh" && this.failuresOf(target) > 0)) return false
      const why = this.unavailable(target, now)
      return why === undefined || (which === "any" && why !== "Excluded" && this.isWorthWaiting(why))
    })
  }

  // ---------- the deadline

  // Infinitely far in a shared run one of whose callers has none.
  get deadlineAt(): number {
    return this.deadline?.at ?? Number.POSITIVE_INFINITY
  }

  isInTime(millis: number): boolean {
    return this.now() + millis < this.deadlineAt
  }

  /** How long the call may queue for a permit of the target: not past its deadline. */
  maxWaitMillis({ maxWaitMillis }: AnyTarget): number | undefined {
    if (this.deadlineAt === Number.POSITIVE_INFINITY) return maxWaitMillis
    const left = Math.max(0, this.deadlineAt - this.now())
    return maxWaitMillis === undefined ? left : Math.min(left, maxWaitMillis)
  }

  // ---------- the next target

  /** The first target in order that can be asked. Targets that have failed in this call come last. */
  select(): Effect.Effect<Selection<S>> {
    const now = this.now()
    const skipped: Array<AiRejection.Unavailable> = []
    const usable: Array<Target<S>> = []
    for (const target of this.targets) {
      const why = this.unavailable(target, now)
      if (why === undefined) usable.push(target)
      else if (why !== "Excluded") skipped.push(why)
    }
    if (this.failures.size > 0) usable.sort((a, b) => this.rankOf(a) - this.rankOf(b))
    return this.look(usable, 0, { skipped, open: undefined, busy: undefined, waiting: undefined, refused: undefined })
  }

  private rankOf(target: AnyTarget): number {
    return target === this.here ? -1 : this.failuresOf(target)
  }

  private unavailable(target: AnyTarget, now: number): AiRejection.Unavailable | "Excluded" | undefined {
    if (this.excluded.has(target) || (this.needsPrefill && !target.prefill)) return "Excluded"
    if (!this.hasContext(target)) return { target: target.name, why: "ContextTooSmall" }
    const credentialMillis = target.credential.rest.left(now)
    if (credentialMillis > 0) {
      return { target: target.name, why: "Credential", retryAfter: Duration.millis(credentialMillis) }
    }
    const restOfKey = target.quota?.restOf(this.asked(target).model)
    const restMillis = Math.max(target.rest.left(now), restOfKey?.left(now) ?? 0)
    return restMillis > 0
      ? { target: target.name, why: "RateLimited", retryAfter: Duration.millis(restMillis) }
      : undefined
  }

  private hasContext({ contextTokens }: AnyTarget): boolean {
    return this.tooSmallContext === 0 || (contextTokens !== undefined && contextTokens > this.tooSmallContext)
  }

  /** Looks at the circuits, permits and quotas of the targets, in order, until one is free. */
  private look(usable: ReadonlyArray<Target<S>>, at: number, seen: Seen<S>): Effect.Effect<Selection<S>> {
    const target = usable[at]
    if (target === undefined) return Effect.succeed(this.bestOf(seen))
    const next = () => this.look(usable, at + 1, seen)
    if (!this.accepts(target)) {
      this.exclude(target)
      return next()
    }
    const free: Effect.Effect<Selection<S>> = usable.length === 1
      ? Effect.succeed(found(target, seen.skipped))
      : Effect.suspend(() => this.lookForRoom(target, seen, next))
    if (target.breaker === undefined) return free
    return Effect.matchEffect(target.breaker.check(target.key), {
      onSuccess: () => free,
      onFailure: (open) => {
        seen.skipped.push({ target: target.name, why: "CircuitOpen", retryAfter: open.retryAfter })
        seen.open = open
        return next()
      }
    })
  }

  private lookForRoom(
    target: Target<S>,
    seen: Seen<S>,
    next: () => Effect.Effect<Selection<S>>
  ): Effect.Effect<Selection<S>> {
    const { permits, quota } = target
    const byQuota = quota === undefined
      ? Effect.succeed(found(target, seen.skipped))
      : Effect.flatMap(quota.expectedWait(this.asked(target)), (wait) => {
        const millis = wait === undefined ? undefined : Duration.toMillis(wait)
        if (millis === 0) return Effect.succeed(found(target, seen.skipped))
        const isKnown = wait !== undefined && Duration.isFinite(wait)
        seen.skipped.push({ target: target.name, why: "Quota", ...(isKnown ? { retryAfter: wait } : {}) })
        if (millis === undefined) seen.busy ??= target
        else if (!isKnown) seen.refused ??= target
        else if (seen.waiting === undefined || millis < seen.waiting.millis) seen.waiting = { target, millis }
        return next()
      })
    return permits === undefined ? byQuota : Effect.flatMap(permits.snapshot, ({ capacity, running }) => {
      if (running < capacity) return byQuota
      seen.skipped.push({ target: target.name, why: "Busy" })
      seen.busy ??= target
      return next()
    })
  }

  /**
   * The target at which a call queues if none is free: one that waits for the end of a running call, which is soon, or else the one
   * whose quota has room first. A target whose quota refuses the call is asked only for its refusal.
   */
  private bestOf({ busy, open, refused, skipped, waiting }: Seen<S>): Selection<S> {
    const queue = busy ?? waiting?.target
    if (queue !== undefined) return found(queue, skipped)
    const isRefused = refused !== undefined && skipped.every(({ why }) => why === "Quota")
    return isRefused ? found(refused, skipped) : this.noneOf({ skipped, open })
  }

  /** No target can be asked now: wait for the first that can, if that is soon enough; or ask the least bad one, or none. */
  private noneOf(passed: Passed): Selection<S> {
    const { skipped } = passed
    const delay = soonest(skipped, (unavailable) => this.isWorthWaiting(unavailable))
    if (delay !== undefined) return { _tag: "Wait", delay }
    const forced = this.settings.whenAllOpen === "leastBad" ? this.leastBad(skipped) : undefined
    return forced === undefined
      ? { _tag: "None", ...passed }
      : { _tag: "Found", choice: { target: forced, isForced: true }, skipped }
  }

  // As in `Sluice`, only a call with a deadline waits for a circuit. A target that asked for no calls is waited for like a
  // Retry-After.
  private isWorthWaiting({ retryAfter, why }: AiRejection.Unavailable): boolean {
    if (retryAfter === undefined) return false
    const millis = Duration.toMillis(retryAfter)
    if (!this.isInTime(millis)) return false
    return why === "RateLimited"
      ? millis <= this.settings.maxRetryAfterMillis
      : why === "CircuitOpen" && this.deadlineAt !== Number.POSITIVE_INFINITY
  }

  private leastBad(skipped: ReadonlyArray<AiRejection.Unavailable>): Target<S> | undefined {
    const first = soonest(skipped, ({ why }) => why === "CircuitOpen")
    const name = skipped.find(({ retryAfter, why }) => why === "CircuitOpen" && retryAfter === first)?.target
    return this.targets.find((target) => target.name === name)
  }
}

const found = <S>(target: Target<S>, skipped: ReadonlyArray<AiRejection.Unavailable>): Selection<S> => ({
  _tag: "Found",
  choice: { target, isForced: false },
  skipped
})

/** The shortest retryAfter of those that `isMeant`. */
export const soonest = (
  skipped: ReadonlyArray<AiRejection.Unavailable>,
  isMeant: (unavailable: AiRejection.Unavailable) => boolean
): Duration.Duration | undefined => {
  let soonest: Duration.Duration | undefined
  for (const unavailable of skipped) {
    const { retryAfter } = unavailable
    if (retryAfter === undefined || !isMeant(unavailable)) continue
    if (soonest === undefined || Duration.isLessThan(retryAfter, soonest)) soonest = retryAfter
  }
  return soonest
}
