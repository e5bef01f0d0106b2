import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Logger, type Scope } from "effect"
import { Guard } from "../../src/internal/front/guard.ts"
import { HeldAttempt } from "../../src/internal/resilient/heldAttempt.ts"
import { Upstream } from "../../src/internal/front/upstream.ts"
import { type Answer, json, rawServer } from "../support/rawServer.ts"
import { edges, frontOf, until, within } from "./edges.ts"
import { type FrontWire, wires } from "./wires.ts"

// A fault of the front in a callback, which no effect can report: it may end its call only.

/** Makes a method throw where `breaks` says so, until the scope closes. */
const poison = <A extends object, K extends keyof A>(
  prototype: A,
  method: K,
  breaks: (argument: unknown, self: A) => boolean = () => true
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.sync(() => {
      const real = Object.getOwnPropertyDescriptor(prototype, method)!
      const run = real.value as (this: A, ...args: Array<unknown>) => unknown
      Object.defineProperty(prototype, method, {
        ...real,
        value(this: A, ...args: Array<unknown>) {
          if (breaks(args[0], this)) throw new Error("a fault of the front")
          return run.apply(this, args)
        }
      })
      return real
    }),
    (real) => Effect.sync(() => Object.defineProperty(prototype, method, real))
  ))

const has = (bytes: unknown): boolean => Buffer.from(bytes as Uint8Array).includes("BOOM")

interface Case {
  readonly name: string
  readonly poison: Effect.Effect<void, never, Scope.Scope>
  readonly answer: (wire: FrontWire) => Answer
  readonly body: (wire: FrontWire) => string
  /** How long the provider may be silent. */
  readonly idleTimeout?: Duration.Input
  /** What the client has before the fault. `undefined`: nothing, so that it gets the status 500. */
  readonly before?: (wire: FrontWire) => string
}

const streaming = (...pieces: ReadonlyArray<string>): Answer => (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" })
  for (const [n, piece] of pieces.entries()) setTimeout(() => response.write(piece), n * 30)
}

const cases: ReadonlyArray<Case> = [
  {
    name: "a rule before the first output",
    poison: poison(Guard.prototype, "feed", has),
    answer: ({ head, word }) => streaming(head, word("BOOM")),
    body: ({ stream }) => stream
  },
  {
    name: "a rule after the first output",
    poison: poison(Guard.prototype, "feed", has),
    answer: ({ head, word }) => streaming(head + word("fine"), word("BOOM")),
    body: ({ stream }) => stream,
    before: ({ head, word }) => head + word("fine")
  },
  {
    name: "a rule for the end of a connection",
    poison: poison(Guard.prototype, "end"),
    answer: ({ head, word }) => (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" })
      response.write(head + word("fine"))
      setTimeout(() => response.destroy(), 30)
    },
    body: ({ stream }) => stream,
    before: ({ head, word }) => head + word("fine")
  },
  {
    name: "a timer",
    poison: poison(HeldAttempt.prototype, "silent"),
    idleTimeout: "100 millis",
    answer: ({ head, word }) => streaming(head + word("fine")),
    body: ({ stream }) => stream,
    before: ({ head, word }) => head + word("fine")
  },
  {
    name: "the end of an attempt",
    poison: poison(HeldAttempt.prototype, "complete"),
    answer: ({ head, finish, word }) => streaming(head + word("fine"), finish),
    body: ({ stream }) => stream,
    before: ({ finish, head, word }) => head + word("fine") + finish
  },
  {
    name: "a rule for a whole answer",
    poison: poison(Guard.prototype, "whole"),
    answer: ({ answer }) => (response) => json(response, 200, answer),
    body: ({ whole }) => whole
  },
  {
    name: "an error of the provider",
    poison: poison(Upstream.prototype, "masked"),
    answer: () => (response) => json(response, 400, { error: { message: "BOOM" } }),
    body: ({ whole }) => whole
  }
]

describe("a callback that throws", () => {
  for (const edge of edges) {
    for (const { answer, before, body, idleTimeout = "30 seconds", name, poison } of cases) {
      it.live(`${name}, through ${edge.name}, ends its own call with an error, and is logged once`, () =>
        Effect.forEach(wires, (wire) => {
          const logged: Array<unknown> = []
          const logger = Logger.make(({ message }) => {
            logged.push(message)
          })
          return Effect.gen(function*() {
            let isFine = false
            const provider = yield* rawServer((response, received, n) =>
              isFine ? json(response, 200, wire.answer) : answer(wire)(response, received, n)
            )
            const front = yield* frontOf([
              { name: "a", url: provider.url, speaks: wire.speaks, backpressure: { capacity: 1 } }
            ], { idleTimeout, firstTokenTimeout: "30 seconds" })
            const got = yield* Effect.scoped(
              Effect.andThen(poison, edge.ask(front, { path: wire.path, body: body(wire) }))
            )
            const cell = `${wire.wire}: ${got.status} ${got.text}`
            const passed = before?.(wire)
            assert.strictEqual(got.end, "Clean", cell)
            assert.strictEqual(got.status, passed === undefined ? 500 : 200, cell)
            assert.isTrue(got.text.startsWith(passed ?? "{"), cell)
            assert.include(got.text.slice(passed?.length ?? 0), "The server cannot make this call.", cell)
            assert.isFalse(got.text.includes("BOOM"), cell)
            assert.deepStrictEqual(logged, [["a call of the front died"]], cell)
            const log = () => front.call(got.headers["x-sluice-call"] ?? "")
            yield* until(() => log() !== undefined)
            assert.strictEqual(log()?.steps.filter(({ _tag }) => _tag === "Attempt").length, 1, cell)
            // The permit is free, and the circuit is closed.
            isFine = true
            const next = yield* edge.ask(front, { path: wire.path, body: wire.whole })
            assert.deepStrictEqual([next.status, next.text], [200, wire.answer], cell)
            const [state] = yield* front.targets
            assert.deepStrictEqual([state?.permits?.running, state?.running], [0, 0], cell)
          }).pipe(Effect.scoped, within, Effect.provide(Logger.layer([logger])))
        }))
    }
  }
})

describe("a request that is passed on", () => {
  for (const edge of edges) {
    it.live(`gets an error through ${edge.name} if a callback throws, or if its status exists nowhere`, () =>
      Effect.gen(function*() {
        const provider = yield* rawServer((response, { path }) =>
          json(response, path.endsWith("/odd") ? 999 : path.endsWith("/fine") ? 200 : 404, { error: {} })
        )
        const front = yield* frontOf([{ name: "a", url: provider.url, speaks: "openai" }])
        const ask = (path: string) => edge.ask(front, { path, method: "GET" })
        const thrown = yield* Effect.scoped(Effect.andThen(poison(Upstream.prototype, "masked"), ask("/v1/files/x")))
        assert.deepStrictEqual([thrown.status, thrown.end], [500, "Clean"])
        assert.include(thrown.text, "The server cannot make this call.")
        assert.strictEqual((yield* ask("/v1/files/fine")).status, 200)
        assert.include([500, 999], (yield* ask("/v1/files/odd")).status)
      }).pipe(Effect.scoped, within, Effect.provide(Logger.layer([]))))
  }
})
