/** Completes the lines of a run concurrently, and gives every line that was read a result. */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type * as Signals from "../Signals.ts"
import * as CallRecord from "./CallRecord.ts"
import type * as Engine from "./Engine.ts"
import type * as Input from "./Input.ts"
import type * as Output from "./Output.ts"
import type { Malformed, Prompt } from "./Prompt.ts"
import * as Request from "./Request.ts"
import type { Failure, Result } from "./Result.ts"
import type * as Resume from "./Resume.ts"
import type { RunStopped } from "./RunStopped.ts"
import * as Settings from "./Settings.ts"
import type { Tally } from "./Tally.ts"

export interface Sink {
  /** `request` is the hash of the line's request. `undefined` if the line is no prompt. */
  readonly write: (
    completed: Engine.Completed,
    request: string | undefined
  ) => Effect.Effect<void, Output.OutputError | Output.ReaderGone>
}

export type CompletionError =
  | Input.InputError
  | Output.OutputError
  | Output.ReaderGone
  | Resume.ResumeError
  | RunStopped
  | Settings.SettingsError

type Items = Stream.Stream<Prompt | Malformed, Input.InputError | Resume.ResumeError | Settings.SettingsError>

/** A line that was read and has no result yet. */
interface Unfinished {
  readonly item: Prompt | Malformed
  /** The start of its turn, in epoch milliseconds. `undefined` while it waits for its turn. */
  startedAt: number | undefined
  attempts: number
}

export class Completion {
  private readonly settings: Settings.Settings
  private readonly items: Items
  private readonly engine: Engine.Engine
  private readonly sink: Sink
  private readonly tally: Tally
  private readonly say: (text: string) => void
  private readonly requestOf: ReturnType<typeof Request.hasher>
  // As many turns as calls run at once. A prompt's first failure ends its turn, because its backoff can take minutes and
  // another prompt can run meanwhile.
  private readonly turns: Semaphore.Semaphore
  private readonly stopping = Deferred.makeUnsafe<void>()
  /** Bounded by the number of concurrent prompts plus one. */
  private readonly unfinished = new Map<number, Unfinished>()

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
    this.turns = Semaphore.makeUnsafe(settings.concurrency)
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
        this.say(`\nFinishing running prompts. ${again[signal]}\n`)
      })
      // The signals are awaited beside the lines, since the input ends before the last answers.
      return Effect.raceFirst(this.lines, Effect.andThen(first, signals.second)).pipe(Effect.map(() => received))
    })
  }

  /** Reads no further lines, and lets running prompts finish. */
  stop(): void {
    Deferred.doneUnsafe(this.stopping, Effect.void)
  }

  /** Writes a result for every line that was read and has none. */
  writeUnfinished(why: string): Effect.Effect<void, Output.OutputError | Output.ReaderGone> {
    return Effect.flatMap(
      Clock.currentTimeMillis,
      (now) =>
        Effect.forEach([...this.unfinished.values()].sort((a, b) => a.item.line - b.item.line), (each) => {
          return each.item._tag === "Malformed"
            ? this.write(each.item, malformed(each.item, now), () => this.tally.malformedLine())
            : this.write(
              each.item,
              unfinished(each.item, each, why, now),
              () => this.tally.unfinished(each.startedAt !== undefined)
            )
        }, { discard: true })
    )
  }

  private get lines(): Effect.Effect<void, CompletionError> {
    return this.items.pipe(
      // One line at a time. Otherwise lines of the same chunk would still be sent after the signal.
      Stream.rechunk(1),
      Stream.interruptWhen(Deferred.await(this.stopping)),
      Stream.tap((item) => this.read(item)),
      Stream.mapEffect((item) => this.complete(item), { concurrency: this.engine.maxPrompts, unordered: true }),
      Stream.runDrain
    )
  }

  private read(item: Prompt | Malformed): Effect.Effect<void, Settings.SettingsError> {
    this.unfinished.set(item.line, { item, startedAt: undefined, attempts: 0 })
    const { targets: [{ model }] } = this.settings
    return item._tag === "Prompt" && item.model === undefined && model === undefined
      ? Effect.fail(
        new Settings.SettingsError({ problems: [`line ${item.line} names no model; set --model or SLUICE_MODEL`] })
      )
      : Effect.void
  }

  private complete(
    item: Prompt | Malformed
  ): Effect.Effect<void, Output.OutputError | Output.ReaderGone | RunStopped> {
    if (item._tag === "Malformed") {
      return Effect.flatMap(
        Clock.currentTimeMillis,
        (now) => this.write(item, malformed(item, now), () => this.tally.malformedLine())
      )
    }
    return Effect.andThen(
      this.turns.take(1),
      // The run may have been stopped while the prompt was queued for its turn.
      Effect.suspend(() => Deferred.isDoneUnsafe(this.stopping) ? this.turns.release(1) : this.send(item))
    )
  }

  private send(prompt: Prompt): Effect.Effect<void, Output.OutputError | Output.ReaderGone | RunStopped> {
    return Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const own = this.unfinished.get(prompt.line)
      let hasTurn = true
      const endTurn = Effect.suspend(() => {
        if (!hasTurn) return Effect.void
        hasTurn = false
        return this.turns.release(1)
      })
      const afterAttempt = Effect.suspend(() => {
        if (own !== undefined) own.attempts++
        return endTurn
      })
      if (own !== undefined) own.startedAt = now
      this.tally.promptStarted()
      return this.engine.complete(prompt, afterAttempt).pipe(
        Effect.flatMap((completed) => this.write(prompt, completed, () => this.tally.promptFinished(completed.result))),
        Effect.ensuring(endTurn)
      )
    })
  }

  private write(
    item: Prompt | Malformed,
    completed: Engine.Completed,
    count: () => void
  ): Effect.Effect<void, Output.OutputError | Output.ReaderGone> {
    // Uninterruptible, so that no line has a second result.
    const request = item._tag === "Prompt" ? this.requestOf(item) : undefined
    return Effect.uninterruptible(Effect.tap(this.sink.write(completed, request), () => {
      this.unfinished.delete(completed.result.line)
      this.tally.written(completed.result)
      return Effect.sync(count)
    }))
  }
}

const again: { readonly [_ in Signals.Signal]: string } = {
  SIGINT: "Press Ctrl-C again to stop now.",
  SIGTERM: "A second SIGTERM stops them now.",
  SIGHUP: "A second signal stops them now."
}

const failed = (
  { attempts, id, line, startedAt }: Pick<Result, "attempts" | "id" | "line"> & { readonly startedAt: number },
  now: number,
  error: Pick<Failure, "tag" | "message">
): Engine.Completed => {
  const result: Result = {
    line,
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
  { id, line }: Prompt,
  { attempts, startedAt }: Unfinished,
  why: string,
  now: number
): Engine.Completed =>
  startedAt === undefined
    ? failed({ id, line, attempts, startedAt: now }, now, { tag: "NotSent", message: `not sent: ${why}` })
    : failed({ id, line, attempts, startedAt }, now, { tag: "Unfinished", message: `not finished: ${why}` })
