import * as Backpressure from "@sluice/core/Backpressure"
import { afterAll, assert, it } from "@effect/vitest"
import { Arbitrary, Deferred, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { draw } from "./support/commands.ts"
import { failureOf } from "./support/effects.ts"
import { yields } from "./support/probe.ts"

const queue = 4
const softLimit = 2
const softRelease = 1
// The policy's maxWait ends at multiples of 10, a call's own at 5 past. They never end together, so the order of the
// timers does not matter.
const policyMaxWait = 100
const ownMaxWait = 35

/** What callers, operators and time can do. */
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

// A command listed more often is drawn more often. More calls come than leave, so that a queue forms.
const commands = (nth: number): ReadonlyArray<Command> => [
  // First, so that a failing sequence shrinks to commands that do nothing, around those that matter.
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

type Why = Backpressure.BackpressureShed["why"]

/** A call in the model. */
interface Requested {
  readonly id: number
  readonly permits: number
  readonly due: number
}

/** Permits in a few obvious lines: a list of running calls and a list of queued ones, searched each time. */
class Model {
  now = 0
  capacity = 3
  draining = false
  readonly running: Array<Requested> = []
  readonly queued: Array<Requested> = []
  readonly ended = new Map<number, Why | "Ended" | "Abandoned">()
  /** The result of each drain. `undefined` while it waits. */
  readonly drains: Array<boolean | undefined> = []
  admitted = 0
  isSoft = false
  isFull = false

  get inUse(): number {
    return this.running.reduce((sum, { permits }) => sum + permits, 0)
  }

  request(id: number, permits: number, maxWait: number): void {
    if (!this.draining && this.queued.length === 0 && this.inUse + permits <= this.capacity) {
      this.start({ id, permits, due: 0 })
    } else if (permits > this.capacity) this.ended.set(id, "TooLarge")
    else if (this.draining) this.ended.set(id, "Draining")
    else if (this.queued.length >= queue || maxWait === 0) this.ended.set(id, "Full")
    else this.queued.push({ id, permits, due: this.now + maxWait })
    this.update()
  }

  release(nth: number): void {
    const [call] = this.running.splice(nth, 1)
    if (call !== undefined) this.ended.set(call.id, "Ended")
    this.admitQueued()
  }

  abandon(nth: number): void {
    const [call] = this.queued.splice(nth, 1)
    if (call !== undefined) this.ended.set(call.id, "Abandoned")
    this.admitQueued()
  }

  resize(capacity: number): void {
    this.capacity = capacity
    this.refuse("TooLarge", ({ permits }) => permits > capacity)
    this.admitQueued()
  }

  drain(): void {
    this.draining = true
    this.drains.push(undefined)
    this.refuse("Draining", () => true)
    this.update()
  }

  resume(): void {
    this.draining = false
    this.endDrains(false)
  }

  wait(millis: number): void {
    const until = this.now + millis
    while (true) {
      const [first] = this.queued.filter(({ due }) => due <= until).toSorted((a, b) => a.due - b.due || a.id - b.id)
      if (first === undefined) break
      this.now = first.due
      this.refuse("MaxWait", (call) => call === first)
      this.admitQueued()
    }
    this.now = until
  }

  private refuse(why: Why, isRefused: (call: Requested) => boolean): void {
    for (const call of this.queued.filter(isRefused)) {
      this.queued.splice(this.queued.indexOf(call), 1)
      this.ended.set(call.id, why)
    }
  }

  private admitQueued(): void {
    while (this.queued[0] !== undefined && this.inUse + this.queued[0].permits <= this.capacity) {
      this.start(this.queued.shift()!)
    }
    this.update()
  }

  private start(call: Requested): void {
    this.admitted++
    this.running.push(call)
  }

  private endDrains(rested: boolean): void {
    for (const [index, drain] of this.drains.entries()) this.drains[index] = drain ?? rested
  }

  private update(): void {
    const { inUse } = this
    if (this.running.length + this.queued.length === 0) this.endDrains(true)
    this.isFull = inUse >= this.capacity || this.queued.length > 0 || (this.isFull && inUse > this.capacity * 0.75)
    this.isSoft = inUse >= softLimit || (this.isSoft && inUse > softRelease)
  }

  get snapshot(): Backpressure.Snapshot {
    const ended = [...this.ended.values()]
    const count = (how: string) => ended.filter((end) => end === how).length
    return {
      capacity: this.capacity,
      running: this.inUse,
      queued: this.queued.length,
      queue,
      slots: this.running.length + this.queued.length,
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

/** A call of the real service. */
interface Call {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly end: Deferred.Deferred<void>
  started: number
}

const endOf = (call: Call): string | undefined => {
  const exit = call.fiber.pollUnsafe()
  if (exit === undefined) return undefined
  if (Exit.isSuccess(exit)) return "Ended"
  const error = failureOf(exit)
  if (error instanceof Backpressure.BackpressureShed) return error.why
  return call.started > 0 ? "Ended" : "Abandoned"
}

/** How often the sequences reached each end and each level. `afterAll` asserts that none is missed. */
const visited = new Map<string, number>()

it.effect.prop(
  "backpressure behaves like the model under any sequence of commands",
  [Arbitrary.array(draw(commands), { minLength: 40, maxLength: 80 })],
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
            model.request(calls.length, permits, maxWait ?? policyMaxWait)
            return begin(guard.withPermits({ permits, maxWait }))
          }
          case "tryAcquire":
            model.request(calls.length, 1, 0)
            return begin((body) => Effect.scoped(Effect.andThen(guard.tryAcquire, body)))
          case "release":
          case "interruptHolder": {
            const nth = command.nth % Math.max(1, model.running.length)
            const call = model.running[nth]
            if (call === undefined) return Effect.void
            model.release(nth)
            const { end, fiber } = calls[call.id]!
            return command.do === "release"
              ? Effect.andThen(Deferred.succeed(end, undefined), Fiber.await(fiber))
              : Fiber.interrupt(fiber)
          }
          case "interruptWaiter": {
            const nth = command.nth % Math.max(1, model.queued.length)
            const call = model.queued[nth]
            if (call === undefined) return Effect.void
            model.abandon(nth)
            return Fiber.interrupt(calls[call.id]!.fiber)
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
          calls.map((call) => endOf(call) ?? (call.started > 0 ? "Running" : "Queued")),
          calls.map((_, id) =>
            model.ended.get(id) ?? (model.running.some((call) => call.id === id) ? "Running" : "Queued")
          ),
          at
        )
        // No call starts beyond the capacity or twice.
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
        if (model.draining && model.snapshot.slots > 0) visited.set("Draining", (visited.get("Draining") ?? 0) + 1)
        visited.set(model.snapshot.level, (visited.get(model.snapshot.level) ?? 0) + 1)
      }
      for (const end of model.ended.values()) visited.set(end, (visited.get(end) ?? 0) + 1)

      yield* Fiber.interruptAll(calls.map(({ fiber }) => fiber))
      const { slots, queued, running } = yield* guard.snapshot
      assert.deepStrictEqual([running, queued, slots], [0, 0, 0])
    }),
  { arbitrary: { runs: 400, seed: 20_261_003 }, timeout: 120_000 }
)

afterAll(() => {
  for (const what of ["Ended", "Full", "MaxWait", "Draining", "TooLarge", "Abandoned", "Normal", "Soft"]) {
    assert.isAbove(visited.get(what) ?? 0, 200, what)
  }
})
