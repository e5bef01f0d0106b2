import type * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Redacted } from "effect"
import type { Command, Ended } from "../../support/command.ts"
import * as Process from "../../support/command.ts"

export type Provider = LoopbackProvider.LoopbackProvider["Service"]

/** The environment of a command that is to call this provider. */
export const environment = (
  { apiKey, url }: Pick<Provider, "apiKey" | "url">
): { readonly [name: string]: string } => ({
  OPENAI_BASE_URL: url,
  SLUICE_MODEL: "rules",
  ...(apiKey === undefined ? {} : { OPENAI_API_KEY: Redacted.value(apiKey) })
})

/** Runs `sluice run` to its end. */
export const run = (
  args: ReadonlyArray<string>,
  env: { readonly [name: string]: string }
): Effect.Effect<Ended> => Effect.promise(() => Process.run(["run", ...args], env))

/** Starts `sluice run`; it ends with the scope at the latest. */
export const start = (args: ReadonlyArray<string>, env: { readonly [name: string]: string }) =>
  Effect.acquireRelease(
    Effect.sync((): Command => Process.start(["run", ...args], env)),
    (command) => Effect.sync(() => command.process.kill("SIGKILL"))
  )

/** Waits until so many requests have come. It looks again and again: the requests come from another process. */
export const requests = (provider: Provider, count: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    while ((yield* provider.journal).length < count) yield* Effect.sleep(5)
  })

/** Waits until the command has said this on standard error. */
export const says = (command: Command, text: string): Effect.Effect<void> =>
  Effect.callback((resume) => {
    let said = ""
    const { stderr } = command.process
    const heard = (data: Buffer): void => {
      said += data.toString()
      if (said.includes(text)) resume(Effect.void)
    }
    stderr.on("data", heard)
    return Effect.sync(() => stderr.off("data", heard))
  })
