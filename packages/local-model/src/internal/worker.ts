/** The program of the worker thread. Only this thread loads wink-nlp and its vocabulary. */
import { parentPort } from "node:worker_threads"
import { answerTo } from "./answer.ts"
import type { Question, Reply } from "./thread.ts"

parentPort?.on("message", ({ id, prompt }: Question) => {
  const reply: Reply = { id, text: answerTo(prompt) }
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(reply)
})
