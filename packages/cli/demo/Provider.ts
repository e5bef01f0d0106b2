/** The providers of the demo, which run in a worker: one with faults, two without. */
import type * as Journal from "@sluice/ai/testing/Journal"
import * as Effect from "effect/Effect"
import { Worker } from "node:worker_threads"

export type ToProvider = "journals" | "clear" | "stop"

export type FromProvider =
  | { readonly _tag: "Ready"; readonly first: Endpoint; readonly second: Endpoint; readonly third: Endpoint }
  | { readonly _tag: "Journals"; readonly journals: Journals }

export interface Endpoint {
  readonly url: string
  readonly key: string
}

/** The requests that each provider received. */
export interface Journals {
  readonly first: ReadonlyArray<Journal.Entry>
  readonly second: ReadonlyArray<Journal.Entry>
  readonly third: ReadonlyArray<Journal.Entry>
}

export interface Providers {
  readonly first: Endpoint
  /** Without faults. */
  readonly second: Endpoint
  /** Without faults, for the run that is killed. */
  readonly third: Endpoint
  readonly journals: Effect.Effect<Journals>
  /** Clears the journals of the first two for the next client. */
  readonly clear: Effect.Effect<void>
}

/** Starts the providers. They stop with the scope. */
export const start = (seed: number) =>
  Effect.gen(function*() {
    const worker = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(new URL("./worker.ts", import.meta.url), { workerData: seed })),
      (worker) => Effect.promise(() => worker.terminate())
    )
    const ready = yield* reply(worker)
    if (ready._tag !== "Ready") return yield* Effect.die("the providers did not start")
    const journalsAfter = (message: ToProvider) =>
      Effect.map(
        send(worker, message),
        (reply) => reply._tag === "Journals" ? reply.journals : { first: [], second: [], third: [] }
      )
    return {
      first: ready.first,
      second: ready.second,
      third: ready.third,
      journals: journalsAfter("journals"),
      clear: Effect.asVoid(journalsAfter("clear"))
    } satisfies Providers
  })

const reply = (worker: Worker): Effect.Effect<FromProvider> =>
  Effect.callback((resume) => {
    worker.once("message", (message: FromProvider) => resume(Effect.succeed(message)))
    worker.once("error", (error) => resume(Effect.die(error)))
  })

const send = (worker: Worker, message: ToProvider): Effect.Effect<FromProvider> =>
  Effect.suspend(() => {
    const replied = reply(worker)
    worker.postMessage(message)
    return replied
  })
