import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import { assert, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { TestClock } from "effect/testing"
import { type RunningCall, startCall } from "./support/calls.ts"

const failuresToOpen = 3
const openMillis = 100
const leaseMillis = 250

/** What a caller and the passing time can do to a breaker. `nth` picks one of the calls that run. */
const Command = Schema.Union([
  Schema.Struct({ do: Schema.Literal("start") }),
  Schema.Struct({
    do: Schema.Literals(["succeed", "fail", "interrupt"]),
    nth: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 9 }))
  }),
  // 0, a part of the open time, exactly the open time, and beyond the lease.
  Schema.Struct({ do: Schema.Literal("wait"), millis: Schema.Literals([0, 1, 40, 99, 100, 250]) }),
  Schema.Struct({ do: Schema.Literal("reset") })
])
type Command = typeof Command.Type

/** Which right a running call has: that of a round of the closed circuit, or the one probe of an open one. */
interface Admission {
  readonly round: number
  readonly leaseUntil: number | undefined
}

/** The breaker as a few lines that nobody can get wrong: one caller at a time, no store, no Effect. */
class Model {
  now = 0
  /** Grows with every move, so that what was admitted before is told apart. */
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

  end(call: Admission, how: "succeed" | "fail" | "interrupt"): void {
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

it.effect.prop(
  "does what the model does, whatever is done to it in whatever order",
  [Arbitrary.array(Arbitrary.schema(Command), { minLength: 1, maxLength: 60 })],
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
    }).pipe(Effect.provide(CircuitBreaker.layerMemory({
      trip: CircuitBreaker.consecutive(failuresToOpen),
      openFor: openMillis,
      probeLease: leaseMillis
    }))),
  { arbitrary: { runs: 400, seed: 20_260_901 } }
)
