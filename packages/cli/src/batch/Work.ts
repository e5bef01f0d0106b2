/** `sluice batch work`: asks the requests of batches until a signal. */
import * as Asker from "@sluice/batch/Asker"
import { Batches } from "@sluice/batch/Batches"
import * as Feeder from "@sluice/batch/Feeder"
import * as Worker from "@sluice/batch/Worker"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as BatchStore from "../BatchStore.ts"
import * as ExitCode from "../ExitCode.ts"
import * as Stores from "../fleet/Stores.ts"
import * as Options from "../options.ts"
import type { BatchFlags } from "../options.ts"
import * as Live from "../run/Live.ts"
import * as FrontAsker from "../serve/FrontAsker.ts"
import * as Logs from "../serve/Logs.ts"
import { Metrics } from "../serve/Metrics.ts"
import { Reloads } from "../serve/Reloads.ts"
import * as Settings from "../serve/Settings.ts"
import * as Telemetry from "../serve/Telemetry.ts"
import type { Given } from "../Shell.ts"
import * as Signals from "../Signals.ts"
import * as Sources from "../Sources.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"
import * as WorkProgress from "./WorkProgress.ts"

/** Works until a signal, and lets running calls end. Needs the tables of batches. */
export const work = Effect.fnUntraced(function*(given: Given, flags: BatchFlags) {
  const surroundings = Sources.here()
  // The flags of the gateway's targets, which the command borrows. The others are its own.
  const ofServe = new Map([...given].filter(([name]) => borrowed.has(name)))
  const settings = yield* Settings.read(ofServe, surroundings)
  const batches = yield* Batches
  const isTerminal = process.stderr.isTTY === true
  const mode = Live.modeOf({ quiet: !isTerminal, isTerminal, isShared: false, env: process.env })
  // Lines on a terminal replace the live line, which is drawn again below them.
  const write = (text: string): void => void process.stderr.write(mode === "live" ? Live.eraseLine + text : text)
  const logs = new Logs.Logs(isTerminal ? "text" : "json", { write, send: yield* Telemetry.logs(surroundings.env) })
  yield* Effect.addFinalizer(() => Effect.sync(() => logs.flush()))
  /** Says something in words on a terminal, and logs it elsewhere. */
  const tell = (text: string, event: string, fields: Logs.Fields): void => {
    if (isTerminal) write(`${text}\n`)
    else logs.info(event, fields)
  }
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const progress = new WorkProgress.WorkProgress(now, {
    onBatch: (batch) => logs.info("batch started", { batch }),
    onPutOff: (batch, reason) => logs.warn("put off", { batch, reason })
  })
  const signals = yield* Signals.listenTo(["SIGINT", "SIGTERM"])
  const base = Layer.mergeAll(
    Stores.layer(settings.flags.store),
    Layer.orDie(HttpTransport.layer()),
    Telemetry.layer(surroundings.env),
    Logs.layer(logs)
  )
  const inFlight = Settings.callsAtOnce(settings)
  const feeder = BatchStore.isPostgres(flags.batches) ? Feeder.layerCluster() : Feeder.layer()
  const asker = Layer.effect(
    Asker.Asker,
    Effect.gen(function*() {
      const metrics = new Metrics(yield* Effect.context<never>())
      const reloads = yield* Reloads.make({
        given: ofServe,
        surroundings,
        settings,
        logs,
        metrics,
        onTransition: (change) => progress.circuitChanged(change)
      })
      return progress.watch(FrontAsker.make(() => reloads.current))
    })
  ).pipe(Layer.provide(base))
  const machine = Layer.merge(
    Worker.layer({ inFlight, drain: settings.flags.drainTimeoutMillis, stopNow: signals.second }).pipe(
      Layer.provide(asker)
    ),
    feeder
  ).pipe(Layer.provide(Logs.layer(logs)))
  // Closed before the summary, since running calls end while it closes.
  const working = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  yield* Layer.buildWithScope(machine, working)
  const place = UrlSecrets.shown(flags.batches)
  tell(
    `Working on the batches of ${Terminal.escape(place)}, ${inFlight} requests at once. Ctrl-C stops it.`,
    "started",
    { batches: place, targets: settings.targets.length, maxInFlight: inFlight }
  )
  const look = Effect.map(batches.list({ endedWithin: "1 minute", limit: 1_000 }), (statuses) => {
    for (const { failed, id, marked, micros, ok, state } of progress.listed(statuses)) {
      const costDollars = micros === 0 ? undefined : micros / 1e6
      logs.info("batch ended", { batch: id, state, ok, failed, marked, costDollars })
    }
  })
  // The worker reports a database that is down.
  yield* Effect.ignore(look).pipe(
    Effect.andThen(Effect.sleep(lookEvery)),
    Effect.forever,
    Effect.withTracerEnabled(false),
    Effect.forkScoped
  )
  if (!isTerminal) yield* Effect.forkScoped(summaries(progress, logs))
  const stopped = Effect.flatMap(signals.first, (signal) => {
    progress.stop()
    tell(`${mode === "live" ? "" : "\n"}Finishing running calls. ${Signals.again(signal)}`, "draining", {
      signal,
      running: progress.view(now()).inFlight
    })
    return Scope.close(working, Exit.void)
  })
  let last = ""
  const screen: Live.Screen = {
    mode,
    // Some terminals report no width, or 0.
    columns: () => process.stderr.columns || 80,
    // An idle worker repeats no plain line.
    write: (text) => {
      if (mode === "live" || text !== last) process.stderr.write(text)
      last = text
    }
  }
  yield* Live.during(stopped, screen, (now, columns) => WorkProgress.render(progress.view(now), columns))
  const totals = progress.totals(now())
  const { answered, failed, givenBack, micros, millis } = totals
  const costDollars = micros === 0 ? undefined : micros / 1e6
  tell(WorkProgress.summary(totals), "stopped", { answered, failed, costDollars, durationMillis: millis, givenBack })
  return ExitCode.ok
})

const lookEvery = "3 seconds"
const summaryEvery = "30 seconds"

/** Logs the progress while requests are answered. */
const summaries = (progress: WorkProgress.WorkProgress, logs: Logs.Logs): Effect.Effect<never> => {
  let before = 0
  return Effect.map(Effect.andThen(Effect.sleep(summaryEvery), Clock.currentTimeMillis), (now) => {
    const view = progress.view(now)
    const done = view.answered + view.failed
    if (done !== before) logs.info("progress", WorkProgress.fieldsOf(view))
    before = done
  }).pipe(Effect.forever)
}

const borrowed = new Set(Object.values(Options.batchBorrows).map(({ name }) => name))
