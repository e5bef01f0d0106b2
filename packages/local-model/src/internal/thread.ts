import { Worker } from "node:worker_threads"

/** A message to the worker. */
export interface Question {
  readonly id: number
  readonly prompt: string
}

/** A message from the worker. */
export interface Reply {
  readonly id: number
  readonly text: string
}

/** What became of a question. */
export type Ending =
  | { readonly _tag: "Answered"; readonly text: string }
  | { readonly _tag: "Died"; readonly cause: unknown }
  | { readonly _tag: "Closed" }

/** One worker thread, started by the first question and started anew by the first one after its death. */
export interface Thread {
  /** Calls `done` once, unless the function that it returns is called first. */
  readonly ask: (prompt: string, done: (ending: Ending) => void) => () => void
  readonly close: () => Promise<void>
}

/**
 * Makes a thread.
 *
 * Node's own worker and not that of `effect/workers`, which needs a platform package that nothing else here does.
 */
export const makeThread = (): Thread => {
  const waiting = new Map<number, (ending: Ending) => void>()
  let worker: Worker | undefined
  let closed = false
  let questions = 0

  const forget = (id: number): void => {
    waiting.delete(id)
    // While somebody waits the process must live on; an idle thread must not keep it alive.
    if (waiting.size === 0) worker?.unref()
  }

  const end = (id: number, ending: Ending): void => {
    const done = waiting.get(id)
    forget(id)
    done?.(ending)
  }

  const endAll = (ending: Ending): void => {
    // Whoever is told may ask again at once, of the next worker.
    const all = [...waiting.values()]
    waiting.clear()
    for (const done of all) done(ending)
  }

  const start = (): Worker => {
    const started = new Worker(workerFile, { execArgv: [] })
    // A thread that fails reports an error and then its exit, by when another may run.
    const died = (cause: unknown): void => {
      if (worker !== started) return
      worker = undefined
      endAll({ _tag: "Died", cause })
    }
    started.on("message", ({ id, text }: Reply) => end(id, { _tag: "Answered", text }))
    started.on("error", died)
    started.on("exit", (code) => died(new Error(`exit code ${code}`)))
    return started
  }

  return {
    ask(prompt, done) {
      if (closed) {
        done({ _tag: "Closed" })
        return () => {}
      }
      const id = questions++
      waiting.set(id, done)
      worker ??= start()
      worker.ref()
      const question: Question = { id, prompt }
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
      worker.postMessage(question)
      return () => forget(id)
    },
    async close() {
      closed = true
      const last = worker
      worker = undefined
      endAll({ _tag: "Closed" })
      await last?.terminate()
    }
  }
}

// The sources run as they are in the repository, and as JavaScript where they are installed.
const workerFile = new URL(import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js", import.meta.url)
