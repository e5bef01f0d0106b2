import type * as Admission from "@sluice/core/Admission"
import { success } from "@sluice/core/Outcome"
import type * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as AiRejection from "../../AiRejection.ts"
import type { Headers } from "../../RetryAfter.ts"
import type { Attempt as Watch } from "../telemetry/attempt.ts"
import type { Choice } from "./candidates.ts"
import type { Engine, Opening } from "./engine.ts"
import { timedOut } from "./errors.ts"
import type { ModelCall } from "./modelCall.ts"
import type * as Parts from "./parts.ts"
import type { Target } from "./target.ts"
import type { Charge } from "./targetQuota.ts"

/** What is known of an answer at its end, complete or not. */
export interface Ending {
  readonly reason?: Parts.Finish["reason"] | undefined
  /** The token counts, as far as the provider has reported them. */
  readonly usage?: Parts.Finish["usage"] | undefined
  /** About how long the answer is, in characters. */
  readonly length: number
}

/**
 * One attempt whose answer outlives the effect that opened it. It holds its admission and its reservation until `complete`,
 * `failed` or `left`, which callbacks call. The first of them counts.
 */
export class HeldAttempt<S> {
  readonly call: ModelCall<S>
  readonly target: Target<S>
  private readonly engine: Engine<S>
  private readonly admission: Admission.Admission
  private readonly charge: Charge | undefined
  private readonly context: Context.Context<never>
  /** Ends the call with the exit of this attempt. */
  private readonly end: (exit: Exit.Exit<unknown, AiError.AiError>) => void
  private admitted: Admission.Admitted | undefined
  /** What was admitted, if it is a probe of its circuit. */
  private probe: Admission.Admitted | undefined
  private watch: Watch | undefined
  private endsAt = Number.POSITIVE_INFINITY
  private isSettled = false

  constructor(
    engine: Engine<S>,
    call: ModelCall<S>,
    { isForced, target }: Choice<S>,
    context: Context.Context<never>,
    prefill: string | undefined,
    end: (exit: Exit.Exit<unknown, AiError.AiError>) => void
  ) {
    this.engine = engine
    this.call = call
    this.target = target
    this.context = context
    this.end = end
    this.admission = isForced ? target.forced : target.admission
    this.charge = call.chargeFor(target, undefined, prefill)
  }

  // ---------- until the answer is open

  /** Admits the attempt and opens its answer. If that fails or is interrupted, everything is given back. */
  open<A>(opening: Opening<S, A>): Effect.Effect<A, AiError.AiError> {
    const { call, target } = this
    let scope: Scope.Closeable | undefined
    const opened = Effect.suspend((): Effect.Effect<A, Admission.Refused | AiError.AiError> => {
      const options = call.admitOptions(target, this.charge)
      const admitted = this.admission.tryAcquireUnsafe(options)
      if (admitted === undefined) {
        scope = Scope.makeUnsafe()
        const acquired = Scope.provide(this.admission.acquire(options), scope)
        return Effect.flatMap(acquired, (admitted) => this.begin(opening, admitted))
      }
      return admitted._tag === "Admitted" ? this.begin(opening, admitted) : Effect.fail(admitted)
    })
    const settled = Effect.matchCauseEffect(opened, {
      onSuccess: (answer) => Effect.succeed(answer),
      onFailure: (cause): Effect.Effect<A, AiError.AiError> => {
        const failed = call.failed(target, cause)
        this.watch?.settle(Exit.failCause(failed))
        return Effect.andThen(this.settle(Exit.failCause(failed)), call.ended(failed))
      }
    })
    return Effect.onExitPrimitive(settled, (exit) => {
      if (exit._tag === "Success" || this.isSettled) return undefined
      // Interrupted.
      this.watch?.left()
      call.left()
      const given = this.settle(Exit.interrupt())
      return scope === undefined ? given : Effect.andThen(given, Scope.close(scope, exit))
    })
  }

  private begin<A>(opening: Opening<S, A>, admitted: Admission.Admitted): Effect.Effect<A, AiError.AiError> {
    const { call, charge, engine, target } = this
    this.admitted = admitted
    if (admitted.isProbe) this.probe = admitted
    call.begin(target, charge)
    this.endsAt = call.now() + target.limits.attemptMillis
    const watch = this.watch = engine.watch(call, target, opening, opening.streams)
    const asked = opening.open(this)
    return watch === undefined ? asked : Effect.andThen(watch.start, asked)
  }

  // ---------- while it runs

  /** The headers of the response have arrived. */
  headers(headers: Headers): void {
    this.charge?.onHeaders(headers)
  }

  /** The first output of the answer has arrived. */
  firstToken(): void {
    this.call.firstToken()
  }

  /** More of the answer has arrived. */
  progress(): void {
    this.charge?.arrived()
    this.probe?.progress()
  }

  /** Output has arrived, at this time in epoch milliseconds. */
  output(at: number): void {
    this.watch?.output(1, at)
  }

  /** When the attempt fails as late, in epoch milliseconds. */
  get failsAt(): number {
    return Math.min(this.endsAt, this.call.deadline?.at ?? Number.POSITIVE_INFINITY)
  }

  // ---------- the error of an answer

  late(): AiError.AiError {
    return timedOut(this.call, this.target)
  }

  silent(phase: "first" | "idle", parts: number): AiError.AiError {
    return this.call.silent(this.target, phase, parts)
  }

  /** `lost`: how the connection failed. `undefined` if the response ended in order. */
  truncated(parts: number, hadOutput: boolean, lost?: string | undefined): AiError.AiError {
    const why = lost === undefined ? {} : { lost }
    return this.call.rejected(
      new AiRejection.TruncatedStream({ target: this.target.name, parts, hadOutput, ...why })
    )
  }

  malformed(): AiError.AiError {
    return this.call.rejected(new AiRejection.MalformedEvent({ target: this.target.name, sample: "" }))
  }

  // ---------- once it is open

  /** The answer is complete. */
  complete(ending: Ending): void {
    if (this.isSettled) return
    const { call, charge, engine, target, watch } = this
    const finish = finishOf(ending)
    engine.signature(call, target, finish, ending.length)
    const { inputTokens, outputTokens } = finish.usage
    watch?.answered({
      finishReason: ending.reason,
      inputTokens: inputTokens.total,
      outputTokens: outputTokens.total,
      cacheReadTokens: inputTokens.cacheRead
    })
    watch?.complete()
    if (charge === undefined) {
      this.isSettled = true
      this.admitted?.settleUnsafe(success)
    } else {
      charge.finish = finish
      charge.outputLength = ending.length
      this.run(this.settle(Exit.void))
    }
    this.end(Exit.void)
  }

  /**
   * The answer failed after its client had a part of it. `continues`: returns whether another attempt continues the call. Returns the
   * same.
   */
  failed(
    error: AiError.AiError,
    ending: Ending,
    continues: (cause: Cause.Cause<AiError.AiError>) => boolean
  ): boolean {
    if (this.isSettled) return false
    const { call, target, watch } = this
    call.hasOutput = true
    this.paid(ending)
    const cause = call.failed(target, Cause.fail(error))
    const exit = Exit.failCause(cause)
    watch?.settle(exit)
    this.run(this.settle(exit))
    const isContinued = continues(cause)
    if (!isContinued) this.end(exit)
    return isContinued
  }

  /** The client left. */
  left(ending: Ending): void {
    if (this.isSettled) return
    this.paid(ending)
    this.watch?.left()
    this.call.left()
    this.run(this.settle(Exit.interrupt()))
    this.end(Exit.interrupt())
  }

  /** Notes what arrived of an answer that is not complete. */
  paid(ending: Ending): void {
    const { call, charge } = this
    const finish = finishOf(ending)
    if (ending.length > 0) call.paid(finish, ending.length)
    if (charge === undefined) return
    charge.outputLength = ending.length
    if (finish.usage.outputTokens.total !== undefined) charge.finish = finish
  }

  private settle(exit: Exit.Exit<void, AiError.AiError>): Effect.Effect<void> {
    this.isSettled = true
    const { admitted, charge } = this
    const settled = admitted === undefined ? Effect.void : admitted.settleExit(exit)
    if (charge === undefined) return settled
    return Effect.andThen(exit._tag === "Success" ? charge.complete() : charge.failed(exit.cause), settled)
  }

  // Without a store, nothing waits, and everything is given back when this returns.
  private run(settlement: Effect.Effect<void>): void {
    Effect.runForkWith(this.context)(settlement)
  }
}

const unknownUsage: Parts.Finish["usage"] = { inputTokens: {}, outputTokens: {} }

const finishOf = ({ reason = "unknown", usage = unknownUsage }: Ending): Parts.Finish => ({
  type: "finish",
  reason,
  usage
})
