/** `sluice run`: sends a file of prompts and writes a file of results. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { basename } from "node:path"
import * as ExitCode from "../ExitCode.ts"
import { Explanations } from "../explain/Explanations.ts"
import * as Mask from "../Mask.ts"
import { Facts } from "../report/Facts.ts"
import * as Page from "../report/Page.ts"
import * as AnswerStore from "../run/AnswerStore.ts"
import type { Written } from "../run/Batch.ts"
import * as BudgetFile from "../run/BudgetFile.ts"
import * as Cached from "../run/Cached.ts"
import * as CallRecord from "../run/CallRecord.ts"
import * as Completion from "../run/Completion.ts"
import * as DryRun from "../run/DryRun.ts"
import * as Engine from "../run/Engine.ts"
import * as Files from "../run/Files.ts"
import * as GoOn from "../run/GoOn.ts"
import { Ids } from "../run/Ids.ts"
import type * as Input from "../run/Input.ts"
import { Ledger } from "../run/Ledger.ts"
import * as Limits from "../run/Limits.ts"
import * as Live from "../run/Live.ts"
import { Ordered, windowOf } from "../run/Ordered.ts"
import type * as Output from "../run/Output.ts"
import * as Prices from "../run/Prices.ts"
import type { Malformed, Prompt } from "../run/Prompt.ts"
import * as RunResult from "../run/Result.ts"
import * as Resume from "../run/Resume.ts"
import * as RunFile from "../run/RunFile.ts"
import * as Progress from "../run/Progress.ts"
import { RunProgress } from "../run/RunProgress.ts"
import * as Samples from "../run/Samples.ts"
import type { Settings } from "../run/Settings.ts"
import { SettingsError } from "../run/Settings.ts"
import * as Setup from "../run/Setup.ts"
import * as Summary from "../run/Summary.ts"
import { Tally } from "../run/Tally.ts"
import * as Words from "../run/Words.ts"
import * as Say from "../Say.ts"
import type * as Shell from "../Shell.ts"
import * as Signals from "../Signals.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"

/** Runs the file and returns the exit code. If prompts have no answer, prints the command that continues the run. */
export const execute = async (invocation: GoOn.Invocation): Promise<number> => {
  const end: End = { advice: "", hasBegun: false, stoppedEarly: undefined }
  const code = await Effect.runPromise(
    Effect.scoped(Effect.flatMap(Signals.listen, (signals) =>
      Effect.raceFirst(
        Effect.scoped(run(invocation, end, signals)),
        Effect.flatMap(signals.first, (signal) => {
          if (end.hasBegun) return Effect.never
          end.stoppedEarly = signal
          return Effect.as(
            sayError(invocation, { message: `stopped by ${signal} before the first prompt was sent` }),
            Signals.exitCode(signal)
          )
        })
      ))).pipe(
        Effect.catchTag("ReaderGone", () => Effect.succeed(ExitCode.readerGone)),
        Effect.catch((error) => Effect.as(sayError(invocation, error), exitCodeOf(error))),
        Effect.tap(() => say(end.advice))
      )
  )
  if (end.stoppedEarly !== undefined) Signals.endNow(end.stoppedEarly)
  return code
}

/** Set by a run for its end. */
interface End {
  advice: string
  /** Whether prompts may have been sent. Before, a signal ends the run at once. */
  hasBegun: boolean
  /** The signal that ended the run before it began. */
  stoppedEarly: Signals.Signal | undefined
}

const exitCodeOf = (error: { readonly _tag: string; readonly why?: string | undefined }): number =>
  error._tag === "RunStopped" && error.why === "Outage" ? ExitCode.outage : ExitCode.unusable

const say = (text: string): Effect.Effect<void> => Effect.sync(() => void process.stderr.write(text))

const sayError = (
  { command }: GoOn.Invocation,
  error: { readonly message: string; readonly problems?: ReadonlyArray<string> }
): Effect.Effect<void> => Effect.sync(() => Say.error(`sluice ${command}`, ...error.problems ?? [error.message]))

const run = Effect.fnUntraced(function*(invocation: GoOn.Invocation, end: End, signals: Signals.Signals) {
  const { flags, given, paths } = invocation
  const isOutputTerminal = process.stdout.isTTY === true
  const { input, settings } = yield* Setup.make(paths, flags, { env: process.env, isOutputTerminal })
  if (settings.dryRun) {
    const text = yield* DryRun.run(settings, Samples.of(input, settings.samples))
    yield* Effect.sync(() => void process.stdout.write(text))
    return ExitCode.ok
  }
  const maskSecrets = Mask.make([
    ...settings.targets.flatMap(({ apiKey, url }) => [
      ...(apiKey === undefined ? [] : [Redacted.value(apiKey)]),
      ...UrlSecrets.of(url)
    ]),
    ...Object.values(settings.headers).map(Redacted.value)
  ])
  const mask = (text: string): string => UrlSecrets.hide(maskSecrets(text))
  const startedAt = yield* Clock.currentTimeMillis
  const tally = new Tally()
  const facts = new Facts(
    settings.targets.map(({ model, name, url }) => ({
      name,
      model: model ?? "named per line",
      host: new URL(url).host
    })),
    startedAt
  )
  const learned = new Limits.Learned()
  let stop = (): void => {}
  const ledger = new Ledger({ ...settings, onExhausted: () => stop() })
  const progress = new RunProgress(tally, startedAt, settings.targets.length, ledger)
  const cache = yield* openCache(settings, startedAt)
  const direct = yield* Engine.make({ ...settings, mask, ledger }, {
    attemptStarted: () => tally.attemptStarted(),
    attemptFailed: (reason) => tally.attemptFailed(reason),
    paid: (usage) => tally.paid(usage),
    circuitChanged: (change) => {
      progress.circuitChanged(change)
      facts.circuitChanged(change)
    },
    quota: (target, levels) => learned.add(target, levels),
    unusable: (target, why) => {
      if (why === undefined) tally.unusable.delete(target)
      else tally.unusable.set(target, why)
    }
  })
  const engine = cache === undefined ?
    direct :
    Cached.over(direct, cache.store, settings, cache.counts, startedAt, (error) => {
      process.stderr.write(`${Terminal.escape(error.message)}; the run continues without it\n`)
    })
  const ids = new Ids()
  // A resumed run reads its input completely before it begins, if it can be read again.
  const identified = input.again === undefined || Resume.modeOf(settings) === undefined
    ? { ...input, items: withIds(input.items, ids) }
    : { ...input, again: withIds(input.again, ids) }
  const counted = Samples.of(identified, settings.samples)
  const { isResumable, left, log, output, page, resumed } = yield* Files.open(settings, counted).pipe(
    Effect.catchTag("ResumeError", (error) => withDifference(error, given, settings))
  )
  const lost = resumed === undefined ? 0 : yield* BudgetFile.lostOf(settings.output, resumed.cost)
  ledger.addEarlier((resumed?.cost ?? 0) + lost)
  if (resumed !== undefined && !settings.quiet) yield* say(resumedText(settings.output, resumed, lost))
  const budget = new BudgetFile.BudgetFile(settings.output, lost)
  const note = once(async () => {
    if (!isResumable) return
    await RunFile.write(paths, given, settings)
    if (settings.maxCost === undefined) await budget.settle(lost)
  })
  if (isResumable && settings.maxCost !== undefined) {
    ledger.useMark(budget)
    yield* Effect.addFinalizer(() =>
      Effect.andThen(
        output.settled,
        // If it cannot be written, the higher mark stays.
        Effect.promise(() => budget.settle(ledger.spent - (resumed?.cost ?? 0) - inResults).catch(() => {}))
      )
    )
  }
  /** The cost of the results that this run has written. */
  let inResults = 0
  const explanations = new Explanations(settings.explain)
  const ordered = settings.ordered
    ? new Ordered<Output.WriteError>(windowOf(settings.concurrency))
    : undefined
  const sink: Completion.Sink = {
    push: ({ record, result: completed }, request, input, written) => {
      const millionths = ledger.close(completed)
      const result = millionths === undefined ? completed : { ...completed, cost: millionths / 1e6 }
      const text = RunResult.encode(result, request, input)
      const write = (written: Written<Output.WriteError>): void =>
        output.push(text, (error) => {
          if (error !== undefined) return written(error)
          // Counted after it is written, so that the counts match the files.
          inResults += millionths ?? 0
          if (page !== undefined) facts.add(record, result)
          explanations.add(record)
          void note()
          if (log === undefined) written(undefined)
          else log.push(CallRecord.encode(record), written)
        })
      if (ordered === undefined) write(written)
      else ordered.push(Samples.keyOf(result), Buffer.byteLength(text), write, written)
    },
    settled: log === undefined ? output.settled : Effect.andThen(output.settled, log.settled)
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
  progress.total = left
  if (resumed === undefined && counted.count !== undefined && screen.mode !== "off") {
    yield* Effect.forkScoped(count(counted.count, progress))
  }
  if (settings.maxCost !== undefined && input.again !== undefined) {
    yield* Stream.runForEachArray(input.again, (items) => checkPayable(items, ledger))
  }
  const read = resumed === undefined ? counted.items : resumed.items
  const payable = settings.maxCost === undefined
    ? read
    : Stream.mapArrayEffect(read, (items) => Effect.as(checkPayable(items, ledger), items))
  const items = ordered === undefined ? payable : ordered.items(payable)
  const sender = ordered === undefined ? engine : ordered.engine(engine)
  const lines = new Completion.Completion(settings, items, sender, sink, tally, (text) => process.stderr.write(text))
  stop = () => lines.stop()
  end.hasBegun = true
  const ended = yield* Effect.exit(
    Live.during(lines.run(signals), screen, (now, columns) => Progress.render(progress.view(now), columns))
  )
  const unwritten = canWriteMore(ended, tally)
    ? yield* Effect.exit(lines.writeUnfinished(whyStopped(ended, ledger)))
    : Exit.void
  if (tally.done > 0) yield* Effect.promise(note)
  facts.endedAt = yield* Clock.currentTimeMillis
  const limitTexts = learned.texts(tally.failures.some(([reason]) => reason === "rate limit"))
  const reported = page === undefined || facts.answered + facts.failed === 0
    ? Exit.void
    : yield* Effect.exit(
      page.write(Page.render(facts, {
        input: Words.files(paths.map((path) => basename(path))),
        stopped: ledger.isExhausted ? `Stopped early: ${ledger.refusal}.` : stoppedBy(ended),
        unusable: tally.unusable,
        cost: ledger,
        limits: limitTexts
      }))
    )
  const explanation = explanations.render()
  if (explanation !== "") {
    yield* settings.output === "-" ? say(explanation) : Effect.sync(() => void process.stdout.write(explanation))
  }
  if (!settings.quiet && (tally.done > 0 || Exit.isSuccess(ended))) {
    const before = resumed === undefined
      ? undefined
      : { answered: resumed.place.count("ok"), leftOut: resumed.leftOut() }
    yield* say(Summary.render(tally, facts.endedAt - startedAt, {
      before,
      cache: cache?.counts,
      ids,
      limits: limitTexts,
      cost: costText(ledger, facts.endedAt)
    }))
  }
  const isComplete = Exit.isSuccess(ended) && Option.isNone(ended.value) && !ledger.isExhausted
  if (isResumable && !settings.quiet) {
    end.advice = adviceOf(withBudget(invocation, ledger, progress), tally, isComplete)
  }
  const signal = yield* ended
  yield* unwritten
  yield* reported
  if (Option.isSome(signal)) return Signals.exitCode(signal.value)
  if (ledger.isExhausted) {
    yield* sayError(invocation, { message: ledger.refusal })
    return ExitCode.budget
  }
  return tally.failed === 0 && (resumed?.leftOut() ?? 0) === 0 ? ExitCode.ok : ExitCode.someFailed
})

/** Fails at the first prompt that has no price or no limit of tokens, which a budget needs. */
const checkPayable = (items: ReadonlyArray<Prompt | Malformed>, ledger: Ledger): Effect.Effect<void, SettingsError> => {
  for (const item of items) {
    const problem = item._tag === "Prompt" ? ledger.problemOf(item) : undefined
    if (problem !== undefined) return new SettingsError({ problems: [`line ${item.line}: ${problem}`] })
  }
  return Effect.void
}

/** The row of the summary. `undefined` if no price was known. */
const costText = (ledger: Ledger, now: number): string | undefined => {
  if (!ledger.hasPriced && ledger.before === 0) return undefined
  const { before, hasUnpriced, limit, spent, spentNow } = ledger
  return [
    Prices.shown(spentNow),
    ...(before === 0 ? [] : [`${Prices.shown(spent)} with earlier runs`]),
    ...(limit === Number.POSITIVE_INFINITY ? [] : [`of at most ${Prices.shown(limit)}`]),
    ...(hasUnpriced ? ["without targets that have no price"] : []),
    ...[ledger.ageOf(now)].filter((age) => age !== undefined)
  ].join(", ")
}

/** Raises the budget of the command that goes on, to what all lines are expected to cost. */
const withBudget = (invocation: GoOn.Invocation, ledger: Ledger, progress: RunProgress): GoOn.Invocation => {
  if (!ledger.isExhausted) return invocation
  const expected = progress.expectedCost ?? 0
  const budget = Math.max(2 * ledger.limit, 1.2 * (ledger.before + expected)) / 1e6
  const raise = (given: Shell.Given): Shell.Given =>
    new Map([...given, ["max-cost", [String(Number(budget.toPrecision(2)))]]])
  return { ...invocation, given: raise(invocation.given), own: raise(invocation.own) }
}

interface Cache {
  readonly store: AnswerStore.AnswerStore
  readonly counts: Cached.Counts
}

/** Opens the cache until the scope closes. `undefined` without `--cache`. */
const openCache = (
  { cache, cacheBytes, cacheTtlMillis, quiet }: Settings,
  now: number
): Effect.Effect<Cache | undefined, AnswerStore.CacheError, Scope.Scope> =>
  cache === undefined ? Effect.undefined : Effect.map(
    Effect.acquireRelease(
      Effect.try({
        try: () => new AnswerStore.AnswerStore({ folder: cache, since: now - cacheTtlMillis, maxBytes: cacheBytes }),
        // The constructor throws nothing else.
        catch: (error) => error as AnswerStore.CacheError
      }),
      (store) => Effect.sync(() => store.close())
    ),
    (store) => {
      if (store.isReplaced && !quiet) {
        process.stderr.write(`the cache ${Terminal.escape(store.path)} was damaged; starting it anew\n`)
      }
      return { store, counts: { reused: 0, added: 0 } }
    }
  )

type Items = Input.Input["items"]

/** Records the ids of the lines. */
const withIds = (items: Items, ids: Ids): Items =>
  Stream.map(items, (item) => {
    ids.add(item.line, item.id)
    return item
  })

/** Adds the flags that differ from those of the run before. */
const withDifference = (error: Resume.ResumeError, given: Shell.Given, settings: Settings) =>
  Effect.flatMap(Effect.promise(() => RunFile.read(settings.output)), (run) => {
    const flags = run === undefined ? [] : RunFile.differing(run, given, settings)
    return flags.length === 0 ? Effect.fail(error) : Effect.fail(
      new Resume.ResumeError({
        path: error.path,
        why: `${error.why}. Flags that differ from those of the run: --${flags.join(", --")}`
      })
    )
  })

/** Describes the progress of the earlier runs, and the bytes that were cut off. */
const resumedText = (path: string, { output, place, torn }: Resume.Resume, lost: number): string => {
  const name = Terminal.escape(path)
  const more = lost === 0 ? "" : `calls without a result may have cost ${Prices.shown(lost)}, which the budget counts\n`
  if (output === undefined) return `${name} does not exist yet; starting it\n${more}`
  const cut = torn === 0
    ? ""
    : `${name} ends in an unfinished line, of which ${Words.plural(torn, "byte")} are cut off\n`
  const failed = place.count("failed") + place.count("unsent")
  return `${cut}${name} has ${Words.plural(place.count("ok"), "answer")} and ${
    Words.plural(failed, "line")
  } without one\n${more}`
}

/** Returns the advice with the command that sends the prompts without an answer. */
const adviceOf = (invocation: GoOn.Invocation, { done, failed }: Tally, isComplete: boolean): string => {
  const results = invocation.flags.output ?? "-"
  if (!isComplete) return done === 0 ? "" : `To go on:\n  ${GoOn.resume(invocation, results)}\n`
  return failed === 0 || invocation.paths.includes("-")
    ? ""
    : `To send the failed prompts again:\n  ${
      GoOn.retry(results, invocation.command === "retry" ? invocation.own : undefined)
    }\n`
}

/** Runs a task at the first call. Ignores errors: the run does not need the file. */
const once = (run: () => Promise<void>): () => Promise<void> => {
  let running: Promise<void> | undefined
  return () => running ??= run().catch(() => {})
}

type Ended = Exit.Exit<Option.Option<Signals.Signal>, Completion.CompletionError>

const errorOf = (ended: Ended): Completion.CompletionError | undefined =>
  Exit.isSuccess(ended) ? undefined : Option.getOrUndefined(Cause.findErrorOption(ended.cause))

/**
 * Whether the lines without a result can get one. False if the output failed, and for a run that could not start: it leaves no
 * files, so that it can be repeated with the same flags.
 */
const canWriteMore = (ended: Ended, tally: Tally): boolean => {
  const error = errorOf(ended)
  switch (error?._tag) {
    case "OutputError":
    case "ReaderGone":
      return false
    case "SettingsError":
    case "InputError":
    case "ResumeError":
      return tally.done > 0
    case "RunStopped":
      return error.why === "Outage" || tally.done > 0
    case undefined:
      return true
  }
}

/** The reason in the results of unfinished prompts why the run stopped early. */
const whyStopped = (ended: Ended, ledger: Ledger): string => {
  if (ledger.isExhausted) return ledger.refusal
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

// Ignores errors: the run reports them when it reads the file.
const count = (counting: Effect.Effect<number, Input.InputError>, progress: RunProgress): Effect.Effect<void> =>
  Effect.ignore(Effect.map(counting, (total) => {
    progress.total = total
  }))
