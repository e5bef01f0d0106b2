import type * as AiError from "effect/ai/AiError"
import type { CollectLimits } from "../stream/limits.ts"
import type { ModelCall } from "./modelCall.ts"
import type { Target } from "./target.ts"

/** The limits of one attempt at a whole answer. */
export class AttemptLimits<S> implements CollectLimits {
  readonly firstTokenMillis: number
  readonly idleMillis: number
  private readonly call: ModelCall<S>
  private readonly target: Target<S>
  private readonly endsAt: number
  private readonly progress: (() => void) | undefined

  /** `progress` renews the lease of a probe. */
  constructor(call: ModelCall<S>, target: Target<S>, progress: (() => void) | undefined) {
    const { attemptMillis, firstTokenMillis, idleMillis } = target.limits
    this.call = call
    this.target = target
    this.progress = progress
    this.firstTokenMillis = firstTokenMillis
    this.idleMillis = idleMillis
    this.endsAt = call.now() + attemptMillis
  }

  // A getter, since the deadline of a shared run can move.
  get failsAt(): number {
    return Math.min(this.endsAt, this.call.deadline?.at ?? Number.POSITIVE_INFINITY)
  }

  readonly onFirst = (): void => this.call.firstToken()

  readonly onContent = (length: number): void => {
    this.call.received(length)
    this.progress?.()
  }

  readonly silent = (phase: "first" | "idle", parts: number): AiError.AiError =>
    this.call.silent(this.target, phase, parts)
}
