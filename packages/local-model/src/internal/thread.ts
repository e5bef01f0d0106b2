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

/** The end of a question. */
export type Result =
  | { readonly _tag: "Answered"; readonly text: string }
  | { readonly _tag: "Died"; readonly cause: unknown }
  | { readonly _tag: "Closed" }

/** A worker thread. The first question starts it, and so does the first one after it died. */
export interface Thread {
  /** Calls `done` once, unless the function that it returns is called first. */
  readonly send: (prompt: string, done: (result: Result) => void) => () => void
  readonly close: () => Promise<void>
}

// Node's worker, since `effect/workers` needs a platform package.
export const makeThread = (): Thread => {
  const pending = new Map<number, (result: Result) => void>()
  let worker: Worker | undefined
  let closed = false
  let questions = 0

  const remove = (id: number): void => {
    pending.delete(id)
    // An idle thread must not keep the process alive.
    if (pending.size === 0) worker?.unref()
  }

  const end = (id: number, result: Result): void => {
    const done = pending.get(id)
    remove(id)
    done?.(result)
  }

  const endAll = (result: Result): void => {
    // A callback may send to the next worker at once, which adds to `pending`.
    const all = [...pending.values()]
    pending.clear()
    for (const done of all) done(result)
  }

  const start = (): Worker => {
    const started = new Worker(workerFile, { execArgv: [] })
    // A failing thread emits `error` and then `exit`. By then a new thread may run.
    const onDeath = (cause: unknown): void => {
      if (worker !== started) return
      worker = undefined
      endAll({ _tag: "Died", cause })
    }
    started.on("message", ({ id, text }: Reply) => end(id, { _tag: "Answered", text }))
    started.on("error", onDeath)
    started.on("exit", (code) => onDeath(new Error(`exit code ${code}`)))
    return started
  }

  return {
    send(prompt, done) {
      if (closed) {
        done({ _tag: "Closed" })
        return () => {}
      }
      const id = questions++
      pending.set(id, done)
      worker ??= start()
      worker.ref()
      const question: Question = { id, prompt }
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
      worker.postMessage(question)
      return () => remove(id)
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

// TypeScript in the repository, JavaScript in the published package.
const workerFile = new URL(import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js", import.meta.url)
