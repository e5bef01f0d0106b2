// A process of a fleet: it calls a provider through shared circuits, quotas and flights until it is killed. Its arguments are the URL of
// the store, the port of the provider, and how many processes there are. It prints the leases that it gets, and how its calls ended.
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import { type Answer, CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import * as Deduplicator from "@sluice/core/Deduplicator"
import type { FlightStore } from "@sluice/core/FlightStore"
import * as Quota from "@sluice/core/Quota"
import type { QuotaStore } from "@sluice/core/QuotaStore"
import * as RedisStores from "@sluice/redis/RedisStores"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Clock, Effect, Layer, Logger, Random, Schema } from "effect"
import { writeSync } from "node:fs"
import { connect } from "node:net"

export const keys = ["one", "two", "three"] as const
export const probes = 2
export const rate = { limit: 40, windowMillis: 2_000 }
export const account = "account"
/** What all processes ask at once. */
export const questions = ["red", "green", "blue"] as const
/** How long a process that was killed leads its flights. */
export const leaseMillis = 2_000

/** A lease of a probe was granted, is about to be freed, or was seen among others. Times are those of the store. */
export type Leases =
  | {
    readonly is: "granted"
    readonly key: string
    readonly id: string
    readonly at: number
    readonly expiresAt: number
  }
  | { readonly is: "freed"; readonly key: string; readonly id: string; readonly at: number }
  | { readonly is: "seen"; readonly key: string; readonly probing: number }

/** How many calls ended so since the last line. `broken` must be empty. */
export interface Ends {
  readonly is: "ends"
  readonly ok: number
  readonly failed: number
  readonly refused: number
  /** Calls with a budget that were refused while the store was down. */
  readonly storeDown: number
  readonly broken: ReadonlyArray<string>
  readonly answers: ReadonlyArray<Answered>
}

/** An answer to a question: what the provider wrote, and when the question was asked. */
export interface Answered {
  readonly question: string
  readonly answer: string
  readonly askedAt: number
}

export type Line = Leases | Ends

export const storesOf = (url: string): Layer.Layer<CircuitBreakerStore | FlightStore | QuotaStore, unknown> =>
  url.startsWith("unix:")
    ? RedisStores.layerInBackground(NodeRedis.layer({ url, disableOfflineQueue: true }))
    : Layer.provide(SqlStores.layer(), SqlDatabase.layer({ url }))

const print = (line: Line) => void writeSync(1, `${JSON.stringify(line)}\n`)

/** The store, with its leases printed. A lease is printed as freed before it is, since the process may be killed in between. */
const printing = (store: CircuitBreakerStore["Service"]): CircuitBreakerStore["Service"] => {
  let latest = 0
  const see = ({ snapshot: { key, now, probing } }: Pick<Answer, "snapshot">) => {
    latest = Math.max(latest, now)
    if (probing > 0) print({ is: "seen", key, probing })
  }
  return {
    ...store,
    read: (request) => Effect.tap(store.read(request), (snapshot) => Effect.sync(() => see({ snapshot }))),
    lease: (request) =>
      Effect.tap(store.lease(request), (answer) =>
        Effect.sync(() => {
          see(answer)
          const { ok, snapshot: { key, now: at } } = answer
          if (ok) print({ is: "granted", key, id: request.id, at, expiresAt: at + request.ttlMillis })
        })),
    record: (request) =>
      Effect.suspend(() => {
        const { key, lease: id } = request
        if (id !== undefined) print({ is: "freed", key, id, at: latest })
        return Effect.tap(store.record(request), (answer) => Effect.sync(() => see(answer)))
      })
  }
}

/** A call of the provider, which returns what it answers. */
const callTo = (port: number, what: string) =>
  Effect.callback<string>((resume) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true }, () => void socket.write(`${what}\n`))
    let answer = ""
    socket.setEncoding("utf8").on("data", (data: string) => {
      answer += data
    })
    socket.on("error", () => {})
    socket.on("close", () => resume(Effect.succeed(answer)))
    return Effect.sync(() => socket.destroy())
  })

/** A call that the provider answers with `1`, or fails. */
const attemptAt = (port: number, what: string) =>
  Effect.flatMap(
    callTo(port, what),
    (answer): Effect.Effect<void, "failed"> => answer === "1" ? Effect.void : Effect.fail("failed")
  )

const Question = Deduplicator.operation<string>()("question", { key: (text: string) => text, success: Schema.String })

const fleet = Effect.fnUntraced(function*(port: number, processes: number, budget: number) {
  const store = printing(yield* CircuitBreakerStore)
  const breaker = yield* CircuitBreaker.make({
    trip: CircuitBreaker.consecutive(4),
    openFor: "200 millis",
    probes,
    heartbeat: "500 millis",
    probeLease: "2 seconds",
    staleness: "50 millis",
    storeTimeout: "200 millis"
  }).pipe(Effect.provideService(CircuitBreakerStore, store))
  const rates = yield* Quota.make({
    name: "rates",
    limits: [Quota.per(rate.windowMillis, "requests", rate.limit)],
    processes,
    maxWait: "1 second"
  })
  const money = yield* Quota.make({ name: "money", limits: [Quota.total("money", budget)], maxWait: "1 second" })

  const { dedupe } = yield* Deduplicator.make({ shared: true, lease: leaseMillis })

  let ends = { ok: 0, failed: 0, refused: 0, storeDown: 0 }
  let broken: Array<string> = []
  let answers: Array<Answered> = []
  const count = (end: keyof typeof ends) => Effect.sync(() => void ends[end]++)
  const one = (nth: number) => {
    const key = keys[nth % keys.length]
    return attemptAt(port, String(key)).pipe(
      breaker.guard({ key }),
      rates.withQuota({ key: account, amounts: { requests: 1 }, usage: () => ({}) }),
      Effect.matchEffect({
        onSuccess: () => Effect.andThen(count("ok"), Effect.sleep(10)),
        onFailure: (error) => {
          if (error === "failed") return Effect.andThen(count("failed"), Effect.sleep(10))
          const isRefusal = error._tag === "CircuitOpen" ||
            (error._tag === "QuotaExceeded" && error.why !== "StoreDown")
          if (isRefusal) return Effect.andThen(count("refused"), Effect.sleep(20))
          return Effect.sync(() => void broken.push(error.message))
        }
      }),
      Effect.catchDefect((defect) => Effect.sync(() => void broken.push(`defect: ${String(defect)}`)))
    )
  }
  const paid = attemptAt(port, "money").pipe(
    money.withQuota({ key: "money", amounts: { money: 1 }, usage: () => ({}) }),
    Effect.matchEffect({
      onSuccess: () => Effect.sleep(10),
      onFailure: (error) =>
        error !== "failed" && error._tag === "QuotaExceeded" && error.why === "StoreDown"
          ? Effect.andThen(count("storeDown"), Effect.sleep(50))
          : Effect.sleep(50)
    })
  )
  const asked = (question: string) =>
    Effect.gen(function*() {
      const askedAt = yield* Clock.currentTimeMillis
      const answer = yield* dedupe(callTo(port, `ask ${question}`), Question(question))
      answers.push({ question, answer, askedAt })
      yield* Effect.sleep(yield* Random.nextIntBetween(20, 100))
    }).pipe(Effect.catchCause((cause) => Effect.sync(() => void broken.push(`a question: ${String(cause)}`))))
  const report = Effect.sync(() => {
    const all = { ...ends, broken, answers }
    ends = { ok: 0, failed: 0, refused: 0, storeDown: 0 }
    broken = []
    answers = []
    print({ is: "ends", ...all })
  })
  yield* report
  yield* Effect.all([
    ...Array.from({ length: keys.length * 2 }, (_, nth) => Effect.forever(one(nth))),
    Effect.forever(paid),
    ...questions.map((question) => Effect.forever(asked(question))),
    Effect.forever(Effect.delay(report, 200))
  ], { concurrency: "unbounded", discard: true })
}, Effect.scoped)

// The soak imports this file for its types and constants.
if (import.meta.main) {
  const [url = "", port = "", processes = "", budget = ""] = process.argv.slice(2)
  await Effect.runPromise(
    fleet(Number(port), Number(processes), Number(budget)).pipe(
      // Standard output is for the lines.
      Effect.provide(Layer.provideMerge(storesOf(url), Logger.layer([])))
    )
  )
}
