import type * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Refusal } from "./errors.ts"

type Guarded<E> = Stream.Stream<void, E>

/** Puts a stream behind something that may refuse it, and that learns what became of it. */
export type Wrap = (self: Guarded<AiError.AiError>) => Guarded<AiError.AiError | Refusal>

/**
 * The way of a stream through a target's permits and its circuit.
 *
 * They wrap a stream of nothing, which ends when and as the real one does: the parts themselves do not go through them, each
 * of which would cost half a microsecond per part.
 */
export class Gate {
  /** What whatever passes the gate is given. */
  context: Context.Context<never> | undefined
  /** Whether the circuit wants to see that the stream does not hang. */
  isProbe = false
  private readonly stream: Guarded<AiError.AiError | Refusal>
  private pull: Pull.Pull<unknown, AiError.AiError | Refusal> | undefined
  private verdict: Exit.Exit<never, AiError.AiError | Cause.Done> | undefined

  constructor(wrap: Wrap) {
    this.stream = wrap(Stream.fromPull(Effect.succeed(Effect.withFiber((fiber) => this.answer(fiber)))))
  }

  /** Takes what is to be taken, until the scope closes. */
  enter(scope: Scope.Scope): Effect.Effect<void, AiError.AiError | Refusal> {
    return Effect.withFiber((fiber) =>
      Effect.flatMap(Channel.toPullScoped(Stream.toChannel(this.stream), scope), (pull) => {
        this.pull = pull
        return Effect.map(withoutDone(pull), () => {
          this.isProbe = this.context !== fiber.context
        })
      })
    )
  }

  /** The stream goes on. */
  get progress(): Effect.Effect<void> {
    return this.pull === undefined ? Effect.void : Effect.ignore(this.pull)
  }

  /** Says what became of the stream. The first word counts. */
  settle(exit: Exit.Exit<void, AiError.AiError>): Effect.Effect<void> {
    if (this.pull === undefined || this.verdict !== undefined) return Effect.void
    this.verdict = Exit.isSuccess(exit) ? Exit.fail(Cause.Done()) : Exit.failCause(exit.cause)
    return Effect.uninterruptible(Effect.exit(this.pull)) as Effect.Effect<unknown> as Effect.Effect<void>
  }

  private answer(fiber: Fiber.Fiber<unknown, unknown>): Pull.Pull<readonly [void], AiError.AiError> {
    this.context ??= fiber.context
    return this.verdict ?? Effect.succeed(nothing)
  }
}

const nothing: readonly [void] = [undefined]

// It does not end before it is told to.
const withoutDone = <A, E>(pull: Pull.Pull<A, E>): Effect.Effect<A, E> => pull as Effect.Effect<A, E>
