/** Takes tickets while there is room, and tells the others that this worker lives. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Asker } from "../../Asker.ts"
import * as Persist from "../persist.ts"
import { type Queue, Times } from "../queue.ts"
import type { Db } from "../tables/db.ts"
import * as Results from "../tables/results.ts"
import * as Workers from "../tables/workers.ts"
import * as Ticket from "../ticket.ts"
import * as Writer from "../writer.ts"
import * as Gate from "./gate.ts"
import { Held } from "./held.ts"
import { TicketHandler } from "./tickets.ts"

export interface Options {
  readonly name: string
  readonly inFlight: number
  readonly drainMillis: number
  readonly stopNow: Effect.Effect<unknown>
  readonly maxRounds: number
  readonly onLost: "ask-again" | "fail"
}

const beatMillis = 500

/** How long tickets may take to go back, once their calls are interrupted. Without a database they cannot. */
const giveBackMillis = 5_000

const retryMillis = 300

/** More takes at once would only make the engine's statements larger. */
const maxWaiting = 64

/** A little more than one, so that a slot does not wait for the queue. */
const heldPerSlot = 1.125

/** Runs a worker until the scope closes. Then lets calls finish for `drainMillis`. */
export const run = Effect.fnUntraced(function*(
  options: Options,
  { asker, db, queue }: { readonly asker: Asker["Service"]; readonly db: Db; readonly queue: Queue }
): Effect.fn.Return<void, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const { lease, poll, refresh } = yield* Times
  const giveUpMillis = 1.5 * poll
  // Leases were refreshed up to `refresh` before the last beat.
  const held = new Held(lease - refresh, now())
  const takes = yield* FiberSet.make<void>()
  const persist = Persist.make()
  const writer = yield* Writer.make<Results.NewResult>({
    store: (rows) => Results.add(db, options.name, rows),
    bytesOf: ({ body }) => body.length,
    persist
  })

  /** Takes that wait for a ticket. */
  const waiting = new Set<Fiber.Fiber<unknown, unknown>>()
  let isStopping = false
  const gate = yield* Gate.make(asker, () => held.changed.openUnsafe())
  const mayTake = () => !isStopping && gate.waiting() === undefined
  /**
   * Ends the takes that wait. The engine may be reading tickets for them, which only a take gives back, so they have time for that. If
   * the database needs longer, `giveBack` does it.
   */
  const giveUp = Effect.andThen(
    Effect.sleep(giveUpMillis),
    Effect.sync(() => {
      if (mayTake()) return
      for (const fiber of waiting) fiber.interruptUnsafe()
    })
  )
  const emptied = Effect.andThen(giveUp, FiberSet.awaitEmpty(takes))
  const handler = new TicketHandler(options, { asker, db, gate, held, now, persist, queue, writer })
  yield* handler.start

  let ticketSize = 100
  const take = Effect.suspend(() => {
    // Before the ticket is claimed: the process may be frozen between the claim and the handler.
    const lapses = held.lapses(now())
    let fiber: Fiber.Fiber<unknown, unknown> | undefined
    const took = () => {
      if (fiber !== undefined) waiting.delete(fiber)
      fiber = undefined
    }
    const body = queue.take((encoded, { attempts, id }) =>
      Effect.suspend(() => {
        took()
        // The queue had given it to a take that was no longer wanted. It goes back at once, and the attempt does not count.
        if (!mayTake()) return Effect.interrupt
        const ticket = Ticket.decode(encoded)
        if (ticket === undefined) {
          // The engine delivers it again later, to a worker of the newer version.
          return Effect.fail(`Ticket ${id} is of another version of Sluice`)
        }
        ticketSize = ticket.to - ticket.from
        return handler.handle(ticket, { attempts, lapses })
      })
    ).pipe(
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.void
          : Effect.andThen(
            Effect.logWarning("A ticket could not be worked on. It is tried again", cause),
            Effect.sleep(retryMillis)
          )
      ),
      Effect.ensuring(Effect.sync(() => {
        took()
        held.changed.openUnsafe()
      }))
    )
    return Effect.withFiber((self) => {
      fiber = self
      waiting.add(self)
      return body
    })
  })

  /**
   * Gives back tickets that the engine read for takes that were given up meanwhile. It keeps them for the next take, for half a minute,
   * and renews their leases. A take that finds none ends before the engine reads for it.
   */
  const giveBack: Effect.Effect<void> = Effect.suspend(() => {
    if (mayTake()) return Effect.void
    return Effect.flatMap(FiberSet.run(takes, take, { startImmediately: true }), (fiber) => {
      if (!waiting.has(fiber)) return giveBack
      fiber.interruptUnsafe()
      return Effect.void
    })
  })

  const hasRoom = () =>
    mayTake() && waiting.size < maxWaiting &&
    waiting.size < Math.ceil((options.inFlight * heldPerSlot - held.requests) / ticketSize)

  const takeMore = Effect.suspend(() => {
    held.changed.closeUnsafe()
    return Effect.whileLoop({
      while: hasRoom,
      body: () => FiberSet.run(takes, take, { startImmediately: true }),
      step: () => {}
    })
  })

  // Without a sign of life it gets no requests.
  const silent = Persist.warn("The worker could not say that it lives")

  /** Batches of which the last beat said that requests are held. */
  let told: ReadonlyArray<number> = []

  const beat = Effect.suspend(() => {
    const startedAt = now()
    held.lapses(startedAt)
    const batches = Array.from(held.byBatch.keys())
    const states = batches.length === 0 ? Effect.succeed([]) : Workers.statesOf(db, batches)
    return states.pipe(
      Effect.flatMap((states) => {
        held.apply(states)
        const byBatch = held.byBatch
        // Batches that it no longer holds are told once more, as 0.
        const tell = Array.from(
          new Set([...told, ...byBatch.keys()]),
          (batch) => ({ batch, held: byBatch.get(batch) ?? 0 })
        )
        const beat = { worker: options.name, slots: options.inFlight, waiting: gate.waiting(), held: tell }
        return Effect.map(Workers.beat(db, beat), () => {
          told = Array.from(byBatch.keys())
          held.beat(startedAt)
        })
      }),
      Effect.catch(silent),
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.interrupt
          : Effect.logError("The worker could not say that it lives because of a fault in Sluice", cause)
      )
    )
  })

  // After the last beat, which would say that it lives.
  yield* Effect.addFinalizer(() => Effect.ignore(Workers.leave(db, options.name)))
  yield* beat.pipe(Effect.repeat(Schedule.spaced(beatMillis)), Effect.forkScoped)
  yield* Effect.sleep(poll).pipe(Effect.andThen(giveBack), Effect.forever, Effect.forkScoped)
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      isStopping = true
      held.leave(false)
    }).pipe(
      Effect.andThen(asker.stop ?? Effect.void),
      Effect.andThen(
        emptied.pipe(
          Effect.raceFirst(options.stopNow),
          Effect.interruptible,
          Effect.timeoutOption(options.drainMillis)
        )
      ),
      Effect.andThen(Effect.sync(() => held.leave(true))),
      // A drain that was cut short has not given up the takes that wait.
      Effect.andThen(Effect.flatMap(
        FiberSet.size(takes),
        (left) => left === 0 ? Effect.void : Effect.timeoutOption(Effect.interruptible(emptied), giveBackMillis)
      )),
      // Interrupted tickets go back to the queue, and the attempt does not count.
      Effect.andThen(FiberSet.clear(takes))
    )
  )
  // A closed gate gives up the takes that were waiting.
  yield* held.changed.await.pipe(
    Effect.andThen(takeMore),
    Effect.andThen(Effect.suspend(() => gate.waiting() === undefined || waiting.size === 0 ? Effect.void : giveUp)),
    Effect.forever,
    Effect.forkScoped
  )
  held.changed.openUnsafe()
})
