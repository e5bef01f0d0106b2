import { Effect } from "effect"
import type { Scope } from "effect"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Namespace } from "./redis.ts"

/** A program of `fixtures` that runs in a process of its own, on the Redis and the prefix of the suite. */
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

/** Ends a process as nothing else does: it cannot say good-bye. */
export const kill = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })

/** A process that answers what it is asked. */
export interface Answering<Asked> {
  readonly ask: <Answer>(asked: Asked) => Effect.Effect<Answer>
  readonly kill: Effect.Effect<void>
}

interface Said {
  readonly id: number
  readonly answer?: unknown
  readonly error?: string
}

/** Starts a fixture that answers lines. Its answers are those of a program of these tests, and believed. */
export const startAnswering = <Asked>(name: string): Effect.Effect<Answering<Asked>, never, Namespace | Scope.Scope> =>
  Effect.gen(function*() {
    const child = yield* spawnFixture(name)
    const waiting = new Map<number, (said: Said) => void>()
    const ready = new Promise<void>((resolve, reject) => {
      child.once("exit", () => reject(new Error(`${name} has ended`)))
      createInterface({ input: child.stdout }).on("line", (line) => {
        const said = JSON.parse(line) as "ready" | Said
        if (said === "ready") return resolve()
        waiting.get(said.id)?.(said)
        waiting.delete(said.id)
      })
    })
    yield* Effect.promise(() => ready)
    let id = 0
    const ask = <Answer>(asked: Asked) =>
      Effect.callback<Answer>((resume) => {
        waiting.set(++id, ({ answer, error }) => {
          resume(error === undefined ? Effect.succeed(answer as Answer) : Effect.die(new Error(error)))
        })
        child.stdin.write(`${JSON.stringify({ id, asked })}\n`)
      })
    return { ask, kill: kill(child) }
  })
