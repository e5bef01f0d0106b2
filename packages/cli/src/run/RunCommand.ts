/** `sluice run`: a file of prompts in, a file of results out. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { basename } from "node:path"
import * as ExitCode from "../ExitCode.ts"
import * as Explain from "../explain/Explain.ts"
import * as Mask from "../Mask.ts"
import type { RunFlags } from "../options.ts"
import { Facts } from "../report/Facts.ts"
import * as Page from "../report/Page.ts"
import * as Signals from "../Signals.ts"
import * as Terminal from "../Terminal.ts"
import * as CallRecord from "./CallRecord.ts"
import type { Change } from "./Circuits.ts"
import * as Engine from "./Engine.ts"
import * as Input from "./Input.ts"
import * as Live from "./Live.ts"
import * as Output from "./Output.ts"
import type { View } from "./Progress.ts"
import * as Progress from "./Progress.ts"
import type { Malformed, Prompt } from "./Prompt.ts"
import type { Result } from "./Result.ts"
import * as RunResult from "./Result.ts"
import * as Settings from "./Settings.ts"
import * as Summary from "./Summary.ts"
import { Tally } from "./Tally.ts"

/** Runs the file, and tells the exit code. */
export const execute = (path: string, flags: RunFlags): Promise<number> =>
  Effect.runPromise(
    Effect.scoped(run(path, flags)).pipe(
      Effect.catchTag("ReaderGone", () => Effect.succeed(ExitCode.readerGone)),
      Effect.catch((error) => Effect.as(complain(error.message), exitCodeOf(error)))
    )
  )

const exitCodeOf = (error: { readonly _tag: string; readonly why?: string | undefined }): number =>
  error._tag === "RunStopped" && error.why === "Outage" ? ExitCode.outage : ExitCode.unusable

const say = (text: string): Effect.Effect<void> => Effect.sync(() => void process.stderr.write(text))

const complain = (message: string): Effect.Effect<void> => say(`sluice run: ${Terminal.escape(message)}\n`)

const run = Effect.fnUntraced(function*(path: string, flags: RunFlags) {
  const isOutputTerminal = process.stdout.isTTY === true
  const settings = yield* Settings.resolve(flags, { env: process.env, isOutputTerminal })
  const signals = yield* Signals.listen
  const input = yield* Input.make({ path, system: settings.system, limit: settings.limit })
  const mask = Mask.make(settings.targets.flatMap(({ apiKey }) => apiKey === undefined ? [] : [Redacted.value(apiKey)]))
  const startedAt = yield* Clock.currentTimeMillis
  const tally = new Tally()
  const board = new Board(tally, startedAt, settings.targets.length)
  const facts = new Facts(
    settings.targets.map(({ model, name, url }) => ({ name, model: model ?? "its own", host: new URL(url).host })),
    startedAt
  )
  const engine = yield* Engine.make(settings, {
    called: () => tally.called(),
    attemptFailed: (reason) => tally.attemptFailed(reason),
    paid: (usage) => tally.paid(usage),
    circuit: (change) => {
      board.changed(change)
      facts.changed(change)
    },
    unusable: (target, why) => {
      if (why === undefined) tally.unusable.delete(target)
      else tally.unusable.set(target, why)
    }
  })
  const open = (path: string) => Output.make({ path, force: settings.force, input: input.identity })
  const output = yield* open(settings.output)
  const log = settings.log === undefined ? undefined : yield* open(settings.log)
  const page = settings.report === undefined ? undefined : yield* open(settings.report)
  const explained = new Explained(settings.explain)
  const sink: Sink = {
    // Counted when it stands in the file, and not before: what the table says is there.
    write: ({ record, result }) =>
      Effect.tap(output.write(RunResult.encode(result, mask)), () => {
        facts.add(record)
        explained.add(record)
        return log === undefined ? Effect.void : log.write(CallRecord.encode(record, mask))
      })
  }
  const screen: Live.Screen = {
    write: (text) => process.stderr.write(mask(text)),
    // Some terminals tell no width, or 0.
    columns: () => process.stderr.columns || 80,
    mode: Live.modeOf({
      quiet: settings.quiet,
      isTerminal: process.stderr.isTTY === true,
      isShared: settings.output === "-" && isOutputTerminal,
      env: process.env
    })
  }
  if (input.count !== undefined && screen.mode !== "off") yield* Effect.forkScoped(count(input.count, board))
  const ended = yield* Effect.exit(
    Live.during(
      untilSignal(answerAll(settings, input, engine, sink, tally), signals),
      screen,
      (now) => board.view(now)
    )
  )
  facts.endedAt = yield* Clock.currentTimeMillis
  if (page !== undefined && facts.answered + facts.failed > 0) {
    yield* page.write(
      mask(Page.render(facts, { input: basename(path), stopped: stoppedBy(ended), unusable: tally.unusable }))
    )
  }
  const told = mask(explained.render())
  if (told !== "") yield* settings.output === "-" ? say(told) : Effect.sync(() => void process.stdout.write(told))
  const signal = yield* ended
  if (!settings.quiet) yield* say(mask(Summary.render(tally, facts.endedAt - startedAt)))
  if (Option.isSome(signal)) return Signals.exitCode(signal.value)
  return tally.failed === 0 ? ExitCode.ok : ExitCode.someFailed
})

/** Why a run ended before its end, for its report. */
const stoppedBy = <E extends { readonly message: string }>(
  ended: Exit.Exit<Option.Option<Signals.Signal>, E>
): string | undefined => {
  if (Exit.isSuccess(ended)) {
    return Option.getOrUndefined(Option.map(ended.value, (signal) => `Ended early, by ${signal}.`))
  }
  return Option.match(Cause.findErrorOption(ended.cause), {
    onNone: () => "Ended early.",
    onSome: ({ message }) => `Ended early: ${message}`
  })
}

/** The prompts that are to be explained when the run is over. */
class Explained {
  private readonly wanted: ReadonlyArray<Explain.Wanted>
  /** Those who made a call, by the call: others may share its answer. */
  private readonly leaders = new Map<string, CallRecord.CallRecord>()

  constructor(wanted: ReadonlyArray<string>) {
    this.wanted = wanted.map((name) => new Explain.Wanted(name))
  }

  add(record: CallRecord.CallRecord): void {
    if (this.wanted.length === 0) return
    if (record.how === "led" && record.call !== undefined) this.leaders.set(record.call, record)
    for (const wanted of this.wanted) wanted.add(record)
  }

  render(): string {
    const columns = process.stdout.columns || 80
    return this.wanted.map(({ found, name }) =>
      found.length === 0
        ? `${Terminal.clip(Terminal.escape(name), 60)}: no such prompt was asked\n`
        : Explain.renderAll(found, this.leaders, columns)
    ).join("\n")
  }
}

// A file that cannot be counted can still be run; the run says what is wrong with it.
const count = (counting: Effect.Effect<number, Input.InputError>, board: Board): Effect.Effect<void> =>
  Effect.ignore(Effect.map(counting, (total) => {
    board.total = total
  }))

/** Everything that the live line is made of. */
class Board {
  total: number | undefined = undefined
  private readonly open = new Map<string, number>()
  private readonly pace: Progress.Pace
  private readonly tally: Tally
  private readonly targets: number

  constructor(tally: Tally, startedAt: number, targets: number) {
    this.tally = tally
    this.pace = new Progress.Pace(startedAt)
    this.targets = targets
  }

  changed({ circuit, target }: Change): void {
    if (circuit.state === "open") this.open.set(target, circuit.probeAt)
    else this.open.delete(target)
  }

  view(now: number): View {
    const { done, failed, failures, joined, cached, running } = this.tally
    return {
      now,
      done,
      failed,
      running,
      total: this.total,
      retried: failures.reduce((sum, [, times]) => sum + times, 0),
      shared: joined + cached,
      rate: this.pace.rate(now, done),
      open: [...this.open].map(([target, probeAt]) => ({ target, probeAt })),
      targets: this.targets
    }
  }
}

// ---------- the run

/** Where what became of a prompt goes. */
interface Sink {
  readonly write: (asked: Engine.Asked) => Effect.Effect<void, Output.OutputError | Output.ReaderGone>
}

/** Answers all lines, each as soon as there is a free place, and takes no new one after `until`. */
const answerAll = (
  settings: Settings.Settings,
  input: Input.Input,
  engine: Engine.Engine,
  sink: Sink,
  tally: Tally
) => {
  // There are as many turns as calls, and a prompt's first try ends its turn: while it waits for its next one, which
  // can take minutes, another has its turn.
  const turns = Semaphore.makeUnsafe(settings.concurrency)
  let isOver = false

  const answer = (item: Prompt | Malformed) =>
    item._tag === "Malformed"
      ? Effect.flatMap(Clock.currentTimeMillis, (now) => write(unread(item, now), () => tally.failedUnread()))
      // It may have waited for its turn until all was over.
      : Effect.andThen(turns.take(1), Effect.suspend(() => isOver ? turns.release(1) : ask(item)))

  const ask = (prompt: Prompt) => {
    let hasTurn = true
    const endTurn = Effect.suspend(() => {
      if (!hasTurn) return Effect.void
      hasTurn = false
      return turns.release(1)
    })
    tally.started()
    return engine.ask(prompt, endTurn).pipe(
      Effect.ensuring(endTurn),
      Effect.flatMap((asked) => write(asked, () => tally.finished(asked.result)))
    )
  }

  const write = (asked: Engine.Asked, counted: () => void) => Effect.tap(sink.write(asked), () => Effect.sync(counted))

  return (until: Effect.Effect<unknown>) => {
    const end = Effect.tap(until, () =>
      Effect.sync(() => {
        isOver = true
      }))
    return input.items.pipe(
      Stream.tap((item) => hasModel(settings, item)),
      // One at a time, or what was read together would all be asked after the signal.
      Stream.rechunk(1),
      Stream.interruptWhen(end),
      Stream.mapEffect(answer, { concurrency: engine.places, unordered: true }),
      Stream.runDrain
    )
  }
}

const hasModel = (
  { targets: [{ model }] }: Settings.Settings,
  item: Prompt | Malformed
): Effect.Effect<void, Settings.SettingsError> =>
  item._tag === "Prompt" && item.model === undefined && model === undefined
    ? Effect.fail(
      new Settings.SettingsError({ message: `line ${item.line} names no model: --model NAME, or SLUICE_MODEL` })
    )
    : Effect.void

const unread = ({ id, line, message }: Malformed, now: number): Engine.Asked => {
  const result: Result = {
    line,
    id,
    status: "failed",
    target: undefined,
    model: undefined,
    attempts: 0,
    how: "led",
    milliseconds: 0,
    error: { tag: "MalformedLine", message, retryAfter: undefined }
  }
  return { result, record: new CallRecord.Trace(now).record(result) }
}

/**
 * Runs until the end, or until what was running at the first signal has finished, or until the second signal; tells the
 * signal if there was one.
 */
const untilSignal = <E>(
  runUntil: (until: Effect.Effect<unknown>) => Effect.Effect<void, E>,
  signals: Signals.Signals
): Effect.Effect<Option.Option<Signals.Signal>, E> =>
  Effect.suspend(() => {
    let heard = Option.none<Signals.Signal>()
    const first = Effect.tap(signals.first, (signal) => {
      heard = Option.some(signal)
      return say("\nFinishing what runs; once more to stop at once.\n")
    })
    return Effect.raceFirst(runUntil(first), signals.second).pipe(Effect.map(() => heard))
  })
