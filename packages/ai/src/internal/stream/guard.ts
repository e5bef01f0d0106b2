import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Asker, Pump } from "./pump.ts"

/** What is known of a stream's parts, what limits it has, and what it fails with. */
export interface Guard<in A, out E> {
  /** A part of the answer itself. Until the first one nothing is handed on, so that the attempt can be thrown away. */
  isOutput(part: A): boolean
  /** The finish part: with it the answer is complete. */
  isComplete(part: A): boolean
  /** A part that says that the stream has failed. */
  failureOf(part: A): E | undefined
  /** Bytes that a part takes while it is held. */
  sizeOf(part: A): number
  /** From the start of the attempt, with connecting, to the first output. */
  readonly firstTokenMillis?: number | undefined
  /** How long a pull may wait once there was output. */
  readonly idleMillis?: number | undefined
  /** Epoch milliseconds: a pull that is out then, or comes later, is too late. */
  readonly deadlineAt?: number | undefined
  /** Parts that may be held; so many are handed on even without output. Default 64: providers send up to ten before it. */
  readonly maxHeldParts?: number | undefined
  /** Bytes that may be held. Default 262144. */
  readonly maxHeldBytes?: number | undefined
  /** Called once, at the first output. */
  onFirst?(): void
  /** It ended without its finish part. `hadOutput`: some parts were handed on. */
  truncated(parts: number, hadOutput: boolean): E
  /** A limit was reached: before the first output, or between two parts. */
  silent(phase: "first" | "idle", parts: number): E
  /** The deadline was reached. */
  late(): E
  /** Complete, and there was no output: what it fails with, or `undefined` to let it pass. */
  empty(): E | undefined
}

/**
 * One attempt of a model's stream, watched: it fails, typed, where the stream is cut short, silent, late, empty or says
 * itself that it failed; and it hands on nothing before there is output.
 *
 * What is handed on depends on the parts alone, not on the chunks that they come in. Once the finish part was seen the
 * answer is complete: parts that follow are passed on, and whatever else happens then, a failure or a limit, ends the
 * stream as if it had ended. A defect stays a defect. Upstream is interrupted and closed before a failure or the end is
 * handed on.
 *
 * Without limits it pulls in place. With them, upstream runs in one fiber of its own, since only that can be interrupted
 * without the consumer; it pulls when it is asked to, never ahead. What it answers at once arms no timer; for what it does
 * not, one timer is kept and moved on only when it fires, so a limit of a second means a timer per second, not per part.
 */
export const guard = <A, E, R>(stream: Stream.Stream<A, E, R>, guard: Guard<A, E>): Stream.Stream<A, E, R> =>
  Stream.fromChannel(Channel.fromTransform((_, scope) =>
    Effect.suspend(() => {
      const attempt = new Attempt(stream, guard)
      return Effect.as(Scope.addFinalizerExit(scope, (exit) => attempt.close(exit)), attempt.pull)
    })
  ))

type Chunk<A> = Arr.NonEmptyReadonlyArray<A>

type End<E> = Exit.Exit<never, E | Cause.Done>
type Step<A, E, R> = Pull.Pull<Chunk<A>, E, void, R>

// `Cause.done` is the same as an effect, not as an exit.
const done = Exit.fail(Cause.Done())

class Attempt<A, E, R> implements Asker<A, E, Chunk<A>, E | Cause.Done, R> {
  readonly pull: Step<A, E, R>
  readonly upstream: Effect.Effect<Step<A, E, R>, never, R>

  private readonly guard: Guard<A, E>
  private readonly scope = Scope.makeUnsafe()
  private readonly isLimited: boolean
  private pump: Pump<A, E, Chunk<A>, E | Cause.Done, R> | undefined
  /** A pull in place, once connected. */
  private inPlace: Step<A, E, R> | undefined
  private startedAt = 0
  /** What is over when the limit is reached that was asked for last. */
  private overdue: "late" | "first" | "idle" = "late"

  private parts = 0
  private isCommitted = false
  private hadOutput = false
  private isComplete = false
  private held: ReadonlyArray<A> = []
  private heldParts = 0
  private heldBytes = 0
  /** What the next pull ends with; the parts before it are on their way. */
  private pending: End<E> | undefined
  /** What every further pull ends with. */
  private ended: End<E> | undefined

  constructor(stream: Stream.Stream<A, E, R>, guard: Guard<A, E>) {
    this.guard = guard
    this.isLimited = (guard.firstTokenMillis ?? guard.idleMillis ?? guard.deadlineAt) !== undefined
    this.upstream = Channel.toPullScoped(Stream.toChannel(stream), this.scope)
    this.pull = Effect.withFiber((fiber) => this.next(fiber))
  }

  /** Also for a consumer that is interrupted or leaves. A pull that comes after it never looks like the end. */
  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.ended ??= Exit.interrupt()
      const closing = Scope.close(this.scope, exit)
      return this.pump === undefined ? closing : Effect.uninterruptible(Effect.andThen(this.pump.stop, closing))
    })
  }

  private next(fiber: Fiber.Fiber<unknown, unknown>): Step<A, E, R> {
    if (this.ended !== undefined) return this.ended
    if (this.pending !== undefined) return this.end(this.pending)
    if (!this.isLimited) return this.inPlace ?? this.connect()
    if (this.pump === undefined) {
      this.pump = new Pump(fiber, this)
      this.startedAt = this.pump.now()
    }
    const { deadlineAt } = this.guard
    if (deadlineAt === undefined || this.pump.now() < deadlineAt) return this.pump.ask()
    this.overdue = "late"
    return this.expired()
  }

  private connect(): Step<A, E, R> {
    // For whoever pulls again after an interruption here: it is not connected twice.
    this.inPlace = Exit.interrupt()
    return Effect.flatMap(this.upstream, (pull) => {
      this.inPlace = Effect.matchCauseEffect(pull, {
        onSuccess: (chunk) => this.got(chunk),
        onFailure: (cause) => this.lost(cause)
      })
      return this.inPlace
    })
  }

  got(chunk: Chunk<A>): Step<A, E, R> {
    const { guard } = this
    let good = 0
    for (const part of chunk) {
      const failure = guard.failureOf(part)
      if (failure !== undefined) return this.stopAt(chunk, good, this.isComplete ? done : Exit.fail(failure))
      this.parts++
      if (!this.hadOutput && guard.isOutput(part)) {
        this.hadOutput = this.isCommitted = true
        guard.onFirst?.()
      }
      if (!this.isComplete && guard.isComplete(part)) {
        const empty = this.hadOutput ? undefined : guard.empty()
        if (empty !== undefined) return this.stopAt(chunk, good, Exit.fail(empty))
        this.isComplete = this.isCommitted = true
      }
      if (!this.isCommitted) this.hold(part)
      good++
    }
    if (this.isCommitted) return Effect.succeed(this.release(chunk))
    this.held = this.held.concat(chunk)
    return this.pull
  }

  lost(cause: Cause.Cause<E | Cause.Done>): Step<A, E, R> {
    if (Pull.isDoneCause(cause)) {
      return this.end(this.isComplete ? done : Exit.fail(this.guard.truncated(this.parts, this.isCommitted)))
    }
    return this.end(this.isComplete && !Cause.hasDies(cause) ? done : Exit.failCause(cause))
  }

  limit(now: number): number {
    const { deadlineAt = Number.POSITIVE_INFINITY, firstTokenMillis, idleMillis } = this.guard
    const hasBegun = this.hadOutput || this.isComplete
    const millis = (hasBegun ? idleMillis : firstTokenMillis) ?? Number.POSITIVE_INFINITY
    const silentAt = (hasBegun ? now : this.startedAt) + millis
    this.overdue = deadlineAt <= silentAt ? "late" : hasBegun ? "idle" : "first"
    return Math.min(deadlineAt, silentAt)
  }

  expired(): Step<A, E, R> {
    if (this.isComplete) return this.end(done)
    const { guard, overdue } = this
    return this.end(Exit.fail(overdue === "late" ? guard.late() : guard.silent(overdue, this.parts)))
  }

  private hold(part: A): void {
    const { maxHeldBytes = 262_144, maxHeldParts = 64 } = this.guard
    this.heldParts++
    this.heldBytes += this.guard.sizeOf(part)
    this.isCommitted = this.heldParts >= maxHeldParts || this.heldBytes >= maxHeldBytes
  }

  /** With what was held before it. */
  private release(chunk: Chunk<A>): Chunk<A> {
    if (this.held.length === 0) return chunk
    const all = Arr.appendAll(this.held, chunk)
    this.held = []
    return all
  }

  /** The parts before this one are good, if they may be handed on at all. */
  private stopAt(chunk: Chunk<A>, index: number, exit: End<E>): Step<A, E, R> {
    const good = chunk.slice(0, index)
    if (!this.isCommitted || !Arr.isReadonlyArrayNonEmpty(good)) return this.end(exit)
    this.pending = exit
    return Effect.succeed(this.release(good))
  }

  private end(exit: End<E>): Step<A, E, R> {
    this.ended = exit
    return Effect.andThen(this.close(exit === done ? Exit.void : exit), exit)
  }
}
