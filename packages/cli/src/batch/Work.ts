/** `sluice batch work`: asks the requests of batches until a signal. */
import * as Asker from "@sluice/batch/Asker"
import * as Feeder from "@sluice/batch/Feeder"
import * as Worker from "@sluice/batch/Worker"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as BatchStore from "../BatchStore.ts"
import * as ExitCode from "../ExitCode.ts"
import * as Stores from "../fleet/Stores.ts"
import * as Options from "../options.ts"
import type { BatchFlags } from "../options.ts"
import * as FrontAsker from "../serve/FrontAsker.ts"
import * as Logs from "../serve/Logs.ts"
import { Metrics } from "../serve/Metrics.ts"
import { Reloads } from "../serve/Reloads.ts"
import * as Settings from "../serve/Settings.ts"
import * as Telemetry from "../serve/Telemetry.ts"
import type { Given } from "../Shell.ts"
import * as Signals from "../Signals.ts"
import * as Sources from "../Sources.ts"
import * as UrlSecrets from "../UrlSecrets.ts"

/** Works until a signal, and lets running calls end. Needs the tables of batches. */
export const work = Effect.fnUntraced(function*(given: Given, flags: BatchFlags) {
  const surroundings = Sources.here()
  // The flags of the gateway's targets, which the command borrows. The others are its own.
  const ofServe = new Map([...given].filter(([name]) => borrowed.has(name)))
  const settings = yield* Settings.read(ofServe, surroundings)
  const logs = new Logs.Logs(process.stderr.isTTY ? "text" : "json", { send: yield* Telemetry.logs(surroundings.env) })
  yield* Effect.addFinalizer(() => Effect.sync(() => logs.flush()))
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
        onTransition: () => {}
      })
      return FrontAsker.make(() => reloads.current)
    })
  ).pipe(Layer.provide(base))
  const machine = Layer.merge(
    Worker.layer({ inFlight, drain: settings.flags.drainTimeoutMillis, stopNow: signals.second }).pipe(
      Layer.provide(asker)
    ),
    feeder
  ).pipe(Layer.provide(Logs.layer(logs)))
  const running = Effect.gen(function*() {
    yield* Layer.build(machine)
    process.stderr.write(
      `Working on the batches of ${UrlSecrets.shown(flags.batches)}, ${inFlight} requests at once. Ctrl-C stops it.\n`
    )
    const signal = yield* signals.first
    process.stderr.write(`\nFinishing running calls. ${Signals.again(signal)}\n`)
  })
  yield* Effect.scoped(running)
  return ExitCode.ok
})

const borrowed = new Set(Object.values(Options.batchBorrows).map(({ name }) => name))
