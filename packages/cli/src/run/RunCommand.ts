/** `sluice run`: a file of prompts in, a file of results out. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as ExitCode from "../ExitCode.ts"
import * as Mask from "../Mask.ts"
import type { RunFlags } from "../options.ts"
import * as Signals from "../Signals.ts"
import * as Terminal from "../Terminal.ts"
import * as Engine from "./Engine.ts"
import * as Input from "./Input.ts"
import * as Live from "./Live.ts"
import * as Output from "./Output.ts"
import type { Circuit, View } from "./Progress.ts"
import * as Progress from "./Progress.ts"
import type { Malformed, Prompt } from "./Prompt.ts"
import type { Result } from "./Result.ts"
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
  const mask = Mask.make(settings.apiKey === undefined ? [] : [Redacted.value(settings.apiKey)])
  const startedAt = yield* Clock.currentTimeMillis
  const tally = new Tally()
  const board = new Board(tally, startedAt)
  const engine = yield* Engine.make(settings, {
    called: () => tally.called(),
    attemptFailed: (reason) => tally.attemptFailed(reason),
    circuit: (circuit) => board.circuit = circuit
  })
  const output = yield* Output.make({ path: settings.output, force: settings.force, input: input.identity, mask })
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
  const signal = yield* Live.during(
    untilSignal(answerAll(settings, input, engine, output, tally), signals),
    screen,
    (now) => board.view(now)
  )
  if (!settings.quiet) yield* say(Summary.render(tally, (yield* Clock.currentTimeMillis) - startedAt))
  if (Option.isSome(signal)) return Signals.exitCode(signal.value)
  return tally.failed === 0 ? ExitCode.ok : ExitCode.someFailed
})

// A file that cannot be counted can still be run; the run says what is wrong with it.
const count = (counting: Effect.Effect<number, Input.InputError>, board: Board): Effect.Effect<void> =>
  Effect.ignore(Effect.map(counting, (total) => {
    board.total = total
  }))

/** Everything that the live line is made of. */
class Board {
  circuit: Circuit = { state: "closed" }
  total: number | undefined = undefined
  private readonly pace: Progress.Pace
  private readonly tally: Tally

  constructor(tally: Tally, startedAt: number) {
    this.tally = tally
    this.pace = new Progress.Pace(startedAt)
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
      circuit: this.circuit
    }
  }
}

// ---------- the run

/** Answers all lines, each as soon as there is a free place, and takes no new one after `until`. */
const answerAll = (
  settings: Settings.Settings,
  input: Input.Input,
  engine: Engine.Engine,
  output: Output.Output,
  tally: Tally
) => {
  // There are as many turns as calls, and a prompt's first try ends its turn: while it waits for its next one, which
  // can take minutes, another has its turn.
  const turns = Semaphore.makeUnsafe(settings.concurrency)
  let isOver = false

  const answer = (item: Prompt | Malformed) =>
    item._tag === "Malformed"
      ? write(unread(item), () => tally.failedUnread())
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
      Effect.flatMap((result) => write(result, () => tally.finished(result)))
    )
  }

  // Counted when it stands in the file, and not before: what the table says is there.
  const write = (result: Result, counted: () => void) => Effect.tap(output.write(result), () => Effect.sync(counted))

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

const hasModel = (settings: Settings.Settings, item: Prompt | Malformed): Effect.Effect<void, Settings.SettingsError> =>
  item._tag === "Prompt" && item.model === undefined && settings.model === undefined
    ? Effect.fail(
      new Settings.SettingsError({ message: `line ${item.line} names no model: --model NAME, or SLUICE_MODEL` })
    )
    : Effect.void

const unread = ({ id, line, message }: Malformed): Result => ({
  line,
  id,
  status: "failed",
  model: undefined,
  attempts: 0,
  how: "led",
  milliseconds: 0,
  error: { tag: "MalformedLine", message, retryAfter: undefined }
})

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
