/** The demonstration's provider, as the main thread sees it. */
import type * as Journal from "@sluice/ai/testing/Journal"
import * as Effect from "effect/Effect"
import { Worker } from "node:worker_threads"

export type ToProvider = "journal" | "clear" | "stop"

export type FromProvider =
  | { readonly _tag: "Ready"; readonly url: string; readonly key: string }
  | { readonly _tag: "Journal"; readonly entries: ReadonlyArray<Journal.Entry> }

export interface Provider {
  readonly url: string
  readonly key: string
  /** What it has seen so far. */
  readonly journal: Effect.Effect<ReadonlyArray<Journal.Entry>>
  /** Forgets what it has seen, for the next client. */
  readonly clear: Effect.Effect<void>
}

/** Starts the provider; it ends with the scope. */
export const start = (seed: number) =>
  Effect.gen(function*() {
    const worker = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(new URL("./worker.ts", import.meta.url), { workerData: seed })),
      (worker) => Effect.promise(() => worker.terminate())
    )
    const ready = yield* answer(worker)
    if (ready._tag !== "Ready") return yield* Effect.die("the provider did not start")
    const entries = (question: ToProvider) =>
      Effect.map(ask(worker, question), (message) => message._tag === "Journal" ? message.entries : [])
    return {
      url: ready.url,
      key: ready.key,
      journal: entries("journal"),
      clear: Effect.asVoid(entries("clear"))
    } satisfies Provider
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
