/** The queue of tickets, on Effect's engine. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PersistedQueue from "effect/persistence/PersistedQueue"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { encode, idOf, type Ticket } from "./ticket.ts"

/**
 * After `lease` milliseconds without a sign of life, the tickets and the feeder of a process go to others. The engine's own times are
 * minutes. Shorter ones are for tests.
 */
export const Times = Context.Reference<{ readonly lease: number; readonly refresh: number; readonly poll: number }>(
  "@sluice/batch/internal/Times",
  { defaultValue: () => ({ lease: 6_000, refresh: 2_000, poll: 200 }) }
)

/** Makes no spans: statements that run several times a second would fill the traces. */
export const untraced = Layer.succeed(References.TracerEnabled, false)

const store = Layer.unwrap(Effect.map(Times, ({ lease, poll, refresh }) =>
  PersistedQueue.layerStoreSql({
    tableName: "sluice_batch_queue",
    pollInterval: poll,
    lockExpiration: lease,
    lockRefreshInterval: refresh
  })))

export const layer: Layer.Layer<
  PersistedQueue.PersistedQueueFactory | PersistedQueue.PersistedQueueStore,
  SqlError,
  SqlClient
> = Layer.provideMerge(PersistedQueue.layer, store).pipe(Layer.provide(untraced))

/** A settled ticket keeps its id from being offered again, so it stays a while. */
export const cleanup = PersistedQueue.layerCleanup({ interval: "10 minutes", timeToLive: "1 hour" }).pipe(
  Layer.provide(untraced)
)

export type Queue = PersistedQueue.PersistedQueue<unknown>

export const make: Effect.Effect<Queue, never, PersistedQueue.PersistedQueueFactory> = PersistedQueue.make({
  name: "tickets",
  // Decoded by the worker: the engine would drop a ticket of another version for good.
  schema: Schema.Unknown,
  // After the last attempt the engine would drop a ticket without telling anyone.
  maxAttempts: 2_147_483_647
})

export const offer = (
  queue: Queue,
  ticket: Ticket,
  { by, delayMillis }: {
    readonly delayMillis?: number | undefined
    /** The worker that gives the ticket back. Such a ticket is another one than that of a feeder. */
    readonly by?: string | undefined
  } = {}
): Effect.Effect<unknown, PersistedQueue.PersistedQueueError | Schema.SchemaError> =>
  queue.offer(encode(ticket), {
    id: by === undefined ? idOf(ticket) : `${idOf(ticket)}/${by}`,
    ...(delayMillis !== undefined && { delay: delayMillis })
  })
