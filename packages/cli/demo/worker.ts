/** The worker of the demo's providers: one with faults, two without. */
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as LocalModel from "@sluice/local-model/LocalModel"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { parentPort, workerData } from "node:worker_threads"
import { badDay } from "./badDay.ts"
import type { Endpoint, FromProvider, ToProvider } from "./Provider.ts"

const send = (message: FromProvider): void => parentPort?.postMessage(message)

const nextMessage = Effect.callback<ToProvider>((resume) => {
  parentPort?.once("message", (message: ToProvider) => resume(Effect.succeed(message)))
})

const endpointOf = ({ apiKey, url }: LoopbackProvider.LoopbackProvider["Service"]): Endpoint => ({
  url,
  key: apiKey === undefined ? "" : Redacted.value(apiKey)
})

const program = Effect.gen(function*() {
  const local = yield* LocalModel.LocalModel
  const common: LoopbackProvider.Options = {
    models: ["rules"],
    // The pace of a small model: first token after 40 ms, then about 1,000 tokens per second.
    pace: { firstTokenMillis: 40, tokenMillis: 1, tokensPerChunk: 8 },
    answer: ({ prompt }) =>
      Effect.mapError(
        local.answer(prompt),
        (error) => new LoopbackProvider.AnswerError({ status: 400, message: error.message })
      )
  }
  const first = yield* LoopbackProvider.make({ ...common, script: badDay(workerData) })
  const second = yield* LoopbackProvider.make(common)
  const third = yield* LoopbackProvider.make(common)
  // Starts the model, so that the first client does not wait for it.
  yield* local.answer("Good morning. My parcel has not arrived.")
  send({ _tag: "Ready", first: endpointOf(first), second: endpointOf(second), third: endpointOf(third) })
  while (true) {
    const message = yield* nextMessage
    if (message === "stop") return
    if (message === "clear") yield* Effect.andThen(first.clear, second.clear)
    send({
      _tag: "Journals",
      journals: { first: yield* first.journal, second: yield* second.journal, third: yield* third.journal }
    })
  }
})

await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(LocalModel.layer)))
parentPort?.close()
