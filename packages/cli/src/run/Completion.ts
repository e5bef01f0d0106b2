/** Completes the lines of a run concurrently, and gives every line that was read a result. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Signals from "../Signals.ts"
import type { Written } from "./Batch.ts"
import * as CallRecord from "./CallRecord.ts"
import type * as Engine from "./Engine.ts"
import type * as Input from "./Input.ts"
import type * as Output from "./Output.ts"
import type { Malformed, Prompt } from "./Prompt.ts"
import * as Request from "./Request.ts"
import type { Failure, Result } from "./Result.ts"
import type * as Resume from "./Resume.ts"
import type { RunStopped } from "./RunStopped.ts"
import * as Samples from "./Samples.ts"
import * as Settings from "./Settings.ts"
import type { Tally } from "./Tally.ts"

export interface Sink {
  /**
   * Queues the result of a line. `request` is the hash of its request, `undefined` if the line is no prompt. `input` is the
   * line, for its result. Calls `written` once the result is written, or with the error, and never before `push` returns.
   */
  readonly push: (
    completed: Engine.Completed,
    request: string | undefined,
    input: Prompt["input"],
    written: Written<Output.WriteError>
  ) => void
  /** Waits until what was pushed is written. */
  readonly settled: Effect.Effect<void>
}

export type CompletionError =
  | Input.InputError
  | Output.WriteError
  | Resume.ResumeError
  | RunStopped
  | Settings.SettingsError

type Item = Prompt | Malformed

type Items = Stream.Stream<Item, Input.InputError | Resume.ResumeError | Settings.SettingsError>

type Fork = <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>

/** A line that was read and has no result yet. */
interface Unfinished {
  readonly item: Item
  /** The start of its turn, in epoch milliseconds. `undefined` while it waits for its turn. */
  startedAt: number | undefined
  attempts: number
  /** Whether its result is queued for writing. */
  isPushed: boolean
}

/**
 * Runs a fiber for each prompt that is sent, and callbacks for the rest: a stream with a semaphore for the turns takes as much
 * time as sending a prompt.
 */
export class Completion {
  private readonly settings: Settings.Settings
  private readonly items: Items
  private readonly engine: Engine.Engine
  private readonly sink: Sink
  private readonly tally: Tally
  private readonly say: (text: string) => void
  private readonly requestOf: ReturnType<typeof Request.hasher>
  /** The lines that were read last, up to the next one to take. */
  private chunk: ReadonlyArray<Item> = []
  private next = 0
  /** Reads the next lines, once all of `chunk` are taken. */
  private onTaken: (() => void) | undefined
  private isRead = false
  private isStopping = false
  /** Why the lines end early. Reported once the running prompts are finished. */
  private failure: Effect.Effect<void, CompletionError> | undefined
  private isOver = false
  private isDue = false
  /** Bounded by the number of concurrent prompts. */
  private readonly unfinished = new Map<number, Unfinished>()
  /** Prompts that wait for a turn. */
  private readonly queue: Array<Prompt> = []
  // As many turns as calls run at once. A prompt's first failure ends its turn, because its backoff can take minutes and
  // another prompt can run meanwhile.
  private turns: number
  /** Prompts that wait for their first attempt. */
  private waiting = 0
  private readonly fibers = new Set<Fiber.Fiber<unknown, unknown>>()
  private reader: Fiber.Fiber<unknown, unknown> | undefined
  private fork: Fork = Effect.runFork
  private now: () => number = Date.now
  private resume: (effect: Effect.Effect<void, CompletionError>) => void = () => {}
  private onFinished: (() => void) | undefined

  constructor(
    settings: Settings.Settings,
    items: Items,
    engine: Engine.Engine,
    sink: Sink,
    tally: Tally,
    say: (text: string) => void
  ) {
    this.settings = settings
    this.items = items
    this.engine = engine
    this.sink = sink
    this.tally = tally
    this.say = say
    this.requestOf = Request.hasher(settings)
    this.turns = settings.concurrency
  }

  /**
   * Completes all lines. The first signal lets running prompts finish, and the second interrupts them. Returns the first
   * signal, if any.
   */
  run(signals: Signals.Signals): Effect.Effect<Option.Option<Signals.Signal>, CompletionError> {
    return Effect.suspend(() => {
      let received = Option.none<Signals.Signal>()
      const first = Effect.map(signals.first, (signal) => {
        received = Option.some(signal)
        this.stop()
        this.say(`\nFinishing running prompts. ${Signals.again(signal)}\n`)
      })
      // The signals are awaited beside the lines, since the input ends before the last answers.
      const stopped = Effect.raceFirst(Effect.andThen(first, signals.second), this.engine.stopped)
      return Effect.map(Effect.raceFirst(this.lines, stopped), () => received)
    })
  }

  /** Reads no further lines, and lets running prompts finish. */
  stop(): void {
    this.isStopping = true
    this.reader?.interruptUnsafe()
    this.stepSoon()
  }

  /** Writes a result for every line that was read and has none. */
  writeUnfinished(why: string): Effect.Effect<void, Output.WriteError> {
    return Effect.flatMap(Clock.currentTimeMillis, (now) =>
      Effect.uninterruptible(Effect.callback((resume) => {
        this.onFinished = () => resume(Effect.void)
        const failed = (error: Output.WriteError) => resume(Effect.fail(error))
        const left = [...this.unfinished.values()].filter(({ isPushed }) => !isPushed)
        for (const each of left.sort((a, b) => Samples.keyOf(a.item) - Samples.keyOf(b.item))) {
          const { item, startedAt } = each
          if (item._tag === "Malformed") this.writeMalformed(each, item, now, failed)
          else {
            const counted = () => this.tally.unfinished(startedAt !== undefined)
            this.write(each, unfinished(item, each, why, now), counted, failed)
          }
        }
        if (this.unfinished.size === 0) resume(Effect.void)
      })))
  }

  private get lines(): Effect.Effect<void, CompletionError> {
    return Effect.contextWith((context: Context.Context<never>) =>
      Effect.callback((resume) => {
        const clock = Context.get(context, Clock.Clock)
        this.now = () => clock.currentTimeMillisUnsafe()
        this.fork = Effect.runForkWith(context)
        this.resume = resume
        this.read()
        return this.end
      })
    )
  }

  /** Interrupts what runs, and waits until what was pushed is written. */
  private readonly end: Effect.Effect<void> = Effect.suspend(() => {
    this.isOver = true
    const fibers = this.reader === undefined ? [...this.fibers] : [this.reader, ...this.fibers]
    return Effect.andThen(Fiber.interruptAll(fibers), this.sink.settled)
  })

  private finish(effect: Effect.Effect<void, CompletionError>): void {
    if (this.isOver) return
    this.isOver = true
    this.resume(Effect.andThen(this.end, effect))
  }

  // ---------- reading

  private read(): void {
    const reading = Stream.runForEachArray(this.items, (items) =>
      Effect.callback<void>((resume) => {
        this.chunk = items
        this.next = 0
        this.onTaken = () => resume(Effect.void)
        this.stepSoon()
      }))
    const reader = this.reader = this.fork(reading)
    reader.addObserver((exit) => {
      this.isRead = true
      // The end of the run interrupts the reader, which is no error of the input.
      if (Exit.isFailure(exit) && !this.isStopping && !this.isOver) this.fail(exit)
      this.stepSoon()
    })
  }

  /** Lets running prompts finish, since their answers are paid for, and fails then. */
  private fail(failure: Effect.Effect<void, CompletionError>): void {
    this.failure = failure
    if (this.fibers.size > 0) this.say("\nThe input has an error. Finishing running prompts.\n")
    this.stop()
  }

  // ---------- lines

  /**
   * Steps once the running callback has returned. A prompt that ends its turn does so in the middle of an attempt that failed,
   * and what that attempt shows about its target must be known before the next prompt begins.
   */
  private stepSoon(): void {
    if (this.isDue) return
    this.isDue = true
    queueMicrotask(() => {
      this.isDue = false
      if (!this.isOver) this.step()
    })
  }

  /** Starts what there is room for. */
  private step(): void {
    const { chunk, engine, queue, unfinished } = this
    while (!this.isOver && !this.isStopping) {
      if (queue.length > 0 && this.turns > 0 && this.waiting < maxWaiting) this.send(queue.shift())
      else if (this.next < chunk.length && unfinished.size < engine.maxPrompts) this.take(chunk[this.next++])
      else break
    }
    if (this.isOver) return
    if (this.next === chunk.length && this.onTaken !== undefined) {
      const { onTaken } = this
      this.onTaken = undefined
      onTaken()
    }
    const isAllTaken = this.isRead && this.next === this.chunk.length && queue.length === 0
    const isIdle = unfinished.size === (this.isStopping ? queue.length : 0)
    if (isIdle && (this.isStopping || isAllTaken)) this.finish(this.failure ?? Effect.void)
  }

  private take(item: Item | undefined): void {
    if (item === undefined) return
    const own: Unfinished = { item, startedAt: undefined, attempts: 0, isPushed: false }
    this.unfinished.set(Samples.keyOf(item), own)
    if (item._tag === "Malformed") return this.writeMalformed(own, item, this.now(), this.failed)
    const { targets: [{ model }] } = this.settings
    this.queue.push(item)
    if (item.model === undefined && model === undefined) {
      this.fail(
        new Settings.SettingsError({ problems: [`line ${item.line} names no model; set --model or SLUICE_MODEL`] })
      )
    }
  }

  private send(prompt: Prompt | undefined): void {
    const own = prompt === undefined ? undefined : this.unfinished.get(Samples.keyOf(prompt))
    if (prompt === undefined || own === undefined) return
    let hasTurn = true
    let isWaiting = false
    const waits = (is: boolean): void => {
      if (is === isWaiting) return
      isWaiting = is
      if (this.waiting === maxWaiting) this.stepSoon()
      this.waiting += is ? 1 : -1
    }
    const endTurn = (): void => {
      if (!hasTurn) return
      hasTurn = false
      this.turns++
      this.stepSoon()
    }
    const afterAttempt = Effect.sync(() => {
      own.attempts++
      endTurn()
    })
    this.turns--
    own.startedAt = this.now()
    this.tally.promptStarted()
    const turn = { waits: () => waits(true), sent: () => waits(false), afterAttempt }
    const fiber = this.fork(this.engine.complete(prompt, turn))
    this.fibers.add(fiber)
    fiber.addObserver((exit) => {
      this.fibers.delete(fiber)
      waits(false)
      if (Exit.isFailure(exit)) return this.finish(exit)
      const { result } = exit.value
      // The turn ends with the result in the file, so that a kill loses at most as many answers as run at once.
      this.write(own, exit.value, () => {
        this.tally.promptFinished(result)
        endTurn()
      }, this.failed)
    })
  }

  // ---------- results

  private readonly failed = (error: Output.WriteError): void => this.finish(Effect.fail(error))

  private writeMalformed(
    own: Unfinished,
    item: Malformed,
    now: number,
    failed: (error: Output.WriteError) => void
  ): void {
    this.write(own, malformed(item, now), () => this.tally.malformedLine(), failed)
  }

  private write(
    own: Unfinished,
    completed: Engine.Completed,
    count: () => void,
    failed: (error: Output.WriteError) => void
  ): void {
    const { item } = own
    own.isPushed = true
    const request = item._tag === "Prompt" ? this.requestOf(item) : undefined
    this.sink.push(completed, request, item.input, (error) => {
      if (error !== undefined) return failed(error)
      this.unfinished.delete(Samples.keyOf(item))
      this.tally.written(completed.result)
      count()
      this.stepSoon()
      if (this.unfinished.size === 0) this.onFinished?.()
    })
  }
}

/**
 * How many prompts may wait for their first attempt. While limits of the provider hold calls back, further prompts keep their turn,
 * so that their deadline has not begun, and a run that is stopped need not wait for them.
 */
const maxWaiting = 8

const failed = (
  { attempts, id, line, sample, startedAt }: Pick<Result, "attempts" | "id" | "line" | "sample"> & {
    readonly startedAt: number
  },
  now: number,
  error: Pick<Failure, "tag" | "message">
): Engine.Completed => {
  const result: Result = {
    line,
    sample,
    id,
    status: "failed",
    target: undefined,
    model: undefined,
    attempts,
    how: "led",
    milliseconds: now - startedAt,
    error: { ...error, retryAfter: undefined }
  }
  return { result, record: new CallRecord.Trace(startedAt).record(result) }
}

const malformed = ({ id, line, message }: Malformed, now: number): Engine.Completed =>
  failed({ id, line, attempts: 0, startedAt: now }, now, { tag: "MalformedLine", message })

const unfinished = (
  { id, line, sample }: Prompt,
  { attempts, startedAt }: Unfinished,
  why: string,
  now: number
): Engine.Completed =>
  startedAt === undefined
    ? failed({ id, line, sample, attempts, startedAt: now }, now, { tag: "NotSent", message: `not sent: ${why}` })
    : failed({ id, line, sample, attempts, startedAt }, now, { tag: "Unfinished", message: `not finished: ${why}` })
