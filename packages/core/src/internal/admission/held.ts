import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Admitted } from "../../Admission.ts"
import { ignored, type Outcome } from "../../Outcome.ts"
import type { CircuitOpen } from "../circuit/circuitOpen.ts"
import { type AdmissionRequest, Attempt } from "./attempt.ts"

// The part of an attempt that its owner uses. It does not depend on the errors of the attempt.
type SettledAttempt = Pick<
  Attempt<never>,
  "isProbe" | "progress" | "settle" | "settleExit" | "settleUnsafe" | "within"
>

/** An admission that its owner settles. */
export class Held<in A, in E> implements Admitted<A, E> {
  readonly _tag = "Admitted"
  private readonly attempt: SettledAttempt
  private readonly scope: Scope.Closeable | undefined

  /** `scope`: a child of the owner's scope, whose finalizer settles the attempt as `Ignored`. */
  constructor(attempt: SettledAttempt, scope: Scope.Closeable | undefined) {
    this.attempt = attempt
    this.scope = scope
  }

  get isProbe(): boolean {
    return this.attempt.isProbe
  }

  progress(): void {
    this.attempt.progress()
  }

  settle(outcome: Outcome): Effect.Effect<void> {
    return Effect.uninterruptible(Effect.suspend(() => {
      this.leaveScope()
      return this.attempt.settle(outcome) ?? Effect.void
    }))
  }

  settleExit(exit: Exit.Exit<A, E>): Effect.Effect<void> {
    return Effect.uninterruptible(Effect.suspend(() => {
      this.leaveScope()
      return this.attempt.settleExit(exit) ?? Effect.void
    }))
  }

  settleUnsafe(outcome: Outcome): void {
    this.leaveScope()
    this.attempt.settleUnsafe(outcome)
  }

  within<A2, E2, R>(self: Effect.Effect<A2, E2, R>): Effect.Effect<A2, E2, R> {
    return this.attempt.within(self)
  }

  // Otherwise each settled attempt would stay in the finalizers of a long scope. Closing the child removes it from its parent.
  // Closing returns an effect with the suspended finalizer, which is not run here.
  private leaveScope(): void {
    if (this.scope !== undefined) Scope.closeUnsafe(this.scope, Exit.void)
  }
}

/** Admits an attempt that is held until it is settled, or until the scope closes. */
export const acquire = <A, E, E2>(
  request: AdmissionRequest<E2>
): Effect.Effect<Held<A, E>, E2 | CircuitOpen, Scope.Scope> =>
  Effect.withFiber((fiber) => {
    const attempt = new Attempt(request, Effect.void, fiber)
    const parent = Context.getUnsafe(fiber.context, Scope.Scope)
    let scope: Scope.Closeable | undefined
    // An attempt that is interrupted in the queue leaves it now, not when the scope closes.
    const admitted = Effect.onExitPrimitive(attempt, (exit) => {
      if (exit._tag === "Failure") return attempt.settle(ignored)
      scope = Scope.forkUnsafe(parent)
      return Scope.addFinalizer(scope, Effect.suspend(() => attempt.settle(ignored) ?? Effect.void))
    })
    // It fails as an admission does.
    return Effect.map(admitted, () => new Held<A, E>(attempt, scope)) as Effect.Effect<Held<A, E>, E2 | CircuitOpen>
  })
