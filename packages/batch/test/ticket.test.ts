/** One ticket in the hands of a worker, on SQLite in memory and on the clock of the test. */
import * as Asker from "@sluice/batch/Asker"
import * as Batches from "@sluice/batch/Batches"
import { assert, describe, it } from "@effect/vitest"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Persist from "../src/internal/persist.ts"
import * as Queue from "../src/internal/queue.ts"
import * as Db from "../src/internal/tables/db.ts"
import type { NewResult } from "../src/internal/tables/results.ts"
import * as Workers from "../src/internal/tables/workers.ts"
import { Held } from "../src/internal/worker/held.ts"
import { TicketHandler } from "../src/internal/worker/tickets.ts"
import { requests, Scripted } from "./support/machine.ts"

const database = Layer.mergeAll(Batches.layer, Queue.layer).pipe(
  Layer.provide(Batches.migrations.layer),
  Layer.provideMerge(SqlDatabase.layer({ url: "sqlite::memory:" }))
)

const delivery = { attempts: 1, lapses: 0 }
const ticket = { batch: 1, run: 0, from: 0, to: 2, round: 0 }

/** A handler of the first ticket of a batch of two requests, which are asked at once or one by one. */
const handlerOf = Effect.fnUntraced(function*(
  scripted: Scripted,
  options: { readonly inFlight: number; readonly onLost: "ask-again" | "fail" },
  store: (result: NewResult) => void = () => {}
) {
  const db = yield* Db.make
  const clock = yield* TestClock.testClockWith(Effect.succeed)
  const now = () => clock.currentTimeMillisUnsafe()
  yield* Batches.Batches.use((batches) => batches.submit({ id: "file" }, requests(2)))
  const handler = new TicketHandler({ name: "worker", maxRounds: 5, ...options }, {
    asker: yield* Effect.provide(Asker.Asker, scripted.layer),
    db,
    gate: { waiting: () => undefined, pass: Effect.void },
    held: new Held(4_000, now()),
    now,
    persist: Persist.make(),
    queue: yield* Queue.make,
    writer: { write: (result) => Effect.sync(() => store(result)) }
  })
  yield* handler.start
  return { handler, suspects: Workers.suspects(db, ticket) }
})

describe("a ticket", () => {
  it.effect("whose lease may have lapsed while an answer was stored goes back, and no further request is asked", () =>
    Effect.gen(function*() {
      const scripted = new Scripted()
      const stored: Array<number> = []
      scripted.answer = () => Effect.as(TestClock.adjust("10 seconds"), answer)
      const { handler } = yield* handlerOf(
        scripted,
        { inFlight: 1, onLost: "ask-again" },
        ({ seq }) => stored.push(seq)
      )
      const exit = yield* Effect.exit(handler.handle(ticket, delivery))
      assert.strictEqual(exit._tag, "Failure")
      assert.strictEqual(scripted.asked.length, 1)
      assert.deepStrictEqual(stored, [0])
    }).pipe(Effect.scoped, Effect.provide(database)))

  it.effect("whose lease may have lapsed between its claim and its handler goes back, and no request is asked", () =>
    Effect.gen(function*() {
      const scripted = new Scripted()
      const { handler } = yield* handlerOf(scripted, { inFlight: 1, onLost: "ask-again" })
      yield* TestClock.adjust("10 seconds")
      const exit = yield* Effect.exit(handler.handle(ticket, delivery))
      assert.strictEqual(exit._tag, "Failure")
      assert.deepStrictEqual(scripted.asked, [])
    }).pipe(Effect.scoped, Effect.provide(database)))

  it.effect("with onLost \"fail\" has a request written down only while it is asked", () =>
    Effect.gen(function*() {
      const scripted = new Scripted()
      scripted.answer = ({ key }) =>
        key === "k0"
          ? Effect.andThen(Effect.sleep("1 second"), Effect.fail(new Asker.AskLater({ reason: "503", isCall: true })))
          : Effect.never
      const { handler, suspects } = yield* handlerOf(scripted, { inFlight: 2, onLost: "fail" })
      const running = yield* Effect.forkChild(handler.handle(ticket, delivery))
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(yield* suspects, new Set([0, 1]))
      yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* suspects, new Set([1]))
      yield* Fiber.interrupt(running)
    }).pipe(Effect.scoped, Effect.provide(database)))

  it.effect("with onLost \"fail\" has no request written down that was refused without a call, until it is asked again", () =>
    Effect.gen(function*() {
      const scripted = new Scripted()
      scripted.answer = () =>
        scripted.asked.length <= 2
          ? Effect.fail(new Asker.AskLater({ reason: "no permit", isCall: false }))
          : Effect.never
      const { handler, suspects } = yield* handlerOf(scripted, { inFlight: 2, onLost: "fail" })
      const running = yield* Effect.forkChild(handler.handle(ticket, delivery))
      yield* TestClock.adjust(20)
      yield* TestClock.adjust(20)
      assert.deepStrictEqual(yield* suspects, new Set())
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(scripted.asked.length, 4)
      assert.deepStrictEqual(yield* suspects, new Set([0, 1]))
      yield* Fiber.interrupt(running)
    }).pipe(Effect.scoped, Effect.provide(database)))
})

const answer: Asker.Answer = { kind: "ok", body: "yes", inputTokens: 0, outputTokens: 0, micros: 0 }
