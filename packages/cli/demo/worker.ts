/** The provider of the demonstration: it answers, and has a bad day, in a worker of its own. */
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as LocalModel from "@sluice/local-model/LocalModel"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { parentPort, workerData } from "node:worker_threads"
import { badDay } from "./badDay.ts"
import type { FromProvider, ToProvider } from "./Provider.ts"

const send = (message: FromProvider): void => parentPort?.postMessage(message)

const nextMessage = Effect.callback<ToProvider>((resume) => {
  parentPort?.once("message", (message: ToProvider) => resume(Effect.succeed(message)))
})

const program = Effect.gen(function*() {
  const local = yield* LocalModel.LocalModel
  const provider = yield* LoopbackProvider.make({
    script: badDay(workerData),
    models: ["rules"],
    // As fast as a small model: a first token after 40 ms, then some 1,000 tokens a second.
    pace: { firstTokenMillis: 40, tokenMillis: 1, tokensPerChunk: 8 },
    answer: ({ prompt }) =>
      Effect.mapError(
        local.answer(prompt),
        (error) => new LoopbackProvider.AnswerError({ status: 400, message: error.message })
      )
  })
  // Wakes the model, so that neither client pays for its start.
  yield* local.answer("Good morning. My parcel has not arrived.")
  const key = provider.apiKey === undefined ? "" : Redacted.value(provider.apiKey)
  send({ _tag: "Ready", url: provider.url, key })
  while (true) {
    const message = yield* nextMessage
    if (message === "stop") return
    if (message === "clear") yield* provider.clear
    send({ _tag: "Journal", entries: yield* provider.journal })
  }
})

await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(LocalModel.layer)))
parentPort?.close()
