/** The settings of a run: flags, completed by the environment and key files. */
import type { Dimension } from "@sluice/core/Quota"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { readFile, stat } from "node:fs/promises"
import { resolve as absolute } from "node:path"
import * as Flag from "../Flag.ts"
import * as Nearest from "../Nearest.ts"
import type { RunFlags } from "../options.ts"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"
import * as Limits from "./Limits.ts"
import * as Prices from "./Prices.ts"

export class SettingsError extends Schema.Error<SettingsError>("sluice/SettingsError")({
  _tag: Schema.tag("SettingsError"),
  /** At least one. */
  problems: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return this.problems.join("; ")
  }
}

/** One place where a model can be called, with its key. */
export interface Target {
  readonly name: string
  readonly wire: Flag.Wire
  readonly url: string
  /** `undefined` if every line has to name its own. */
  readonly model: string | undefined
  readonly apiKey: Redacted.Redacted | undefined
  /** Source of the key, for messages: an environment variable or a file. */
  readonly keySource: string
  /** The rate limits of its account. Default: none. */
  readonly limits?: ReadonlyArray<Dimension> | undefined
}

export interface Settings extends
  Omit<
    RunFlags,
    | "url"
    | "model"
    | "config"
    | "concurrency"
    | "adaptive"
    | "keyEnv"
    | "keyFile"
    | "output"
    | "systemFile"
    | "targets"
    | "idleTimeoutMillis"
    | "headers"
    | "price"
    | "priceFile"
    | "rpm"
    | "tpm"
    | "itpm"
    | "otpm"
  >
{
  readonly concurrency: number
  readonly prices: Prices.Prices
  /** In order of preference. */
  readonly targets: readonly [Target, ...ReadonlyArray<Target>]
  readonly output: string
  readonly idleTimeoutMillis: number
  /** Headers of every request, by name. */
  readonly headers: { readonly [name: string]: Redacted.Redacted }
}

/** The part of the process that completes the flags. */
export interface Surroundings {
  readonly env: { readonly [name: string]: string | undefined }
  readonly isOutputTerminal: boolean
}

export const openAiUrl = "https://api.openai.com/v1"
const anthropicUrl = "https://api.anthropic.com"
const defaultIdleMillis = 30_000
/** Small accounts allow it. */
const fixedConcurrency = 16
/** More would be too much for a server that rejects none. */
const adaptiveConcurrency = 64
/** Enough for 6,000 calls of 5 seconds a minute. The limits keep the calls at once below it. */
const pacedConcurrency = 512

export const resolve = (flags: RunFlags, surroundings: Surroundings): Effect.Effect<Settings, SettingsError> =>
  Effect.gen(function*() {
    const { env, isOutputTerminal } = surroundings
    const problems: Array<string> = []
    const {
      adaptive,
      concurrency,
      headers,
      config: _config,
      idleTimeoutMillis,
      keyEnv,
      keyFile,
      model: _model,
      output,
      itpm: _itpm,
      otpm: _otpm,
      price,
      priceFile,
      rpm: _rpm,
      system: _system,
      systemFile: _systemFile,
      targets: _targets,
      tpm: _tpm,
      url: _url,
      ...rest
    } = flags
    if (output === undefined && isOutputTerminal && !flags.dryRun) {
      problems.push("--output is required on a terminal: -o results.jsonl, or -o - to print results here")
    }
    if (flags.noStream && (flags.firstTokenTimeoutMillis ?? idleTimeoutMillis) !== undefined) {
      problems.push("--no-stream excludes --first-token-timeout and --idle-timeout, which need a stream")
    }
    if (flags.noShare && flags.cache !== undefined) {
      problems.push("--no-share makes a call for every line, and --cache reuses answers; use one of them")
    }
    problems.push(...resumeProblems(flags))
    if (keyFile !== undefined && keyEnv !== undefined) problems.push("use --key-env or --key-file, not both")
    problems.push(...headerProblems(headers, env))
    const system = yield* Effect.result(systemOf(flags))
    if (Result.isFailure(system)) problems.push(...system.failure.problems)
    if (price !== undefined && priceFile !== undefined) problems.push("use --price or --price-file, not both")
    const list = yield* Effect.result(Prices.read(priceFile))
    if (Result.isFailure(list)) problems.push(list.failure.message)
    const files = yield* Effect.result(checkFiles(flags))
    if (Result.isFailure(files)) problems.push(...files.failure.problems)
    const targets = yield* Effect.result<Settings["targets"], SettingsError, never>(
      targetsOf(flags, env)
    )
    if (Result.isFailure(targets)) return yield* refuseAll([...problems, ...targets.failure.problems])
    problems.push(...Limits.problems(flags, targets.success.map(({ name }) => name)))
    if (problems.length > 0) return yield* refuseAll(problems)
    const isPaced = [flags.rpm, flags.tpm, flags.itpm, flags.otpm].some((limits) => limits.length > 0)
    const isAdaptive = adaptive ?? (concurrency === undefined && !isPaced)
    const most = concurrency ?? (isPaced ? pacedConcurrency : isAdaptive ? adaptiveConcurrency : fixedConcurrency)
    return {
      ...rest,
      concurrency: most,
      prices: new Prices.Prices(price, Result.getOrElse(list, () => [])),
      targets: limited(targets.success, flags, isAdaptive ? most : undefined),
      system: Result.getOrUndefined(system),
      output: output ?? "-",
      idleTimeoutMillis: idleTimeoutMillis ?? defaultIdleMillis,
      headers: headersOf(headers, env)
    }
  })

/** Adds the limits. `atMost`: how many calls may run at once, if the provider's limit of them has to be found. */
const limited = (targets: Settings["targets"], flags: RunFlags, atMost: number | undefined): Settings["targets"] => {
  const [first, ...others] = targets
  const found = atMost === undefined ? [] : [Limits.found(atMost)]
  const withLimits = (target: Target): Target => ({ ...target, limits: [...Limits.of(flags, target), ...found] })
  return [withLimits(first), ...others.map(withLimits)]
}

/** Flags of a resumed run that exclude each other. */
const resumeProblems = ({ force, onlyNew, output, resume, retryFailed }: RunFlags): ReadonlyArray<string> => {
  if (!resume && !onlyNew && !retryFailed) return []
  return [
    ...(force ? ["--force replaces the results, and --resume goes on with them; use one of them"] : []),
    ...(onlyNew && retryFailed ? ["use --only-new or --retry-failed; --resume does both"] : []),
    ...((output ?? "-") === "-" ? ["a run is resumed from its results, so --output must name a file"] : [])
  ]
}

type Headers = ReadonlyArray<Flag.HeaderFlag>

export const headerProblems = (headers: Headers, env: Environment): ReadonlyArray<string> => {
  const names = headers.map(({ name }) => name.toLowerCase())
  return headers.flatMap(({ name, value }, index) => {
    const expanded = Flag.expand(value, env)
    return [
      ...(names.indexOf(name.toLowerCase()) < index ? [`--header ${name} is given twice`] : []),
      ...(expanded.ok
        ? []
        : [`--header ${name} needs the environment variable ${expanded.requirement}, which is not set`])
    ]
  })
}

export const headersOf = (headers: Headers, env: Environment): Settings["headers"] =>
  Object.fromEntries(headers.flatMap(({ name, value }) => {
    const expanded = Flag.expand(value, env)
    return expanded.ok ? [[name, Redacted.make(expanded.value)]] : []
  }))

/** The system message of every prompt: the text of `--system`, or the content of `--system-file` without its last line end. */
export const systemOf = (
  { system, systemFile }: Pick<RunFlags, "system" | "systemFile">
): Effect.Effect<string | undefined, SettingsError> => {
  if (systemFile === undefined) return Effect.succeed(system)
  if (system !== undefined) return refuse("use --system or --system-file, not both")
  const name = Terminal.escape(systemFile)
  return Effect.flatMap(
    Effect.tryPromise({
      try: async () => new TextDecoder("utf-8", { fatal: true }).decode(await readFile(systemFile)),
      catch: (error) =>
        new SettingsError({
          problems: [
            `cannot read the system file ${name}: ${
              error instanceof TypeError ? "it is not UTF-8" : SystemError.describe(error)
            }`
          ]
        })
    }),
    (text) =>
      text.trim() === "" ? refuse(`the system file ${name} is empty`) : Effect.succeed(text.replace(/\r?\n$/, ""))
  )
}

const refuse = (problem: string) => refuseAll([problem])

export const refuseAll = (problems: ReadonlyArray<string>) => Effect.fail(new SettingsError({ problems }))

/** Whether the settings name a model for lines without one. */
export const namesModel = ({ model, targets }: RunFlags): boolean => targets.length > 0 || model !== undefined

/** Refuses two outputs to one file, and one to a file that a run keeps beside its results. */
const checkFiles = Effect.fnUntraced(function*({ log, output, report }: RunFlags) {
  const outputs = [["--output", output], ["--log", log], ["--report", report]] as const
  const written = new Map<string, string>()
  for (const end of output === undefined || output === "-" ? [] : besideResults) {
    written.set(absolute(output + end), `the ${end} file of --output`)
  }
  for (const [flag, path] of outputs) {
    if (path === undefined || (path === "-" && flag === "--output")) continue
    if (path === "-") return yield* refuse(`${flag} must be a file name; standard output is for results`)
    for (const file of [absolute(path), yield* nodeOf(path)]) {
      if (file === undefined) continue
      const other = written.get(file)
      if (other !== undefined) return yield* refuse(`${other} and ${flag} name the same file`)
      written.set(file, flag)
    }
  }
})

const besideResults = [".run", ".lock", ".budget"]

/** Identifies an existing file independent of its path, since links are other paths to it. */
const nodeOf = (path: string): Effect.Effect<string | undefined> =>
  Effect.promise(() =>
    stat(path).then(
      (found) => found.isFile() ? `${found.dev}:${found.ino}` : undefined,
      () => undefined
    )
  )

// ---------- one target

type Environment = Surroundings["env"]

/** Flags that name targets and their keys. */
type TargetFlags = Pick<RunFlags, "keyEnv" | "keyFile" | "model" | "url"> & {
  readonly targets: ReadonlyArray<GivenTarget>
}

type GivenTarget = Omit<Flag.TargetFlag, "model"> & {
  readonly model?: string | undefined
  /** The variable that has its key. */
  readonly keyEnv?: string | undefined
}

/** The targets of the flags, with their keys. */
export const targetsOf = (flags: TargetFlags, env: Environment): Effect.Effect<Settings["targets"], SettingsError> =>
  flags.targets.length === 0 ? singleTarget(flags, env) : severalTargets(flags, env)

const singleTarget = (flags: TargetFlags, env: Environment) =>
  Effect.gen(function*() {
    const { keyEnv } = flags
    const url = flags.url ?? (yield* urlFrom(env["OPENAI_BASE_URL"]))
    const { apiKey, keySource } = yield* sharedKey(flags, env)
    if (apiKey === undefined && (keyEnv !== undefined || url.startsWith(openAiUrl))) return yield* noKey(keySource)
    return [{ name: new URL(url).host, wire: "openai", url, model: flags.model, apiKey, keySource }] as const
  })

const noKey = (keySource: string) =>
  refuse(`no key: ${Terminal.escape(keySource)} is not set; see --key-env and --key-file`)

const urlFrom = (text: string | undefined): Effect.Effect<string, SettingsError> => {
  if (text === undefined || text === "") return Effect.succeed(openAiUrl)
  const read = Flag.httpUrl(text)
  return read.ok ? Effect.succeed(read.value) : refuse(`OPENAI_BASE_URL must be ${read.requirement}`)
}

type Key = Pick<Target, "apiKey" | "keySource">

/** The key of the flags, else of `OPENAI_API_KEY`. */
const sharedKey = ({ keyEnv, keyFile }: TargetFlags, env: Environment): Effect.Effect<Key, SettingsError> =>
  keyFile === undefined
    ? Effect.succeed(keyIn(env, keyEnv ?? "OPENAI_API_KEY"))
    : Effect.map(readKey(keyFile), (key) => ({ apiKey: Redacted.make(key), keySource: keyFile }))

const keyIn = (env: Environment, keySource: string): Key => {
  const key = env[keySource]?.trim() || undefined
  return { apiKey: key === undefined ? undefined : Redacted.make(key), keySource }
}

const readKey = (path: string): Effect.Effect<string, SettingsError> =>
  Effect.flatMap(
    Effect.tryPromise({
      try: () => readFile(path, "utf8"),
      catch: (error) =>
        new SettingsError({
          problems: [`cannot read the key file ${Terminal.escape(path)}: ${SystemError.describe(error)}`]
        })
    }),
    (text) =>
      text.trim() === "" ? refuse(`the key file ${Terminal.escape(path)} is empty`) : Effect.succeed(text.trim())
  )

// ---------- several targets

const keyPrefix = "SLUICE_KEY_"

const keyVariable = (name: string): string => keyPrefix + name.toUpperCase().replaceAll("-", "_")

const severalTargets = (flags: TargetFlags, env: Environment) =>
  Effect.gen(function*() {
    if (flags.url !== undefined || flags.model !== undefined) {
      return yield* refuse("use --target, or --url and --model, not both")
    }
    const variables = flags.targets.map(({ name }) => keyVariable(name))
    const duplicate = flags.targets.find((_, index) => variables.indexOf(variables[index] ?? "") < index)
    if (duplicate !== undefined) {
      return yield* refuse(`two targets are named ${duplicate.name}; names must differ in more than case, - and _`)
    }
    const [first, ...others] = yield* Effect.forEach(flags.targets, (target) =>
      Effect.map(
        keyOf(target, flags, env),
        (key): Target => ({ name: target.name, wire: target.wire, url: target.url, model: target.model, ...key })
      ))
    if (first === undefined) {
      return yield* Effect.die("no target, although --target was given")
    }
    const targets = [first, ...others] as const
    yield* checkKeys(targets, variables, env)
    return targets
  })

/**
 * The target's own key, else that of `--key-env` or `--key-file`, else that of its vendor's clients. A key is not sent to
 * another vendor: `OPENAI_API_KEY` goes to OpenAI, to the host of `OPENAI_BASE_URL`, and to a single target.
 */
const keyOf = (target: GivenTarget, flags: TargetFlags, env: Environment): Effect.Effect<Key, SettingsError> => {
  if (target.keyEnv !== undefined) {
    const named = keyIn(env, target.keyEnv)
    return named.apiKey === undefined
      ? refuse(`no key for target ${target.name}: ${target.keyEnv} is not set`)
      : Effect.succeed(named)
  }
  const own = keyIn(env, keyVariable(target.name))
  if (own.apiKey !== undefined) return Effect.succeed(own)
  if (flags.keyEnv !== undefined || flags.keyFile !== undefined) return sharedKey(flags, env)
  if (target.wire === "anthropic") {
    return Effect.succeed(isAt(target, anthropicUrl) ? or(own, keyIn(env, "ANTHROPIC_API_KEY")) : own)
  }
  const takesOpenAiKey = flags.targets.length === 1 || isAt(target, openAiUrl) ||
    isAt(target, env["OPENAI_BASE_URL"] ?? "")
  return Effect.succeed(takesOpenAiKey ? or(own, keyIn(env, "OPENAI_API_KEY")) : own)
}

const or = (own: Key, other: Key): Key => other.apiKey === undefined ? own : other

const isAt = ({ url }: { readonly url: string }, other: string): boolean =>
  URL.parse(url)?.origin === URL.parse(other)?.origin

/** Reports a missing key or a misspelt variable before the first call. */
const checkKeys = (
  targets: ReadonlyArray<Target>,
  variables: ReadonlyArray<string>,
  env: Environment
): Effect.Effect<void, SettingsError> => {
  const keyless = targets.filter(({ apiKey, url }) => apiKey === undefined && !isLocal(url))
  const [first] = keyless
  if (first === undefined) return Effect.void
  const stray = Object.keys(env).find((name) => name.startsWith(keyPrefix) && !variables.includes(name))
  if (stray !== undefined) {
    const nearest = Nearest.find(stray, keyless.map(({ name }) => keyVariable(name)))
    return refuse(
      `${Terminal.clip(Terminal.escape(stray), 60)} names no target, and target ${first.name} has no key` +
        (nearest === undefined ? "" : `; did you mean ${nearest}?`)
    )
  }
  const needsKey = keyless.find((target) => isAt(target, openAiUrl) || isAt(target, anthropicUrl))
  return needsKey === undefined
    ? Effect.void
    : refuse(`no key for target ${needsKey.name}: ${needsKey.keySource} is not set; see --key-env and --key-file`)
}

const isLocal = (url: string): boolean => /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(URL.parse(url)?.hostname ?? "")
