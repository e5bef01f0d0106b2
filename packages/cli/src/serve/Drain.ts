/** The end of the gateway without a lost answer. */
import * as Effect from "effect/Effect"
import type { Logs } from "./Logs.ts"
import type { Reloads } from "./Reloads.ts"
import type { Server } from "./Server.ts"

/** Time for the error events to reach their clients. */
const lastMillis = 1_000

/**
 * 1. `/health` and `/ready` answer 503, and connections close with their response. Requests are answered for `drainDelay`.
 * 2. New connections and requests are refused. Running requests may end within `drainTimeout`.
 * 3. Requests that still run end with an error event.
 */
export const drain = Effect.fnUntraced(function*(server: Server, reloads: Reloads, logs: Logs, signal: string) {
  const { flags: { drainDelayMillis, drainTimeoutMillis } } = reloads.current.settings
  logs.info("draining", { signal, running: server.count })
  server.drain()
  yield* Effect.sleep(drainDelayMillis)
  const closed = server.close()
  const idle = Effect.promise(() => closed)
  yield* Effect.raceFirst(idle, Effect.sleep(drainTimeoutMillis))
  if (server.count === 0) return
  logs.warn("ending requests that still run", { running: server.count, afterMillis: drainTimeoutMillis })
  yield* reloads.end
  yield* Effect.raceFirst(idle, Effect.sleep(lastMillis))
})
