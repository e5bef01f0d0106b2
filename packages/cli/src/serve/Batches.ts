/** The batches of a gateway: their API, and a worker that asks their requests through the gateway's own front. */
import * as Asker from "@sluice/batch/Asker"
import type { BatchNotFound, BatchStoreError, Status } from "@sluice/batch/Batch"
import { Batches } from "@sluice/batch/Batches"
import * as Feeder from "@sluice/batch/Feeder"
import * as Files from "@sluice/batch/Files"
import * as Worker from "@sluice/batch/Worker"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as BatchStore from "../BatchStore.ts"
import * as Run from "../run/Settings.ts"
import * as BatchApi from "./BatchApi.ts"
import { BatchRows } from "./BatchRows.ts"
import * as Calls from "./Calls.ts"
import type { Client } from "./Clients.ts"
import * as FrontAsker from "./FrontAsker.ts"
import * as Keys from "./Keys.ts"
import type { Options as ServerOptions } from "./Server.ts"
import * as Settings from "./Settings.ts"
import * as Upload from "./Upload.ts"

export interface Opened {
  readonly answer: NonNullable<ServerOptions["batches"]>
  /** Those of the live page. */
  readonly rows: BatchRows
  readonly cancel: (id: string) => Effect.Effect<Status, BatchNotFound | BatchStoreError>
  /** Takes no further request, and lets the calls that run finish. */
  readonly drain: Effect.Effect<void>
}

/** How long an ended batch is on the live page: as long as its plots. */
const shownFor = "15 minutes"
/** The page shows fewer. Live ones come first. */
const readAtOnce = 100

/** Connects to the database, and works on its batches until the scope closes. */
export const open = (
  url: string,
  calls: Calls.Surroundings,
  drainMillis: number,
  /** Completes when the drain has to end. */
  stopNow: Effect.Effect<unknown>
): Effect.Effect<Opened, Run.SettingsError, Scope.Scope> =>
  Effect.gen(function*() {
    const send: FrontAsker.Send = (owner, exchange, sink) => Calls.handle(calls, clientOf(owner), exchange, sink)
    const asker = Layer.sync(Asker.Asker, () => FrontAsker.make(calls.current, send))
    const inFlight = Settings.callsAtOnce(calls.current().settings)
    const feeder = BatchStore.isPostgres(url) ? Feeder.layerCluster() : Feeder.layer()
    const machine = Layer.merge(
      Worker.layer({ inFlight, drain: drainMillis, stopNow }).pipe(Layer.provide(asker)),
      feeder
    )
    const asSettings = Effect.mapError((error: BatchStore.StoreError) =>
      new Run.SettingsError({ problems: [BatchStore.messageOf(url, error)] })
    )
    const context = yield* asSettings(Layer.build(Layer.provideMerge(Files.layer, BatchStore.layer(url))))
    // The worker ends before the API does.
    const working = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    yield* asSettings(Effect.provideContext(Layer.buildWithScope(machine, working), context))
    const batches = Context.get(context, Batches)
    return {
      rows: new BatchRows(() => Effect.runPromise(batches.list({ endedWithin: shownFor, limit: readAtOnce }))),
      cancel: (id) => batches.cancel(id),
      drain: Scope.close(working, Exit.void),
      answer: (request, response, path, client) => {
        if (!BatchApi.isOwn(path)) return false
        const kept = calls.current().settings.flags.fileStorageBytes
        BatchApi.answer(context, request, response, path, client, { ...Upload.usual, kept })
        return true
      }
    }
  })

/** Who calls for a batch: its owner in logs, metrics and the live page. A key with limits has no batches. */
const clientOf = (owner = "batch"): Client => ({
  name: Keys.nameOf(owner),
  owner,
  isAdmin: false,
  key: undefined,
  quota: undefined
})
