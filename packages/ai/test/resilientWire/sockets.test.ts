import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Option, type Scope, Stream } from "effect"
import { LanguageModel } from "effect/ai"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as AiRejection from "@sluice/ai/AiRejection"
import type { LayerOptions } from "@sluice/ai/ResilientModel"
import * as Turn from "@sluice/ai/testing/Turn"
import * as Http from "node:http"
import type { AddressInfo, Socket } from "node:net"
import process from "node:process"
import { begin, isStreamed, type Wire, wires } from "../support/wires.ts"
import {
  callModel,
  endings,
  type Method,
  methods,
  provider,
  resilient,
  settled,
  target,
  waitUntil,
  type WireName,
  wireNames
} from "../support/wireCalls.ts"

/** A provider that starts streams and never ends them, sends nothing for whole answers, and counts its sockets. */
interface Silent {
  readonly url: string
  readonly requests: () => number
  readonly open: () => number
  /** The time at which the connection of each request closed. */
  readonly closedAt: ReadonlyArray<number>
}

const silentProvider = (wire: Wire, output: string): Effect.Effect<Silent, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<Silent & { readonly server: Http.Server }>((resume) => {
        const sockets = new Set<Socket>()
        const closedAt: Array<number> = []
        let requests = 0
        const server = Http.createServer((request, response) => {
          // A connection that never carried a request is not one of a call: the pool keeps it for the next one.
          const { socket } = request
          if (!sockets.has(socket)) socket.on("close", () => sockets.delete(socket))
          sockets.add(socket)
          let body = ""
          request.setEncoding("utf8").on("data", (chunk: string) => body += chunk).on("end", () => {
            requests++
            response.on("close", () => closedAt.push(performance.now()))
            if (isStreamed(body)) begin(response, wire.head + output)
          })
        })
        server.listen(0, "127.0.0.1", () => {
          const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
          resume(Effect.succeed({ server, url, closedAt, requests: () => requests, open: () => sockets.size }))
        })
      }),
      ({ server }) =>
        Effect.callback<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    ),
    ({ server: _, ...silent }) => silent
  )

const call = (method: Method) =>
  method === "generateText"
    ? Effect.asVoid(LanguageModel.generateText({ prompt: "hi" }))
    : Stream.runDrain(LanguageModel.streamText({ prompt: "hi" }))

const hasText = (part: { readonly type: string }) => part.type === "text-delta"

const takeOne = LanguageModel.streamText({ prompt: "hi" }).pipe(Stream.filter(hasText), Stream.take(1), Stream.runDrain)

const median = (values: ReadonlyArray<number>): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

/** A way in which a call ends before its answer. `leave` returns the time at which the socket should close. */
interface Way {
  readonly what: string
  readonly method: Method
  readonly hasOutput?: boolean
  readonly limits: Pick<LayerOptions, "firstTokenTimeout" | "idleTimeout" | "attemptTimeout" | "deadline">
  readonly leave: (of: Silent) => Effect.Effect<number, unknown, LanguageModel.LanguageModel>
}

const limitMillis = 50
const limit = `${limitMillis} millis` as const

const failsAfterLimit = (method: Method) =>
  Effect.suspend(() => {
    const due = performance.now() + limitMillis
    return Effect.as(Effect.flip(call(method)), due)
  })

const ways: ReadonlyArray<Way> = [
  ...methods.flatMap((method): ReadonlyArray<Way> => [
    {
      what: "an attempt timeout",
      method,
      limits: { attemptTimeout: limit },
      leave: () => failsAfterLimit(method)
    },
    { what: "the deadline", method, limits: { deadline: limit }, leave: () => failsAfterLimit(method) },
    {
      what: "an interruption",
      method,
      limits: {},
      leave: (of) =>
        Effect.gen(function*() {
          const before = of.requests()
          const fiber = yield* Effect.forkChild(call(method))
          yield* waitUntil(() => of.requests() > before, "the request")
          const at = performance.now()
          yield* Fiber.interrupt(fiber)
          return at
        })
    }
  ]),
  {
    what: "a missing first token",
    method: "streamText",
    limits: { firstTokenTimeout: limit },
    leave: () => failsAfterLimit("streamText")
  },
  {
    what: "an idle timeout",
    method: "streamText",
    hasOutput: true,
    limits: { idleTimeout: limit },
    leave: () =>
      Effect.suspend(() => {
        let last = 0
        return Effect.map(
          Effect.flip(Stream.runForEach(LanguageModel.streamText({ prompt: "hi" }), (part) =>
            Effect.sync(() => {
              if (hasText(part)) last = performance.now()
            }))),
          () => last + limitMillis
        )
      })
  },
  {
    what: "a consumer that stops",
    method: "streamText",
    hasOutput: true,
    limits: {},
    leave: () => Effect.map(takeOne, () => performance.now())
  }
]

for (const [at, wire] of wires.entries()) {
  const name = wireNames[at] ?? assert.fail("a wire without a name")
  describe(`sockets of abandoned calls over the ${name} wire`, () => {
    for (const { leave, limits, method, hasOutput, what } of ways) {
      it.live(`the socket closes within 2 s of ${what}, ${method}`, () =>
        Effect.gen(function*() {
          const silent = yield* silentProvider(wire, hasOutput === true ? wire.delta("one") : "")
          const model = resilient([target("A", name, silent, { breaker: false })], {
            retry: RetryPolicy.none,
            ...limits
          })
          // The median leaves out rounds in which the machine was busy. A limit that passes before there is a connection
          // shows nothing, so that round is repeated.
          const late: Array<number> = []
          yield* Effect.gen(function*() {
            for (let n = 1; n <= 20 && late.length < 5; n++) {
              const before = silent.closedAt.length
              const due = yield* leave(silent)
              yield* waitUntil(
                () => silent.closedAt.length === silent.requests() && silent.open() === 0,
                "every socket closed"
              )
              const [closed, second] = silent.closedAt.slice(before)
              if (closed !== undefined && second === undefined) late.push(closed - due)
            }
          }).pipe(Effect.provide(model))
          assert.strictEqual(late.length, 5)
          assert.isBelow(median(late), 2_000)
        }).pipe(Effect.scoped), 60_000)
    }
  })

  describe(`1,000 timeouts and aborts over the ${name} wire`, () => {
    it.live("no socket stays open at either end", () =>
      Effect.gen(function*() {
        const tcp = () => process.getActiveResourcesInfo().filter((resource) => resource === "TCPSocketWrap").length
        const silent = yield* silentProvider(wire, wire.delta("one"))
        const before = tcp()
        const limited = Effect.provide(
          Effect.forEach(
            Array.from({ length: 400 }, (_, n) => methods[n % 2] ?? "streamText"),
            (method) => Effect.flip(call(method)),
            { concurrency: 50, discard: true }
          ),
          resilient([target("A", name, silent, { breaker: false })], {
            retry: RetryPolicy.none,
            idleTimeout: "10 millis",
            attemptTimeout: "15 millis"
          })
        )
        // The calls end at any moment: while connecting, before the headers, within the answer.
        const left = Effect.provide(
          Effect.forEach(
            Array.from({ length: 600 }, (_, n) => n),
            (n) =>
              n % 3 === 0
                ? takeOne
                : Effect.gen(function*() {
                  const fiber = yield* Effect.forkChild(call(n % 3 === 1 ? "generateText" : "streamText"))
                  yield* n % 5 === 0 ? Effect.yieldNow : Effect.sleep(n % 20)
                  yield* Fiber.interrupt(fiber)
                  assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
                }),
            { concurrency: 50, discard: true }
          ),
          resilient([target("A", name, silent, { breaker: false })])
        )
        yield* Effect.all([limited, left], { concurrency: 2 })
        yield* waitUntil(() => silent.open() === 0 && tcp() <= before, "every socket closed")
        assert.strictEqual(silent.closedAt.length, silent.requests())
        assert.isAtLeast(silent.requests(), 200)
      }).pipe(Effect.scoped), 90_000)
  })
}

/** The wires of three targets. */
const mixes: ReadonlyArray<readonly [a: WireName, b: WireName, c: WireName]> = [
  ["openai", "anthropic", "openai"],
  ["anthropic", "openai", "anthropic"]
]

const timed = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<readonly [millis: number, A], E, R> =>
  Effect.suspend(() => {
    const from = performance.now()
    return Effect.map(self, (result) => [performance.now() - from, result] as const)
  })

describe("three targets that hang", () => {
  it.live(
    "a deadline of 5 s ends the call less than 2 s late, and every socket is closed",
    () =>
      Effect.gen(function*() {
        const runs = yield* Effect.forEach(
          mixes.flatMap((mix) => methods.map((method) => ({ mix, method }))),
          ({ method, mix }) =>
            Effect.gen(function*() {
              const hang = [Turn.hang({ headers: true, ping: "1 second" })]
              const [a, b, c] = [yield* provider(hang), yield* provider(hang), yield* provider(hang)]
              const limits = { firstTokenTimeout: "2 seconds", attemptTimeout: "2 seconds" } as const
              const model = resilient(
                [target("A", mix[0], a, limits), target("B", mix[1], b, limits), target("C", mix[2], c, limits)],
                { deadline: "5 seconds" }
              )
              // A plain timer shows how late the machine is.
              const [[elapsed, result], [slept]] = yield* Effect.provide(
                Effect.all([timed(callModel(method)), timed(Effect.sleep("5 seconds"))], { concurrency: 2 }),
                model
              )
              return { elapsed, late: elapsed - Math.max(5_000, slept), result, providers: [a, b, c] }
            }),
          { concurrency: "unbounded" }
        )
        for (const { elapsed, late, providers, result } of runs) {
          const rejection = Option.getOrThrow(AiRejection.fromAiError(result.error))
          assert.strictEqual(rejection._tag, "DeadlineExceeded")
          assert.isAtLeast(elapsed, 4_990)
          assert.isBelow(late, 2_000)
          assert.deepStrictEqual(result.log.steps.map((step) => step.target), ["A", "B", "C"])
          for (const each of providers) assert.deepStrictEqual(endings(yield* settled(each)), ["clientClosed"])
        }
      }).pipe(Effect.scoped),
    60_000
  )
})

// Node's timers can fire early by the clock after a busy moment.
describe("timers that fire early", () => {
  for (const method of methods) {
    it.live(`a timer that fires early does not make an exceeded deadline retryable, ${method}`, () =>
      Effect.gen(function*() {
        const real = yield* Clock.Clock
        const earlyClock: Clock.Clock = {
          currentTimeMillisUnsafe: () => real.currentTimeMillisUnsafe(),
          currentTimeMillis: real.currentTimeMillis,
          currentTimeNanosUnsafe: () => real.currentTimeNanosUnsafe(),
          currentTimeNanos: real.currentTimeNanos,
          monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
          monotonicTimeNanos: real.monotonicTimeNanos,
          sleep: (duration) => real.sleep(Duration.max(Duration.zero, Duration.subtract(duration, Duration.millis(20))))
        }
        const a = yield* provider([Turn.hang({ headers: true })])
        const result = yield* callModel(method).pipe(
          Effect.provide(resilient([target("A", "openai", a)], { deadline: "300 millis" })),
          Effect.provideService(Clock.Clock, earlyClock)
        )
        const rejection = Option.getOrThrow(AiRejection.fromAiError(result.error))
        assert.strictEqual(rejection._tag, "DeadlineExceeded")
        assert.deepStrictEqual(result.attempts, ["DeadlineExceeded"])
      }).pipe(Effect.scoped))
  }
})
