/** The batches of a gateway: their API, and a worker that asks their requests through the gateway's own front. */
import * as Asker from "@sluice/batch/Asker"
import * as Feeder from "@sluice/batch/Feeder"
import * as Files from "@sluice/batch/Files"
import * as Worker from "@sluice/batch/Worker"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as FrontAsker from "../batch/FrontAsker.ts"
import * as Store from "../batch/Store.ts"
import * as Run from "../run/Settings.ts"
import * as BatchApi from "./BatchApi.ts"
import type { Current } from "./Reloads.ts"
import type { Options as ServerOptions } from "./Server.ts"
import * as Settings from "./Settings.ts"

export interface Opened {
  readonly answer: NonNullable<ServerOptions["batches"]>
}

/** Connects to the database, and works on its batches until the scope closes. */
export const open = (
  url: string,
  current: () => Current,
  drainMillis: number
): Effect.Effect<Opened, Run.SettingsError, Scope.Scope> =>
  Effect.gen(function*() {
    const asker = Layer.sync(Asker.Asker, () => FrontAsker.make(current))
    const inFlight = Settings.callsAtOnce(current().settings)
    const feeder = Store.isPostgres(url) ? Feeder.layerCluster() : Feeder.layer()
    const machine = Layer.merge(Worker.layer({ inFlight, drain: drainMillis }).pipe(Layer.provide(asker)), feeder)
    const context = yield* Layer.build(
      Layer.merge(machine, Files.layer).pipe(Layer.provideMerge(Store.layer(url)))
    ).pipe(Effect.mapError((error) => new Run.SettingsError({ problems: [Store.messageOf(error)] })))
    return {
      answer: (request, response, path, client) => {
        if (!BatchApi.isOwn(path)) return false
        BatchApi.answer(context, request, response, path, client)
        return true
      }
    }
  })
