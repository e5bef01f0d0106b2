/** `sluice run`: sends a file of prompts and writes a file of results. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { basename } from "node:path"
import * as ExitCode from "../ExitCode.ts"
import * as Explain from "../explain/Explain.ts"
import * as Mask from "../Mask.ts"
import type { RunFlags } from "../options.ts"
import { Facts } from "../report/Facts.ts"
import * as Page from "../report/Page.ts"
import * as Say from "../Say.ts"
import * as Signals from "../Signals.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"
import * as CallRecord from "./CallRecord.ts"
import type { Change } from "./Circuits.ts"
import * as Completion from "./Completion.ts"
import * as Engine from "./Engine.ts"
import type * as Input from "./Input.ts"
import * as Live from "./Live.ts"
import * as Output from "./Output.ts"
import type { View } from "./Progress.ts"
import * as Progress from "./Progress.ts"
import * as RunResult from "./Result.ts"
import * as Setup from "./Setup.ts"
import * as Summary from "./Summary.ts"
import { Tally } from "./Tally.ts"

/** Runs the file and returns the exit code. */
export const execute = (path: string, flags: RunFlags): Promise<number> =>
  Effect.runPromise(
    Effect.scoped(run(path, flags)).pipe(
      Effect.catchTag("ReaderGone", () => Effect.succeed(ExitCode.readerGone)),
      Effect.catch((error) => Effect.as(sayError(error), exitCodeOf(error)))
    )
  )

const exitCodeOf = (error: { readonly _tag: string; readonly why?: string | undefined }): number =>
  error._tag === "RunStopped" && error.why === "Outage" ? ExitCode.outage : ExitCode.unusable

const say = (text: string): Effect.Effect<void> => Effect.sync(() => void process.stderr.write(text))

const sayError = (
  error: { readonly message: string; readonly problems?: ReadonlyArray<string> }
): Effect.Effect<void> => Effect.sync(() => Say.error("sluice run", ...error.problems ?? [error.message]))

const run = Effect.fnUntraced(function*(path: string, flags: RunFlags) {
  const isOutputTerminal = process.stdout.isTTY === true
  const { input, settings } = yield* Setup.make(path, flags, { env: process.env, isOutputTerminal })
  const signals = yield* Signals.listen
  const maskSecrets = Mask.make(settings.targets.flatMap(({ apiKey, url }) => [
    ...(apiKey === undefined ? [] : [Redacted.value(apiKey)]),
    ...UrlSecrets.of(url)
  ]))
  const mask = (text: string): string => UrlSecrets.hide(maskSecrets(text))
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
  const engine = yield* Engine.make({ ...settings, mask }, {
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
  const sink: Completion.Sink = {
    // Counted after it is written, so that the counts match the files.
    write: ({ record, result }) =>
      Effect.tap(output.write(RunResult.encode(result)), () => {
        facts.add(record, result)
        explanations.add(record)
        return log === undefined ? Effect.void : log.write(CallRecord.encode(record))
      })
  }
  const screen: Live.Screen = {
    write: (text) => process.stderr.write(text),
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
  const lines = new Completion.Completion(settings, input, engine, sink, tally, (text) => process.stderr.write(text))
  const ended = yield* Effect.exit(Live.during(lines.run(signals), screen, (now) => progress.view(now)))
  const unwritten = canWriteMore(ended, tally)
    ? yield* Effect.exit(lines.writeUnfinished(whyStopped(ended)))
    : Exit.void
  facts.endedAt = yield* Clock.currentTimeMillis
  const reported = page === undefined || facts.answered + facts.failed === 0
    ? Exit.void
    : yield* Effect.exit(
      page.write(Page.render(facts, { input: basename(path), stopped: stoppedBy(ended), unusable: tally.unusable }))
    )
  const explanation = explanations.render()
  if (explanation !== "") {
    yield* settings.output === "-" ? say(explanation) : Effect.sync(() => void process.stdout.write(explanation))
  }
  if (!settings.quiet && (tally.done > 0 || Exit.isSuccess(ended))) {
    yield* say(Summary.render(tally, facts.endedAt - startedAt))
  }
  const signal = yield* ended
  yield* unwritten
  yield* reported
  if (Option.isSome(signal)) return Signals.exitCode(signal.value)
  return tally.failed === 0 ? ExitCode.ok : ExitCode.someFailed
})

type Ended = Exit.Exit<Option.Option<Signals.Signal>, Completion.CompletionError>

const errorOf = (ended: Ended): Completion.CompletionError | undefined =>
  Exit.isSuccess(ended) ? undefined : Option.getOrUndefined(Cause.findErrorOption(ended.cause))

/**
 * Whether the lines without a result can get one. Not if the output failed. A run that could not start leaves no files, so that
 * it can be repeated with the same flags.
 */
const canWriteMore = (ended: Ended, tally: Tally): boolean => {
  const error = errorOf(ended)
  switch (error?._tag) {
    case "OutputError":
    case "ReaderGone":
      return false
    case "SettingsError":
    case "InputError":
      return tally.done > 0
    case "RunStopped":
      return error.why === "Outage" || tally.done > 0
    case undefined:
      return true
  }
}

/** Says in the results of unfinished prompts why a run stopped early. */
const whyStopped = (ended: Ended): string => {
  const signal = Exit.isSuccess(ended) ? Option.getOrUndefined(ended.value) : undefined
  return signal === undefined ? errorOf(ended)?.message ?? "the run was stopped" : `the run was stopped by ${signal}`
}

/** Says in the report why a run stopped early. `undefined` if it did not. */
const stoppedBy = (ended: Ended): string | undefined => {
  if (Exit.isSuccess(ended)) {
    return Option.getOrUndefined(Option.map(ended.value, (signal) => `Stopped early by ${signal}.`))
  }
  const message = errorOf(ended)?.message
  return message === undefined ? "Stopped early." : `Stopped early: ${message}`
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
