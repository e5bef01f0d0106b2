/** `sluice config`: prints each setting of a run and its source. */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Arguments from "../Arguments.ts"
import * as ExitCode from "../ExitCode.ts"
import * as Options from "../options.ts"
import * as Settings from "../run/Settings.ts"
import * as Say from "../Say.ts"
import type { Given } from "../Shell.ts"
import * as Sources from "../Sources.ts"
import * as UrlSecrets from "../UrlSecrets.ts"
import * as Table from "./Table.ts"

/** Prints the settings that a run with these flags would have, and returns the exit code. Calls no provider. */
export const execute = async (
  given: Given,
  isJson: boolean,
  surroundings: Sources.Surroundings = Sources.here()
): Promise<number> => {
  const refuse = (...problems: ReadonlyArray<string>): number => {
    Say.error("sluice config", ...problems)
    return ExitCode.unusable
  }
  const sources = Sources.read(Options.run.flags, given, surroundings)
  if (sources._tag === "Wrong") return refuse(sources.message)
  const read = Arguments.readAll(Options.run.flags, sources.given, [])
  if (read._tag !== "Parsed") return refuse(read._tag === "Wrong" ? read.message : "unreadable flags")
  const { env } = surroundings
  const settings = await Effect.runPromise(
    Effect.result(
      Settings.resolve({ ...read.values, output: read.values.output ?? "-" }, { env, isOutputTerminal: false })
    )
  )
  const rows = [...settingRows(sources, env), ...keyRows(settings)]
  const stray = Sources.strayVariables({ ...Options.serve.flags, ...Options.run.flags }, surroundings)
  process.stdout.write(
    isJson
      ? `${
        JSON.stringify(
          { file: sources.file?.path ?? null, settings: toJson(rows), ignored: Object.fromEntries(stray) },
          null,
          2
        )
      }\n`
      : Table.render(rows, stray, sources.file?.path)
  )
  return Result.isFailure(settings) ? refuse(...settings.failure.problems) : ExitCode.ok
}

const settingRows = (sources: Sources.Sources, env: Sources.Surroundings["env"]): ReadonlyArray<Table.Row> =>
  Sources.configurable(Options.run.flags).map((flag) => {
    const name = Sources.keyOf(flag)
    const setting = sources.settings.get(flag.name) ?? implied(flag.name, sources, env)
    return setting === undefined
      ? { name, values: [flag.argument === undefined ? "false" : defaultOf(flag.about)], from: "default" }
      : {
        name,
        values: flag.argument === undefined ? [String(!setting.shown.includes("false"))] : setting.shown,
        from: setting.from
      }
  })

/** The settings of a single target come from other variables, or not at all if targets are set. */
const implied = (
  name: string,
  { settings }: Sources.Sources,
  env: Sources.Surroundings["env"]
): Sources.Setting | undefined => {
  if (name !== "url" && name !== "model") return undefined
  const target = settings.get("target")
  if (target !== undefined) return { from: target.from, shown: ["that of each target"] }
  if (name === "model") return undefined
  const url = env["OPENAI_BASE_URL"] || undefined
  return url === undefined
    ? { from: "default", shown: [Settings.openAiUrl] }
    : { from: "OPENAI_BASE_URL", shown: [UrlSecrets.hideInArgument(url)] }
}

/** The help text of each flag ends in its default. */
const defaultOf = (about: string): string => /\[default: ([^\]]+)\]$/.exec(about)?.[1] ?? "none"

const keyRows = (settings: Result.Result<Settings.Settings, Settings.SettingsError>): ReadonlyArray<Table.Row> =>
  Result.isFailure(settings)
    ? []
    : settings.success.targets.map(({ apiKey, keySource, name }) => ({
      name: `key of ${name}`,
      values: [apiKey === undefined ? "not set" : "[masked]"],
      from: keySource
    }))

const toJson = (rows: ReadonlyArray<Table.Row>) =>
  Object.fromEntries(
    rows.map(({ from, name, values }) => [name, { value: values.length === 1 ? values[0] : values, from }])
  )
