/** `sluice run`: sends a file of prompts and writes a file of results. */
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

/** Runs the file and returns the exit code. */
export const execute = (path: string, flags: RunFlags): Promise<number> =>
  Effect.runPromise(
    Effect.scoped(run(path, flags)).pipe(
      Effect.catchTag("ReaderGone", () => Effect.succeed(ExitCode.readerGone)),
      Effect.catch((error) => Effect.as(sayError(error.message), exitCodeOf(error)))
    )
  )

const exitCodeOf = (error: { readonly _tag: string; readonly why?: string | undefined }): number =>
  error._tag === "RunStopped" && error.why === "Outage" ? ExitCode.outage : ExitCode.unusable

const say = (text: string): Effect.Effect<void> => Effect.sync(() => void process.stderr.write(text))

const sayError = (message: string): Effect.Effect<void> => say(`sluice run: ${Terminal.escape(message)}\n`)

const run = Effect.fnUntraced(function*(path: string, flags: RunFlags) {
  const isOutputTerminal = process.stdout.isTTY === true
  const settings = yield* Settings.resolve(flags, { env: process.env, isOutputTerminal })
  const signals = yield* Signals.listen
  const input = yield* Input.make({ path, system: settings.system, limit: settings.limit })
  const mask = Mask.make(settings.targets.flatMap(({ apiKey }) => apiKey === undefined ? [] : [Redacted.value(apiKey)]))
  const startedAt = yield* Clock.currentTimeMillis
  const tally = new Tally()
  const progress = new RunProgress(tally, startedAt, settings.targets.length)
  const facts = new Facts(
    settings.targets.map(({ model, name, url }) => ({
      name,
      model: model ?? "named per line",
      host: new URL(url).host
    })),
    startedAt
  )
  const engine = yield* Engine.make(settings, {
    attemptStarted: () => tally.attemptStarted(),
    attemptFailed: (reason) => tally.attemptFailed(reason),
    paid: (usage) => tally.paid(usage),
    circuitChanged: (change) => {
      progress.circuitChanged(change)
      facts.circuitChanged(change)
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
  const explanations = new Explanations(settings.explain)
  const sink: Sink = {
    // Counted after it is written, so that the counts match the files.
    write: ({ record, result }) =>
      Effect.tap(output.write(RunResult.encode(result, mask)), () => {
        facts.add(record)
        explanations.add(record)
        return log === undefined ? Effect.void : log.write(CallRecord.encode(record, mask))
      })
  }
  const screen: Live.Screen = {
    write: (text) => process.stderr.write(mask(text)),
    // Some terminals report no width, or 0.
    columns: () => process.stderr.columns || 80,
    mode: Live.modeOf({
      quiet: settings.quiet,
      isTerminal: process.stderr.isTTY === true,
      isShared: settings.output === "-" && isOutputTerminal,
      env: process.env
    })
  }
  if (input.count !== undefined && screen.mode !== "off") yield* Effect.forkScoped(count(input.count, progress))
  const ended = yield* Effect.exit(
    Live.during(
      untilSignal(completeAll(settings, input, engine, sink, tally), signals),
      screen,
      (now) => progress.view(now)
    )
  )
  facts.endedAt = yield* Clock.currentTimeMillis
  if (page !== undefined && facts.answered + facts.failed > 0) {
    yield* page.write(
      mask(Page.render(facts, { input: basename(path), stopped: stoppedBy(ended), unusable: tally.unusable }))
    )
  }
  const explanation = mask(explanations.render())
  if (explanation !== "") {
    yield* settings.output === "-" ? say(explanation) : Effect.sync(() => void process.stdout.write(explanation))
  }
  const signal = yield* ended
  if (!settings.quiet) yield* say(mask(Summary.render(tally, facts.endedAt - startedAt)))
  if (Option.isSome(signal)) return Signals.exitCode(signal.value)
  return tally.failed === 0 ? ExitCode.ok : ExitCode.someFailed
})

/** Says in the report why a run stopped early. `undefined` if it did not. */
const stoppedBy = <E extends { readonly message: string }>(
  ended: Exit.Exit<Option.Option<Signals.Signal>, E>
): string | undefined => {
  if (Exit.isSuccess(ended)) {
    return Option.getOrUndefined(Option.map(ended.value, (signal) => `Stopped early by ${signal}.`))
  }
  return Option.match(Cause.findErrorOption(ended.cause), {
    onNone: () => "Stopped early.",
    onSome: ({ message }) => `Stopped early: ${message}`
  })
}

/** Collects the records of `--explain`, for the end of the run. */
class Explanations {
  private readonly searches: ReadonlyArray<Explain.Search>
  /** The records of prompts that made a call, by its id. Other prompts may share its answer. */
  private readonly leaders = new Map<string, CallRecord.CallRecord>()

  constructor(names: ReadonlyArray<string>) {
    this.searches = names.map((name) => new Explain.Search(name))
  }

  add(record: CallRecord.CallRecord): void {
    if (this.searches.length === 0) return
    if (record.how === "led" && record.call !== undefined) this.leaders.set(record.call, record)
    for (const search of this.searches) search.add(record)
  }

  render(): string {
    const columns = process.stdout.columns || 80
    return this.searches.map(({ found, name }) =>
      found.length === 0
        ? `${Terminal.clip(Terminal.escape(name), 60)}: no such prompt in this run\n`
        : Explain.renderAll(found, this.leaders, columns)
    ).join("\n")
  }
}

// Ignores errors: the run reports them when it reads the file.
const count = (counting: Effect.Effect<number, Input.InputError>, progress: RunProgress): Effect.Effect<void> =>
  Effect.ignore(Effect.map(counting, (total) => {
    progress.total = total
  }))

/** The state of the progress line. */
class RunProgress {
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

  circuitChanged({ circuit, target }: Change): void {
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
      failedAttempts: failures.reduce((sum, [, times]) => sum + times, 0),
      shared: joined + cached,
      rate: this.pace.rate(now, done),
      open: [...this.open].map(([target, probeAt]) => ({ target, probeAt })),
      targets: this.targets
    }
  }
}

// ---------- the run

interface Sink {
  readonly write: (completed: Engine.Completed) => Effect.Effect<void, Output.OutputError | Output.ReaderGone>
}

/** Completes all lines concurrently. Starts no prompt after `until`. */
const completeAll = (
  settings: Settings.Settings,
  input: Input.Input,
  engine: Engine.Engine,
  sink: Sink,
  tally: Tally
) => {
  // As many turns as calls run at once. A prompt's first attempt ends its turn, because its backoff can take minutes and
  // another prompt can run meanwhile.
  const turns = Semaphore.makeUnsafe(settings.concurrency)
  let isStopping = false

  const complete = (item: Prompt | Malformed) =>
    item._tag === "Malformed"
      ? Effect.flatMap(Clock.currentTimeMillis, (now) => write(malformed(item, now), () => tally.malformedLine()))
      // The run may have been stopped while the prompt was queued for its turn.
      : Effect.andThen(turns.take(1), Effect.suspend(() => isStopping ? turns.release(1) : send(item)))

  const send = (prompt: Prompt) => {
    let hasTurn = true
    const endTurn = Effect.suspend(() => {
      if (!hasTurn) return Effect.void
      hasTurn = false
      return turns.release(1)
    })
    tally.promptStarted()
    return engine.complete(prompt, endTurn).pipe(
      Effect.ensuring(endTurn),
      Effect.flatMap((completed) => write(completed, () => tally.promptFinished(completed.result)))
    )
  }

  const write = (completed: Engine.Completed, count: () => void) =>
    Effect.tap(sink.write(completed), () => Effect.sync(count))

  return (until: Effect.Effect<unknown>) => {
    const end = Effect.tap(until, () =>
      Effect.sync(() => {
        isStopping = true
      }))
    return input.items.pipe(
      Stream.tap((item) => hasModel(settings, item)),
      // One at a time, or lines read in one chunk would still be sent after the signal.
      Stream.rechunk(1),
      Stream.interruptWhen(end),
      Stream.mapEffect(complete, { concurrency: engine.maxPrompts, unordered: true }),
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
      new Settings.SettingsError({ message: `line ${item.line} names no model; set --model or SLUICE_MODEL` })
    )
    : Effect.void

const malformed = ({ id, line, message }: Malformed, now: number): Engine.Completed => {
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
 * Runs to the end. The first signal lets running prompts finish, and the second stops them. Returns the first signal, if any.
 */
const untilSignal = <E>(
  runUntil: (until: Effect.Effect<unknown>) => Effect.Effect<void, E>,
  signals: Signals.Signals
): Effect.Effect<Option.Option<Signals.Signal>, E> =>
  Effect.suspend(() => {
    let received = Option.none<Signals.Signal>()
    const first = Effect.tap(signals.first, (signal) => {
      received = Option.some(signal)
      return say("\nFinishing running prompts. Press Ctrl-C again to stop now.\n")
    })
    return Effect.raceFirst(runUntil(first), signals.second).pipe(Effect.map(() => received))
  })
