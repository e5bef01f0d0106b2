import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import { afterAll, assert, it } from "@effect/vitest"
import { Arbitrary, Effect } from "effect"
import { TestClock } from "effect/testing"
import { type RunningCall, startCall } from "./support/calls.ts"
import { draw } from "./support/commands.ts"

const failuresToOpen = 2
const openMillis = 100
const leaseMillis = 250

type End = "succeed" | "fail" | "interrupt"

/** What callers and time can do to a breaker. */
type Command =
  | { readonly do: "start" }
  /** Ends one of the calls that run. */
  | { readonly do: End; readonly nth: number }
  /** A call that ends at once. */
  | { readonly do: "call"; readonly end: End }
  | { readonly do: "wait"; readonly millis: number }
  | { readonly do: "reset" }

// A command listed more often is drawn more often. A circuit opens only by consecutive failures, and is half-open only
// after a wait. Times are within, just before and exactly at the open time and the lease.
const commands = (nth: number): ReadonlyArray<Command> => [
  // First, so that a failing sequence shrinks to commands that do nothing, around those that matter.
  { do: "wait", millis: 0 },
  { do: "start" },
  { do: "start" },
  { do: "start" },
  { do: "start" },
  { do: "succeed", nth },
  { do: "fail", nth },
  { do: "fail", nth },
  { do: "interrupt", nth },
  { do: "call", end: "succeed" },
  { do: "call", end: "fail" },
  { do: "call", end: "fail" },
  { do: "call", end: "fail" },
  { do: "wait", millis: 1 },
  { do: "wait", millis: openMillis - 1 },
  { do: "wait", millis: openMillis },
  { do: "wait", millis: openMillis },
  { do: "wait", millis: leaseMillis },
  { do: "wait", millis: leaseMillis - openMillis },
  { do: "reset" }
]

/** How a running call was admitted: in a round of the closed circuit, or as the probe of an open one. */
interface Admission {
  readonly round: number
  readonly leaseUntil: number | undefined
}

/** The breaker in a few obvious lines: one caller at a time, without store or Effect. */
class Model {
  now = 0
  /** Grows with every transition, so that earlier admissions are recognised. */
  private round = 0
  private failures = 0
  private openUntil: number | undefined
  private probe: Admission | undefined

  get state(): "Closed" | "Open" | "HalfOpen" {
    if (this.openUntil === undefined) return "Closed"
    return this.now < this.openUntil ? "Open" : "HalfOpen"
  }

  get probing(): number {
    return this.probe !== undefined && this.isLive(this.probe) ? 1 : 0
  }

  get streak(): number {
    return this.openUntil === undefined ? this.failures : this.openedBy
  }
  private openedBy = 0

  start(): Admission | undefined {
    if (this.state === "Closed") return { round: this.round, leaseUntil: undefined }
    if (this.state === "Open" || this.probing === 1) return undefined
    this.probe = { round: this.round, leaseUntil: this.now + leaseMillis }
    return this.probe
  }

  end(call: Admission, how: End): void {
    const live = this.isLive(call)
    if (this.probe === call) this.probe = undefined
    if (how === "interrupt" || call.round !== this.round || !live) return
    if (call.leaseUntil !== undefined) return how === "succeed" ? this.close() : this.open(1)
    this.failures = how === "succeed" ? 0 : this.failures + 1
    if (this.failures >= failuresToOpen) this.open(this.failures)
  }

  reset(): void {
    this.close()
  }

  private isLive(call: Admission): boolean {
    return call.leaseUntil === undefined || this.now < call.leaseUntil
  }

  private open(failures: number): void {
    this.round++
    this.openedBy = failures
    this.openUntil = this.now + openMillis
  }

  private close(): void {
    this.round++
    this.failures = 0
    this.openUntil = undefined
  }
}

/** How often the sequences reached each state. `afterAll` asserts that none is missed. */
const visited = new Map<string, number>()

it.effect.prop(
  "the breaker behaves like the model under any sequence of commands",
  [Arbitrary.array(draw(commands), { minLength: 40, maxLength: 80 })],
  ([commands]) =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.CircuitBreaker
      const model = new Model()
      const running: Array<readonly [RunningCall, Admission]> = []

      const run = (command: Command): Effect.Effect<void, unknown> => {
        switch (command.do) {
          case "start":
            return Effect.map(startCall(breaker), (call) => {
              const admission = model.start()
              assert.strictEqual(call.ran(), admission !== undefined, "admitted")
              if (admission !== undefined) running.push([call, admission])
            })
          case "call":
            return Effect.flatMap(startCall(breaker), (call) => {
              const admission = model.start()
              assert.strictEqual(call.ran(), admission !== undefined, "admitted")
              if (admission === undefined) return Effect.void
              model.end(admission, command.end)
              return call[command.end]
            })
          case "wait":
            model.now += command.millis
            return TestClock.adjust(command.millis)
          case "reset":
            model.reset()
            return breaker.reset()
          default: {
            const [picked] = running.splice(command.nth % Math.max(1, running.length), 1)
            if (picked === undefined) return Effect.void
            const [call, admission] = picked
            model.end(admission, command.do)
            return call[command.do]
          }
        }
      }

      for (const [index, command] of commands.entries()) {
        yield* run(command)
        const state = yield* breaker.state()
        visited.set(state._tag, (visited.get(state._tag) ?? 0) + 1)
        assert.deepStrictEqual(
          {
            state: state._tag,
            failures: state.failures,
            probing: state._tag === "HalfOpen" ? state.probing : undefined
          },
          {
            state: model.state,
            failures: model.streak,
            probing: model.state === "HalfOpen" ? model.probing : undefined
          },
          `after command ${index}, ${JSON.stringify(command)}`
        )
      }
      for (const [call] of running) yield* call.interrupt
    }).pipe(Effect.provide(CircuitBreaker.layer({
      trip: CircuitBreaker.consecutive(failuresToOpen),
      openFor: openMillis,
      probeLease: leaseMillis
    }))),
  { arbitrary: { runs: 400, seed: 20_260_901 }, timeout: 120_000 }
)

afterAll(() => {
  for (const state of ["Closed", "Open", "HalfOpen"]) assert.isAbove(visited.get(state) ?? 0, 1_000, state)
})
