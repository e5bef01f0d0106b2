/** `sluice provider`: serves a local provider, with the faults of a script, until a signal. */
import type { Answer } from "@sluice/ai/testing/LoopbackProvider"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Script from "@sluice/ai/testing/Script"
import * as LocalModel from "@sluice/local-model/LocalModel"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { readFile } from "node:fs/promises"
import * as ExitCode from "../ExitCode.ts"
import type { ProviderFlags } from "../options.ts"
import * as Words from "../run/Words.ts"
import * as Say from "../Say.ts"
import * as Signals from "../Signals.ts"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"

class ScriptError extends Schema.Error<ScriptError>("sluice/ScriptError")({
  _tag: Schema.tag("ScriptError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot use the script ${this.path}: ${this.why}`
  }
}

/** Serves until a signal and returns the exit code. */
export const execute = (flags: ProviderFlags): Promise<number> =>
  Effect.runPromise(
    serve(flags).pipe(
      Effect.scoped,
      Effect.provide(LocalModel.layer),
      Effect.catch((error) =>
        Effect.sync(() => {
          Say.error("sluice provider", oneLine(error.message))
          return ExitCode.unusable
        })
      )
    )
  )

// Exits with 0 after a signal, which is its normal end. npm would print an error for another code.
const serve = Effect.fnUntraced(function*(flags: ProviderFlags) {
  const script = flags.script === undefined ? undefined : yield* readScript(flags.script)
  const signals = yield* Signals.listen
  const provider = yield* LoopbackProvider.make<LocalModel.LocalModel>({
    answer,
    script,
    port: flags.port,
    models: flags.models.length === 0 ? undefined : flags.models,
    apiKey: flags.noKey ? false : undefined
  })
  process.stdout.write(welcome(provider, flags.models[0] ?? "local"))
  yield* signals.first
  const requests = (yield* provider.journal).length + (yield* provider.dropped)
  process.stdout.write(`\nStopped after ${Words.plural(requests, "request")}.\n`)
  return ExitCode.ok
})

const answer: Answer<LocalModel.LocalModel> = ({ prompt }) =>
  LocalModel.LocalModel.use((model) => model.answer(prompt)).pipe(
    Effect.mapError((error) =>
      new LoopbackProvider.AnswerError({ status: error._tag === "InputTooLarge" ? 413 : 500, message: error.message })
    )
  )

const readScript = (path: string): Effect.Effect<Script.Script, ScriptError> => {
  const wrong = (why: string) => new ScriptError({ path, why })
  return Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: (error) => wrong(SystemError.describe(error))
  }).pipe(
    Effect.flatMap((text) => Effect.try({ try: (): unknown => JSON.parse(text), catch: () => wrong("not JSON") })),
    Effect.flatMap((json) => Effect.mapError(Script.decode(json), (error) => wrong(error.message)))
  )
}

const oneLine = (text: string): string => text.replaceAll(/\s*\n\s*/g, " ")

const welcome = (provider: LoopbackProvider.LoopbackProvider["Service"], model: string): string => {
  const { apiKey, url } = provider
  return [
    `Provider at ${url}, reachable from this machine only.`,
    "Rules over wink-nlp make its answers, not a language model. Ctrl-C stops it.",
    "",
    "In another terminal:",
    `  export OPENAI_BASE_URL=${url}`,
    ...(apiKey === undefined ? [] : [`  export OPENAI_API_KEY=${Redacted.value(apiKey)}`]),
    `  export SLUICE_MODEL=${shellWord(model)}`,
    `  ${inClone ? "npm run sluice -- run examples/tickets.jsonl" : "sluice run prompts.jsonl"} -o results.jsonl`,
    ""
  ].join("\n")
}

/** Whether `npm run sluice` of the repository started this, where `sluice` is not on the PATH. */
const inClone = process.env["npm_lifecycle_event"] === "sluice"

const shellWord = (text: string): string =>
  /^[\w.:/@-]+$/.test(text) ? text : `'${Terminal.escape(text).replaceAll("'", `'\\''`)}'`
