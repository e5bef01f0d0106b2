import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Redacted } from "effect"
import { join } from "node:path"
import type { Command, Ended } from "./command.ts"
import * as Process from "./command.ts"
import { folder, write } from "./files.ts"

export type Provider = LoopbackProvider.LoopbackProvider["Service"]

/** The environment of a command that calls this provider. */
export const environment = (
  { apiKey, url }: Pick<Provider, "apiKey" | "url">
): { readonly [name: string]: string } => ({
  OPENAI_BASE_URL: url,
  SLUICE_MODEL: "rules",
  ...(apiKey === undefined ? {} : { OPENAI_API_KEY: Redacted.value(apiKey) })
})

/** A provider and the files of a run: a file with these lines, and a path for results. */
export const setUp = Effect.fnUntraced(function*(lines: ReadonlyArray<string>, options?: LoopbackProvider.Options) {
  const provider = yield* LoopbackProvider.make(options)
  return { provider, env: environment(provider), ...yield* filesOf(lines) }
})

/** The files of a run: a file with these lines, and a path for results. */
export const filesOf = (lines: ReadonlyArray<string>) =>
  Effect.map(folder, (directory) => ({
    directory,
    prompts: write(join(directory, "prompts.jsonl"), lines),
    results: join(directory, "results.jsonl")
  }))

/** Runs `sluice run` to its end. */
export const run = (
  args: ReadonlyArray<string>,
  env: { readonly [name: string]: string }
): Effect.Effect<Ended> => Effect.promise(() => Process.run(["run", ...args], env))

/** Starts `sluice run`. Kills it with the scope. */
export const start = (args: ReadonlyArray<string>, env: { readonly [name: string]: string }) =>
  Effect.acquireRelease(
    Effect.sync((): Command => Process.start(["run", ...args], env)),
    (command) => Effect.sync(() => command.process.kill("SIGKILL"))
  )

/** Fails the test once the command has ended. */
const died = (command: Command, what: string): Effect.Effect<never> =>
  Effect.flatMap(
    Effect.promise(() => command.ended),
    ({ code, stderr }) => Effect.die(new Error(`the command ended with ${code} before ${what}: ${stderr}`))
  )

/**
 * Waits until the provider has received this many requests. Polls, because another process sends them. Fails if the command
 * that sends them ends.
 */
export const requests = (provider: Provider, count: number, command?: Command): Effect.Effect<void> => {
  const received = Effect.gen(function*() {
    while ((yield* provider.journal).length < count) yield* Effect.sleep(5)
  })
  return command === undefined ? received : Effect.raceFirst(received, died(command, `${count} requests`))
}

/** Waits until the command has printed this on standard error. Fails if it ends without it. */
export const says = (command: Command, text: string): Effect.Effect<void> => {
  const said = Effect.callback<void>((resume) => {
    let printed = ""
    const { stderr } = command.process
    const onData = (data: Buffer): void => {
      printed += data.toString()
      if (!printed.includes(text)) return
      stderr.off("data", onData)
      resume(Effect.void)
    }
    stderr.on("data", onData)
    return Effect.sync(() => stderr.off("data", onData))
  })
  return Effect.raceFirst(said, died(command, `it printed "${text}"`))
}
