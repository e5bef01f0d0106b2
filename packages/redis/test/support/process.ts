import { Effect } from "effect"
import type { Scope } from "effect"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Namespace } from "./redis.ts"

/** Runs a program of `fixtures` in another process, with the Redis and the prefix of the suite. */
export const spawnFixture = (name: string, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(Namespace, ({ prefix, url }) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const file = fileURLToPath(new URL(`../fixtures/${name}.ts`, import.meta.url))
        return spawn(process.execPath, ["--conditions=@sluice/source", file, url, prefix, ...args], {
          stdio: ["pipe", "pipe", "inherit"]
        })
      }),
      kill
    ))

/** Kills a process with a signal that it cannot handle. */
export const kill = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })

/** A process that answers requests. */
export interface AnsweringProcess<Request> {
  readonly request: <Answer>(request: Request) => Effect.Effect<Answer>
  readonly kill: Effect.Effect<void>
  /** Sends a signal that does not end the process. */
  readonly signal: (name: "SIGSTOP" | "SIGCONT") => Effect.Effect<void>
}

interface Reply {
  readonly id: number
  readonly answer?: unknown
  readonly error?: string
}

/** Starts a fixture that calls `answerLines`. Its answers are trusted to have the requested type. */
export const startAnswering = <Request>(
  name: string
): Effect.Effect<AnsweringProcess<Request>, never, Namespace | Scope.Scope> =>
  Effect.gen(function*() {
    const child = yield* spawnFixture(name)
    const pending = new Map<number, (reply: Reply) => void>()
    const ready = new Promise<void>((resolve, reject) => {
      child.once("exit", () => reject(new Error(`${name} has ended`)))
      createInterface({ input: child.stdout }).on("line", (line) => {
        const reply = JSON.parse(line) as "ready" | Reply
        if (reply === "ready") return resolve()
        pending.get(reply.id)?.(reply)
        pending.delete(reply.id)
      })
    })
    yield* Effect.promise(() => ready)
    let id = 0
    const request = <Answer>(request: Request) =>
      Effect.callback<Answer>((resume) => {
        pending.set(++id, ({ answer, error }) => {
          resume(error === undefined ? Effect.succeed(answer as Answer) : Effect.die(new Error(error)))
        })
        child.stdin.write(`${JSON.stringify({ id, request })}\n`)
      })
    return { request, kill: kill(child), signal: (name) => Effect.sync(() => void child.kill(name)) }
  })
