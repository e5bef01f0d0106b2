/** The demonstration's two providers, as the main thread sees them: the one with the bad day, and another one. */
import type * as Journal from "@sluice/ai/testing/Journal"
import * as Effect from "effect/Effect"
import { Worker } from "node:worker_threads"

export type ToProvider = "journal" | "clear" | "stop"

export type FromProvider =
  | { readonly _tag: "Ready"; readonly first: Place; readonly second: Place }
  | { readonly _tag: "Journal"; readonly seen: Seen }

/** Where a provider is. */
export interface Place {
  readonly url: string
  readonly key: string
}

/** What each has seen. */
export interface Seen {
  readonly first: ReadonlyArray<Journal.Entry>
  readonly second: ReadonlyArray<Journal.Entry>
}

export interface Providers {
  readonly first: Place
  /** Another one, which is well all day. */
  readonly second: Place
  /** What they have seen so far. */
  readonly journal: Effect.Effect<Seen>
  /** Forgets what they have seen, for the next client. */
  readonly clear: Effect.Effect<void>
}

/** Starts the providers; they end with the scope. */
export const start = (seed: number) =>
  Effect.gen(function*() {
    const worker = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(new URL("./worker.ts", import.meta.url), { workerData: seed })),
      (worker) => Effect.promise(() => worker.terminate())
    )
    const ready = yield* answer(worker)
    if (ready._tag !== "Ready") return yield* Effect.die("the providers did not start")
    const seen = (question: ToProvider) =>
      Effect.map(ask(worker, question), (message) =>
        message._tag === "Journal" ? message.seen : { first: [], second: [] })
    return {
      first: ready.first,
      second: ready.second,
      journal: seen("journal"),
      clear: Effect.asVoid(seen("clear"))
    } satisfies Providers
  })

const answer = (worker: Worker): Effect.Effect<FromProvider> =>
  Effect.callback((resume) => {
    worker.once("message", (message: FromProvider) => resume(Effect.succeed(message)))
    worker.once("error", (error) => resume(Effect.die(error)))
  })

const ask = (worker: Worker, question: ToProvider): Effect.Effect<FromProvider> =>
  Effect.suspend(() => {
    const waiting = answer(worker)
    worker.postMessage(question)
    return waiting
  })
