import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Limits, StreamLimits } from "./limits.ts"
import { type Consumer, Pump } from "./pump.ts"

/** What the guard needs to know of a stream: its parts, its limits and its errors. */
export interface Guard<in A, in out E> {
  /** Whether a part is output. Nothing is emitted before the first output, so that the attempt can be discarded. */
  isOutput(part: A): boolean
  /** Whether it is the finish part, which completes the answer. */
  isComplete(part: A): boolean
  /** The error of a part that says that the stream failed. */
  failureOf(part: A): E | undefined
  /** Bytes that a held part takes. */
  sizeOf(part: A): number
  /** From the start of the attempt, including connecting, to the first output. */
  readonly firstTokenMillis?: number | undefined
  /** How long a pull may wait after the first output. */
  readonly idleMillis?: number | undefined
  /** Epoch milliseconds. A pull that is waiting then, or comes later, fails. */
  readonly deadlineAt?: number | undefined
  /** Whether parts are held until the answer is complete, and not only until the first output. Default false. */
  readonly holdsAll?: boolean | undefined
  /** Called with the parts as they arrive, before some are held. */
  readonly onChunk?: ((parts: Arr.NonEmptyReadonlyArray<A>) => void) | undefined
  /**
   * This many held parts are emitted even without output. Default 64: providers send up to ten before their first
   * output.
   */
  readonly maxHeldParts?: number | undefined
  /** This many held bytes are emitted even without output. Default 262144. */
  readonly maxHeldBytes?: number | undefined
  /** Called once, at the first output. */
  onFirst?(): void
  /** The error of a stream that ended without its finish part. `hadOutput`: some parts were emitted. */
  truncated(parts: number, hadOutput: boolean): E
  /**
   * The error of a stream whose connection was lost after its first part, if this error says so. `undefined` lets the error
   * pass. `hadOutput`: some parts were emitted.
   */
  lost?(error: E, parts: number, hadOutput: boolean): E | undefined
  /** The error of a silent stream: before its first output, or between two parts. */
  silent(phase: "first" | "idle", parts: number): E
  /** The error of a stream that reached the deadline. */
  late(): E
  /** The error of a complete stream without output. `undefined` lets it pass. */
  empty(): E | undefined
}

/**
 * Guards one attempt at a model's stream. It fails with a typed error if the stream is truncated, silent, late or
 * empty, or has an error part. It emits nothing before the first output, or before the end with `holdsAll`.
 *
 * What is emitted depends on the parts, not on their chunks. With the finish part the answer is complete: later parts
 * are passed on, and a later failure or limit ends the stream normally. A defect stays a defect. Upstream is
 * interrupted and closed before a failure or the end is emitted.
 *
 * Without limits, upstream is pulled in place. With limits it runs in one fiber of its own, which can be interrupted
 * without the consumer. It is pulled on demand, never ahead. A pull that has its result at once starts no timer. The
 * others share one, which is moved only when it fires. A limit of one second is one timer a second, not one a part.
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

// `Cause.done` is an effect. This is its exit.
const done = Exit.fail(Cause.Done())

class Attempt<A, E, R> implements Consumer<A, E, Chunk<A>, E | Cause.Done, R>, Limits {
  readonly pull: Step<A, E, R>
  readonly upstream: Effect.Effect<Step<A, E, R>, never, R>

  private readonly guard: Guard<A, E>
  private readonly scope = Scope.makeUnsafe()
  private readonly isLimited: boolean
  private pump: Pump<A, E, Chunk<A>, E | Cause.Done, R> | undefined
  /** The pull without limits, once connected. */
  private inPlace: Step<A, E, R> | undefined
  private startedAt = 0
  /** When the current pull began. */
  private pulledAt = 0
  /** Which limit comes first for the current pull. */
  private nextLimit: "late" | "first" | "idle" = "late"

  private parts = 0
  private isCommitted = false
  private hadOutput = false
  private isComplete = false
  private held: Array<A> = []
  private heldParts = 0
  private heldBytes = 0
  /** What the next pull ends with, after the parts that this one emits. */
  private pending: End<E> | undefined
  /** What every further pull ends with. */
  private ended: End<E> | undefined

  constructor(stream: Stream.Stream<A, E, R>, guard: Guard<A, E>) {
    this.guard = guard
    this.isLimited = (guard.firstTokenMillis ?? guard.idleMillis ?? guard.deadlineAt) !== undefined
    this.upstream = Channel.toPullScoped(Stream.toChannel(stream), this.scope)
    this.pull = Effect.withFiber((fiber) => this.next(fiber))
  }

  /**
   * Closes upstream, also if the consumer is interrupted or leaves. A later pull is interrupted, and does not look
   * complete.
   */
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
      this.pump = new Pump(fiber, Context.add(fiber.context, StreamLimits, this), this)
      this.startedAt = this.pump.now()
    }
    const { deadlineAt } = this.guard
    this.pulledAt = this.pump.now()
    if (deadlineAt === undefined || this.pulledAt < deadlineAt) return this.pump.pull()
    this.nextLimit = "late"
    return this.onLimit()
  }

  private connect(): Step<A, E, R> {
    // A pull after an interruption here must not connect again.
    this.inPlace = Exit.interrupt()
    return Effect.flatMap(this.upstream, (pull) => {
      this.inPlace = Effect.matchCauseEffect(pull, {
        onSuccess: (chunk) => this.onChunk(chunk),
        onFailure: (cause) => this.onEnd(cause)
      })
      return this.inPlace
    })
  }

  onChunk(chunk: Chunk<A>): Step<A, E, R> {
    const { guard } = this
    guard.onChunk?.(chunk)
    let good = 0
    for (const part of chunk) {
      const failure = guard.failureOf(part)
      if (failure !== undefined) return this.stopAt(chunk, good, this.isComplete ? done : Exit.fail(failure))
      this.parts++
      if (!this.hadOutput && guard.isOutput(part)) {
        this.hadOutput = true
        if (guard.holdsAll !== true) this.isCommitted = true
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
    for (const part of chunk) this.held.push(part)
    return this.pull
  }

  onEnd(cause: Cause.Cause<E | Cause.Done>): Step<A, E, R> {
    if (Pull.isDoneCause(cause)) {
      return this.end(this.isComplete ? done : Exit.fail(this.guard.truncated(this.parts, this.isCommitted)))
    }
    if (Cause.hasDies(cause)) return this.end(Exit.failCause(cause))
    return this.end(this.isComplete ? done : this.lostOf(cause) ?? Exit.failCause(cause))
  }

  private lostOf(cause: Cause.Cause<E | Cause.Done>): End<E> | undefined {
    const failure = this.parts === 0 ? undefined : cause.reasons.find(Cause.isFailReason)
    if (failure === undefined || Cause.isDone(failure.error)) return undefined
    const lost = this.guard.lost?.(failure.error, this.parts, this.isCommitted)
    return lost === undefined ? undefined : Exit.fail(lost)
  }

  get failsAt(): number {
    return Math.min(this.guard.deadlineAt ?? Number.POSITIVE_INFINITY, this.silentAt(this.pulledAt))
  }

  limitAt(now: number): number {
    const { deadlineAt = Number.POSITIVE_INFINITY } = this.guard
    const silentAt = this.silentAt(now)
    this.nextLimit = deadlineAt <= silentAt ? "late" : this.hasBegun ? "idle" : "first"
    return Math.min(deadlineAt, silentAt)
  }

  private get hasBegun(): boolean {
    return this.hadOutput || this.isComplete
  }

  private silentAt(now: number): number {
    const { firstTokenMillis, idleMillis } = this.guard
    return this.hasBegun
      ? now + (idleMillis ?? Number.POSITIVE_INFINITY)
      : this.startedAt + (firstTokenMillis ?? Number.POSITIVE_INFINITY)
  }

  onLimit(): Step<A, E, R> {
    if (this.isComplete) return this.end(done)
    const { guard, nextLimit } = this
    return this.end(Exit.fail(nextLimit === "late" ? guard.late() : guard.silent(nextLimit, this.parts)))
  }

  private hold(part: A): void {
    const { maxHeldBytes = 262_144, maxHeldParts = 64 } = this.guard
    this.heldParts++
    this.heldBytes += this.guard.sizeOf(part)
    this.isCommitted = this.heldParts >= maxHeldParts || this.heldBytes >= maxHeldBytes
  }

  /** Adds the held parts before the chunk. */
  private release(chunk: Chunk<A>): Chunk<A> {
    if (this.held.length === 0) return chunk
    const all = Arr.appendAll(this.held, chunk)
    this.held = []
    return all
  }

  /** Ends the stream at a part of the chunk. The parts before it are emitted, if the stream has begun to emit. */
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
