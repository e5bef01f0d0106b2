/** What a run is to do: its flags, with the environment and the key in them. */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { readFile } from "node:fs/promises"
import * as Flag from "../Flag.ts"
import type { RunFlags } from "../options.ts"
import * as Terminal from "../Terminal.ts"
import * as SystemError from "./SystemError.ts"

/** The flags do not make a run. */
export class SettingsError extends Schema.Error<SettingsError>("sluice/SettingsError")({
  _tag: Schema.tag("SettingsError"),
  message: Schema.String
}) {}

/** Everything that a run is told. */
export interface Settings extends Omit<RunFlags, "url" | "keyEnv" | "keyFile" | "output"> {
  readonly url: string
  readonly output: string
  readonly apiKey: Redacted.Redacted | undefined
  /** Where the key comes from, for messages: `OPENAI_API_KEY`, or the name of a file. */
  readonly keySource: string
}

/** What the flags leave open. */
export interface Surroundings {
  readonly env: { readonly [name: string]: string | undefined }
  readonly isOutputTerminal: boolean
}

const openAiUrl = "https://api.openai.com/v1"

/** Completes the flags. */
export const resolve = (flags: RunFlags, surroundings: Surroundings): Effect.Effect<Settings, SettingsError> =>
  Effect.gen(function*() {
    const { env, isOutputTerminal } = surroundings
    const { keyEnv, keyFile, output, url: givenUrl, ...rest } = flags
    if (output === undefined && isOutputTerminal) {
      return yield* refuse("where should the results go? -o results.jsonl, or -o - to have them here")
    }
    const url = givenUrl ?? (yield* urlFrom(env["OPENAI_BASE_URL"]))
    const keySource = keyFile ?? keyEnv ?? "OPENAI_API_KEY"
    if (keyFile !== undefined && keyEnv !== undefined) return yield* refuse("give --key-env or --key-file, not both")
    const key = keyFile === undefined ? env[keySource]?.trim() || undefined : yield* readKey(keyFile)
    if (key === undefined && (keyEnv !== undefined || url.startsWith(openAiUrl))) {
      return yield* refuse(`no key: ${Terminal.escape(keySource)} is not set; see --key-env and --key-file`)
    }
    return {
      ...rest,
      url,
      output: output ?? "-",
      model: flags.model ?? (env["SLUICE_MODEL"] || undefined),
      apiKey: key === undefined ? undefined : Redacted.make(key),
      keySource
    }
  })

const refuse = (message: string) => Effect.fail(new SettingsError({ message }))

const urlFrom = (text: string | undefined): Effect.Effect<string, SettingsError> => {
  if (text === undefined || text === "") return Effect.succeed(openAiUrl)
  const read = Flag.httpUrl(text)
  return read.ok ? Effect.succeed(read.value) : refuse(`OPENAI_BASE_URL has to be ${read.wanted}`)
}

const readKey = (path: string): Effect.Effect<string, SettingsError> =>
  Effect.flatMap(
    Effect.tryPromise({
      try: () => readFile(path, "utf8"),
      catch: (error) =>
        new SettingsError({
          message: `cannot read the key in ${Terminal.escape(path)}: ${SystemError.describe(error)}`
        })
    }),
    (text) =>
      text.trim() === "" ? refuse(`the key file ${Terminal.escape(path)} is empty`) : Effect.succeed(text.trim())
  )
