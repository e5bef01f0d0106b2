import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Outcome from "@sluice/core/Outcome"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Arbitrary, Duration, Effect, Layer, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { type RunningCall, startCall } from "./support/calls.ts"
import { draw } from "./support/commands.ts"
import { remoteStore } from "./support/stores.ts"

const options = {
  trip: [
    CircuitBreaker.consecutive(4),
    CircuitBreaker.failureRate({ rate: 0.6, calls: 8, minimum: 5 }),
    CircuitBreaker.failureRate({ rate: 0.4, within: "1 second", minimum: 9 }),
    CircuitBreaker.slowCallRate({ rate: 0.5, calls: 6, minimum: 4 })
  ],
  slowAfter: 50,
  openFor: Schedule.exponential(200),
  maxOpenFor: 1_500,
  probes: 3,
  probesToClose: 2,
  probeLease: 400
} as const

const hintMillis = 700

type End = "succeed" | "fail" | "interrupt"

type Command =
  | { readonly do: "start"; readonly hinted: boolean }
  | { readonly do: End; readonly nth: number }
  | { readonly do: "call"; readonly end: End }
  | { readonly do: "wait"; readonly millis: number }
  | { readonly do: "force"; readonly mode: "ForcedOpen" | "ForcedClosed" | "Auto" }

const commands = (nth: number): ReadonlyArray<Command> => [
  { do: "wait", millis: 0 },
  { do: "start", hinted: false },
  { do: "start", hinted: false },
  { do: "start", hinted: true },
  { do: "succeed", nth },
  { do: "succeed", nth },
  { do: "fail", nth },
  { do: "interrupt", nth },
  { do: "call", end: "succeed" },
  { do: "call", end: "succeed" },
  { do: "call", end: "succeed" },
  { do: "call", end: "fail" },
  { do: "call", end: "fail" },
  { do: "wait", millis: 7 },
  { do: "wait", millis: 51 },
  { do: "wait", millis: 100 },
  { do: "wait", millis: 200 },
  { do: "wait", millis: 399 },
  { do: "wait", millis: 1_000 },
  { do: "force", mode: nth < 3 ? "ForcedOpen" : nth < 5 ? "ForcedClosed" : "Auto" }
]

interface Call {
  readonly round: number
  readonly startedAt: number
  readonly hinted: boolean
  readonly leaseUntil: number | undefined
}

interface Sample {
  readonly at: number
  readonly failed: boolean
  readonly slow: boolean
}

/** Keeps every outcome and counts all of them each time, without ring, buckets or sums. */
class Model {
  now = 0
  private round = 0
  private samples: Array<Sample> = []
  private probes: Array<Call> = []
  private control:
    | { readonly is: "Closed"; readonly since: number; readonly openings: number; readonly lastOpen: number }
    | { readonly is: "Open"; readonly since: number; readonly until: number; readonly openings: number }
    | { readonly is: "ForcedOpen" | "ForcedClosed" } = { is: "Closed", since: 0, openings: 0, lastOpen: 0 }

  get state(): string {
    if (this.control.is !== "Open") return this.control.is
    return this.now < this.control.until ? "Open" : "HalfOpen"
  }

  get retryAfter(): number | undefined {
    return this.control.is === "Open" && this.now < this.control.until ? this.control.until - this.now : undefined
  }

  get openings(): number | undefined {
    return this.control.is === "Open" ? this.control.openings : undefined
  }

  start(hinted: boolean): Call | undefined {
    const call = { round: this.round, startedAt: this.now, hinted, leaseUntil: undefined }
    if (this.state === "Closed" || this.state === "ForcedClosed") return call
    if (this.state !== "HalfOpen") return undefined
    this.probes = this.probes.filter((probe) => this.isLive(probe))
    if (this.probes.length + this.samples.length >= options.probes) return undefined
    const probe = { ...call, leaseUntil: this.now + options.probeLease }
    this.probes.push(probe)
    return probe
  }

  end(call: Call, how: End): void {
    const isLive = this.isLive(call)
    this.probes = this.probes.filter((probe) => probe !== call)
    if (how === "interrupt") return
    const hint = how === "fail" && call.hinted ? hintMillis : 0
    if (call.round === this.round && isLive && this.control.is !== "ForcedOpen") {
      this.samples.push({ at: this.now, failed: how === "fail", slow: this.now - call.startedAt > options.slowAfter })
      this.decide(hint)
    } else if (this.control.is === "Open" && this.now < this.control.until) {
      // A hint within 50 ms of the end changes nothing.
      if (this.now + hint > this.control.until + 50) this.open(this.control.openings, hint)
    }
  }

  force(mode: "ForcedOpen" | "ForcedClosed" | "Auto"): void {
    if (mode !== "Auto") this.move({ is: mode })
    else if (this.control.is === "ForcedOpen" || this.control.is === "ForcedClosed") {
      this.move({ is: "Closed", since: this.now, openings: 0, lastOpen: 0 })
    }
  }

  private decide(hint: number): void {
    const { control, samples } = this
    if (control.is === "Closed" && this.trips()) {
      const before = this.now - control.since >= control.lastOpen ? 0 : control.openings
      this.open(before + 1, Math.max(200 * 2 ** before, hint))
    }
    if (control.is !== "Open") return
    const failed = samples.filter((sample) => sample.failed || sample.slow).length
    if (failed > 1) this.open(control.openings + 1, Math.max(200 * 2 ** control.openings, hint))
    else if (samples.length - failed >= 2) {
      this.move({ is: "Closed", since: this.now, openings: control.openings, lastOpen: this.now - control.since })
    } else if (hint > 0) this.open(control.openings, hint)
  }

  private trips(): boolean {
    const { samples } = this
    const lastFour = samples.slice(-4)
    const share = (of: ReadonlyArray<Sample>, is: (sample: Sample) => boolean, minimum: number, rate: number) =>
      of.length >= minimum && of.some(is) && of.filter(is).length / of.length >= rate
    const from = Math.floor(this.now / 100) * 100 - 900
    return (lastFour.length === 4 && lastFour.every((sample) => sample.failed)) ||
      share(samples.slice(-8), (sample) => sample.failed, 5, 0.6) ||
      share(samples.filter((sample) => sample.at >= from), (sample) => sample.failed, 9, 0.4) ||
      share(samples.slice(-6), (sample) => sample.slow, 4, 0.5)
  }

  private open(openings: number, millis: number): void {
    const until = this.now + Math.min(millis, options.maxOpenFor)
    this.move({ is: "Open", since: this.now, until, openings })
  }

  private move(control: Model["control"]): void {
    this.control = control
    this.round++
    this.samples = []
  }

  private isLive(call: Call): boolean {
    return call.leaseUntil === undefined || this.now < call.leaseUntil
  }
}

const stores = {
  "in this process": CircuitBreakerStore.layerMemory,
  "in a remote store": remoteStore(0)
}

describe("CircuitBreaker with windows, slow calls, several probes, hints and control", () => {
  const visited = new Map<string, number>()

  for (const [where, store] of Object.entries(stores)) {
    it.effect.prop(
      `the breaker behaves like the model under any sequence of commands, ${where}`,
      [Arbitrary.array(draw(commands), { minLength: 60, maxLength: 120 })],
      ([sequence]) =>
        Effect.gen(function*() {
          const breaker = yield* CircuitBreaker.CircuitBreaker
          const model = new Model()
          const running: Array<readonly [RunningCall, Call]> = []
          const start = (hinted: boolean) =>
            Effect.gen(function*() {
              const call = yield* startCall(breaker, {
                classify: (exit) =>
                  hinted && exit._tag === "Failure" && exit.cause.reasons.every((reason) => reason._tag === "Fail")
                    ? Outcome.failure({ retryAfter: Duration.millis(hintMillis) })
                    : undefined
              })
              const admitted = model.start(hinted)
              assert.strictEqual(call.ran(), admitted !== undefined, "admitted")
              return admitted === undefined ? undefined : [call, admitted] as const
            })
          const end = ([call, admitted]: readonly [RunningCall, Call], how: End) => {
            model.end(admitted, how)
            return call[how]
          }
          const run = Effect.fnUntraced(function*(command: Command) {
            switch (command.do) {
              case "start": {
                const started = yield* start(command.hinted)
                if (started !== undefined) running.push(started)
                return
              }
              case "call": {
                const started = yield* start(false)
                if (started !== undefined) yield* end(started, command.end)
                return
              }
              case "wait":
                model.now += command.millis
                return yield* TestClock.adjust(command.millis)
              case "force":
                model.force(command.mode)
                return yield* breaker.control({ mode: command.mode, reason: "a test" })
              default: {
                const [picked] = running.splice(command.nth % Math.max(1, running.length), 1)
                if (picked !== undefined) yield* end(picked, command.do)
              }
            }
          })
          for (const [index, command] of sequence.entries()) {
            yield* run(command)
            const state = yield* breaker.state()
            visited.set(state._tag, (visited.get(state._tag) ?? 0) + 1)
            assert.deepStrictEqual(
              {
                state: state._tag,
                retryAfter: state._tag === "Open" ? Duration.toMillis(state.retryAfter) : undefined,
                openings: "openings" in state ? state.openings : undefined
              },
              { state: model.state, retryAfter: model.retryAfter, openings: model.openings },
              `after command ${index}, ${JSON.stringify(command)}`
            )
          }
          for (const [call] of running) yield* call.interrupt
        }).pipe(Effect.provide(Layer.provide(CircuitBreaker.layerStore(options), Layer.fresh(store)))),
      { arbitrary: { runs: 250, seed: 20_261_121 }, timeout: 120_000 }
    )
  }

  afterAll(() => {
    for (const state of ["Closed", "Open", "HalfOpen", "ForcedOpen", "ForcedClosed"]) {
      assert.isAbove(visited.get(state) ?? 0, 1_000, state)
    }
  })
})
