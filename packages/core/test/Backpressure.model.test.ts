import * as Backpressure from "@sluice/core/Backpressure"
import { afterAll, assert, it } from "@effect/vitest"
import { Arbitrary, Cause, Deferred, Effect, Exit, Fiber, Option, Schema } from "effect"
import { TestClock } from "effect/testing"
import { yields } from "./support/probe.ts"

const queue = 4
const softLimit = 2
const softRelease = 1
// Calls of the policy's patience run out of it at multiples of 10, those of their own at 5 past: never at the same moment, so
// that it does not matter which of two timers is first.
const policyMaxWait = 100
const ownMaxWait = 35

/** What callers, operators and the passing time can do. */
type Command =
  | { readonly do: "acquire"; readonly permits: number; readonly maxWait?: number }
  | { readonly do: "tryAcquire" }
  /** Ends one of the calls that run. */
  | { readonly do: "release" | "interruptHolder"; readonly nth: number }
  | { readonly do: "interruptWaiter"; readonly nth: number }
  | { readonly do: "resize"; readonly capacity: number }
  | { readonly do: "drain" }
  | { readonly do: "resume" }
  | { readonly do: "wait"; readonly millis: number }

// The more often a command stands here, the more often it is drawn: more comes than leaves, or there would be no line.
const commands = (nth: number): ReadonlyArray<Command> => [
  // First, so that a failing sequence shrinks to what matters between commands that do nothing.
  { do: "wait", millis: 0 },
  { do: "acquire", permits: 1 },
  { do: "acquire", permits: 1 },
  { do: "acquire", permits: 1 },
  { do: "acquire", permits: 1 },
  { do: "acquire", permits: 2 },
  { do: "acquire", permits: 2 },
  { do: "acquire", permits: 3 },
  { do: "acquire", permits: 4 },
  { do: "acquire", permits: 1, maxWait: ownMaxWait },
  { do: "acquire", permits: 2, maxWait: ownMaxWait },
  { do: "acquire", permits: 1, maxWait: 0 },
  { do: "tryAcquire" },
  { do: "release", nth },
  { do: "release", nth },
  { do: "release", nth },
  { do: "interruptHolder", nth },
  { do: "interruptWaiter", nth },
  { do: "interruptWaiter", nth },
  { do: "resize", capacity: 1 + nth % 4 },
  { do: "resize", capacity: 3 },
  { do: "drain" },
  { do: "resume" },
  { do: "resume" },
  { do: "wait", millis: 10 },
  { do: "wait", millis: 30 },
  { do: "wait", millis: 60 },
  { do: "wait", millis: policyMaxWait }
]

const command = Arbitrary.map(
  Arbitrary.schema(Schema.Tuple([
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: commands(0).length - 1 })),
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 9 }))
  ])),
  ([which, nth]) => commands(nth)[which]!
)

type Why = Backpressure.BackpressureShed["why"]

/** A call as the model sees it. */
interface Asked {
  readonly id: number
  readonly permits: number
  readonly due: number
}

/** Permits as a few lines that nobody can get wrong: one list for who runs and one for who waits, looked through each time. */
class Model {
  now = 0
  capacity = 3
  draining = false
  readonly running: Array<Asked> = []
  readonly line: Array<Asked> = []
  readonly ended = new Map<number, Why | "Over" | "Abandoned">()
  /** Of each drain whether it came to rest. */
  readonly drains: Array<boolean | undefined> = []
  admitted = 0
  isSoft = false
  isFull = false

  get inUse(): number {
    return this.running.reduce((sum, { permits }) => sum + permits, 0)
  }

  ask(id: number, permits: number, maxWait: number): void {
    if (!this.draining && this.line.length === 0 && this.inUse + permits <= this.capacity) {
      this.start({ id, permits, due: 0 })
    } else if (permits > this.capacity) this.ended.set(id, "TooLarge")
    else if (this.draining) this.ended.set(id, "Draining")
    else if (this.line.length >= queue || maxWait === 0) this.ended.set(id, "Full")
    else this.line.push({ id, permits, due: this.now + maxWait })
    this.look()
  }

  release(nth: number): void {
    const [asked] = this.running.splice(nth, 1)
    if (asked !== undefined) this.ended.set(asked.id, "Over")
    this.moveUp()
  }

  abandon(nth: number): void {
    const [asked] = this.line.splice(nth, 1)
    if (asked !== undefined) this.ended.set(asked.id, "Abandoned")
    this.moveUp()
  }

  resize(capacity: number): void {
    this.capacity = capacity
    this.refuse("TooLarge", ({ permits }) => permits > capacity)
    this.moveUp()
  }

  drain(): void {
    this.draining = true
    this.drains.push(undefined)
    this.refuse("Draining", () => true)
    this.look()
  }

  resume(): void {
    this.draining = false
    this.endDrains(false)
  }

  wait(millis: number): void {
    const until = this.now + millis
    while (true) {
      const [first] = this.line.filter(({ due }) => due <= until).toSorted((a, b) => a.due - b.due || a.id - b.id)
      if (first === undefined) break
      this.now = first.due
      this.refuse("MaxWait", (asked) => asked === first)
      this.moveUp()
    }
    this.now = until
  }

  private refuse(why: Why, isMeant: (asked: Asked) => boolean): void {
    for (const asked of this.line.filter(isMeant)) {
      this.line.splice(this.line.indexOf(asked), 1)
      this.ended.set(asked.id, why)
    }
  }

  private moveUp(): void {
    while (this.line[0] !== undefined && this.inUse + this.line[0].permits <= this.capacity) {
      this.start(this.line.shift()!)
    }
    this.look()
  }

  private start(asked: Asked): void {
    this.admitted++
    this.running.push(asked)
  }

  private endDrains(rested: boolean): void {
    for (const [index, drain] of this.drains.entries()) this.drains[index] = drain ?? rested
  }

  private look(): void {
    const { inUse } = this
    if (this.running.length + this.line.length === 0) this.endDrains(true)
    this.isFull = inUse >= this.capacity || this.line.length > 0 || (this.isFull && inUse > this.capacity * 0.75)
    this.isSoft = inUse >= softLimit || (this.isSoft && inUse > softRelease)
  }

  get snapshot(): Backpressure.Snapshot {
    const ended = [...this.ended.values()]
    const count = (how: string) => ended.filter((end) => end === how).length
    return {
      capacity: this.capacity,
      running: this.inUse,
      queued: this.line.length,
      queue,
      slots: this.running.length + this.line.length,
      level: this.isFull ? "Full" : this.isSoft ? "Soft" : "Normal",
      draining: this.draining,
      admitted: this.admitted,
      shed: {
        Full: count("Full"),
        MaxWait: count("MaxWait"),
        Draining: count("Draining"),
        TooLarge: count("TooLarge")
      },
      abandoned: count("Abandoned"),
      dropped: 0
    }
  }
}

/** A call of the real thing. */
interface Call {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly end: Deferred.Deferred<void>
  started: number
}

const endOf = (call: Call): string | undefined => {
  const exit = call.fiber.pollUnsafe()
  if (exit === undefined) return undefined
  if (Exit.isSuccess(exit)) return "Over"
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  if (error instanceof Backpressure.BackpressureShed) return error.why
  return call.started > 0 ? "Over" : "Abandoned"
}

/** How often the sequences have come to each end: they must not pass by what they are to show. */
const met = new Map<string, number>()

it.effect.prop(
  "does what the model does, whatever is done to it in whatever order",
  [Arbitrary.array(command, { minLength: 40, maxLength: 80 })],
  ([commands]) =>
    Effect.gen(function*() {
      const guard = yield* Backpressure.make({ capacity: 3, queue, softLimit, softRelease, maxWait: policyMaxWait })
      const model = new Model()
      const calls: Array<Call> = []
      const drains: Array<Fiber.Fiber<boolean>> = []

      const begin = (guarded: (body: Effect.Effect<void>) => Effect.Effect<unknown, unknown>) =>
        Effect.gen(function*() {
          const end = yield* Deferred.make<void>()
          let started = 0
          const body = Effect.andThen(
            Effect.sync(() => {
              started++
            }),
            Deferred.await(end)
          )
          const fiber = yield* Effect.forkChild(guarded(body), { startImmediately: true })
          calls.push({
            fiber,
            end,
            get started() {
              return started
            }
          })
        })

      const run = (command: Command): Effect.Effect<unknown, unknown> => {
        switch (command.do) {
          case "acquire": {
            const { maxWait, permits } = command
            model.ask(calls.length, permits, maxWait ?? policyMaxWait)
            return begin(guard.withPermits({ permits, maxWait }))
          }
          case "tryAcquire":
            model.ask(calls.length, 1, 0)
            return begin((body) => Effect.scoped(Effect.andThen(guard.tryAcquire, body)))
          case "release":
          case "interruptHolder": {
            const nth = command.nth % Math.max(1, model.running.length)
            const asked = model.running[nth]
            if (asked === undefined) return Effect.void
            model.release(nth)
            const { end, fiber } = calls[asked.id]!
            return command.do === "release"
              ? Effect.andThen(Deferred.succeed(end, undefined), Fiber.await(fiber))
              : Fiber.interrupt(fiber)
          }
          case "interruptWaiter": {
            const nth = command.nth % Math.max(1, model.line.length)
            const asked = model.line[nth]
            if (asked === undefined) return Effect.void
            model.abandon(nth)
            return Fiber.interrupt(calls[asked.id]!.fiber)
          }
          case "resize":
            model.resize(command.capacity)
            return guard.resize(command.capacity)
          case "drain":
            model.drain()
            return Effect.map(
              Effect.forkChild(guard.drain, { startImmediately: true }),
              (fiber) => drains.push(fiber)
            )
          case "resume":
            model.resume()
            return guard.resume
          case "wait":
            model.wait(command.millis)
            return TestClock.adjust(command.millis)
        }
      }

      for (const [index, command] of commands.entries()) {
        const before = model.snapshot
        yield* run(command)
        yield* yields(3)
        const at = `after command ${index}, ${JSON.stringify(command)}`
        assert.deepStrictEqual(yield* guard.snapshot, model.snapshot, at)
        assert.deepStrictEqual(
          calls.map((call) => endOf(call) ?? (call.started > 0 ? "Running" : "Waiting")),
          calls.map((_, id) =>
            model.ended.get(id) ?? (model.running.some((asked) => asked.id === id) ? "Running" : "Waiting")
          ),
          at
        )
        // Nobody starts beyond the capacity, and nobody starts twice.
        if (model.admitted > before.admitted) assert.isAtMost(model.inUse, model.capacity, at)
        assert.isTrue(calls.every(({ started }) => started <= 1), at)
        assert.deepStrictEqual(
          drains.map((drain) => {
            const exit = drain.pollUnsafe()
            return exit === undefined || Exit.isFailure(exit) ? undefined : exit.value
          }),
          model.drains,
          at
        )
        if (model.draining && model.snapshot.slots > 0) met.set("Draining", (met.get("Draining") ?? 0) + 1)
        met.set(model.snapshot.level, (met.get(model.snapshot.level) ?? 0) + 1)
      }
      for (const end of model.ended.values()) met.set(end, (met.get(end) ?? 0) + 1)

      yield* Fiber.interruptAll(calls.map(({ fiber }) => fiber))
      const { slots, queued, running } = yield* guard.snapshot
      assert.deepStrictEqual([running, queued, slots], [0, 0, 0])
    }),
  { arbitrary: { runs: 400, seed: 20_261_003 }, timeout: 60_000 }
)

afterAll(() => {
  for (const what of ["Over", "Full", "MaxWait", "Draining", "TooLarge", "Abandoned", "Normal", "Soft"]) {
    assert.isAbove(met.get(what) ?? 0, 200, what)
  }
})
