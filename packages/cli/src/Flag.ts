import * as UrlSecrets from "./UrlSecrets.ts"

/** The result of reading a flag: its value, or the requirement that its text does not meet. */
export type Read<A> =
  | { readonly ok: true; readonly value: A }
  | { readonly ok: false; readonly requirement: string }

/** A flag of a command. Parsing, error messages and help texts are made from it. */
export interface Flag<out A> {
  /** Without the dashes. */
  readonly name: string
  readonly short?: string | undefined
  /** The name of the value in the help text. `undefined` for a switch. */
  readonly argument?: string | undefined
  /** The help text: effect, default, and the reason for the default. */
  readonly about: string
  readonly repeats?: boolean | undefined
  /** Writes a value for messages, without its secrets. Default: hides the secrets of URLs. */
  readonly shown?: ((value: string) => string) | undefined
  /** Whether it is about one run: no `sluice.json`, no variable sets it, and a retry does not take it over. */
  readonly perRun?: boolean | undefined
  /** Whether the value is a path. */
  readonly path?: "file" | "folder" | undefined
  /** The allowed values, if they are few. */
  readonly choices?: ReadonlyArray<string> | undefined
  /** What of the value can be a secret. `sluice.json` has `${VARIABLE}` in its place. */
  readonly holdsSecret?: "url" | "header" | "database" | undefined
  /** Writes an object of `sluice.json` as the text of the flag. */
  readonly fromObject?: ((fields: Fields) => Read<string>) | undefined
  /** Reads the values on the command line, in order. Empty if the flag is absent. */
  readonly read: (values: ReadonlyArray<string>) => Read<A>
}

export type Fields = { readonly [name: string]: unknown }

/** The flags of a command, by the name of their value in code. */
export type Flags = { readonly [key: string]: Flag<unknown> }

export type Values<F extends Flags> = { readonly [K in keyof F]: F[K] extends Flag<infer A> ? A : never }

type Row = Pick<Flag<unknown>, "short" | "about" | "perRun">

interface ValueRow<A> extends Row, Pick<Flag<unknown>, "path" | "choices" | "shown" | "holdsSecret" | "fromObject"> {
  readonly argument: string
  readonly parse: (text: string) => Read<A>
}

const ok = <A>(value: A): Read<A> => ({ ok: true, value })

/** A flag with a value. `undefined` if absent. */
export const optional = <A>(name: string, { parse, ...row }: ValueRow<A>): Flag<A | undefined> => ({
  name,
  ...row,
  read: ([text]): Read<A | undefined> => text === undefined ? ok(undefined) : parse(text)
})

export const withDefault = <A>(name: string, fallback: A, { parse, ...row }: ValueRow<A>): Flag<A> => ({
  name,
  ...row,
  read: ([text]) => text === undefined ? ok(fallback) : parse(text)
})

/** A flag that can be repeated. */
export const many = <A>(name: string, { parse, ...row }: ValueRow<A>): Flag<ReadonlyArray<A>> => ({
  name,
  ...row,
  repeats: true,
  read: (texts) => {
    const values: Array<A> = []
    for (const text of texts) {
      const read = parse(text)
      if (!read.ok) return read
      values.push(read.value)
    }
    return ok(values)
  }
})

/** A switch. The value `false` switches it off, for one that `sluice.json` or a variable has switched on. */
export const toggle = (name: string, row: Row): Flag<boolean> => ({
  name,
  ...row,
  read: ([text]) => ok(text !== undefined && text !== "false")
})

/** A switch whose default depends on other flags: `undefined` if absent. */
export const optionalToggle = (name: string, row: Row): Flag<boolean | undefined> => ({
  name,
  ...row,
  read: ([text]) => ok(text === undefined ? undefined : text !== "false")
})

/** A value of a flag for a message, without its secrets. */
export const shown = (flag: Flag<unknown> | undefined, value: string): string =>
  (flag?.shown ?? UrlSecrets.hideInArgument)(value)

// ---------- values

export const text = (value: string): Read<string> =>
  value === "" ? { ok: false, requirement: "a non-empty text" } : ok(value)

export const oneOf = <const A extends string>(choices: ReadonlyArray<A>) => (text: string): Read<A> => {
  const found = choices.find((choice) => choice === text)
  return found === undefined ? { ok: false, requirement: `one of ${choices.join(", ")}` } : ok(found)
}

/** Reads a whole number. Accepts digits only. */
export const integer = (minimum: number, maximum: number) => (text: string): Read<number> => {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  return value >= minimum && value <= maximum
    ? ok(value)
    : {
      ok: false,
      requirement: maximum === Number.MAX_SAFE_INTEGER
        ? `a whole number of at least ${minimum}`
        : `a whole number from ${minimum} to ${maximum}`
    }
}

export const decimal = (minimum: number, maximum: number) => (text: string): Read<number> => {
  const value = /^\d+(?:\.\d+)?$/.test(text) ? Number(text) : Number.NaN
  return value >= minimum && value <= maximum
    ? ok(value)
    : { ok: false, requirement: `a number from ${minimum} to ${maximum}` }
}

const thousands = { k: 1_000, K: 1_000, m: 1_000_000, M: 1_000_000 } as const

const isThousands = (unit: string): unit is keyof typeof thousands => Object.hasOwn(thousands, unit)

/** Reads a count such as `500`, `200k` or `2M`. */
export const count = (text: string): Read<number> => {
  const [, digits = "", unit = ""] = /^(\d+(?:\.\d+)?)([kKmM]?)$/.exec(text) ?? []
  const value = Number(digits === "" ? Number.NaN : digits) * (isThousands(unit) ? thousands[unit] : 1)
  return Number.isSafeInteger(value) && value > 0
    ? ok(value)
    : { ok: false, requirement: "a whole number such as 500, 200k or 2M" }
}

/** A limit of every account, or of the account of one target. */
export interface Limit {
  readonly target: string | undefined
  readonly limit: number
}

/** Reads a limit such as `500` or `2M`, or `NAME=500` for one target. */
export const limit = (text: string): Read<Limit> => {
  const [, target, number = ""] = /^(?:([^=]*)=)?(.*)$/s.exec(text) ?? []
  const read = count(number)
  return read.ok && (target === undefined || targetName.test(target))
    ? ok({ target, limit: read.value })
    : { ok: false, requirement: "a whole number such as 500, 200k or 2M, or NAME=500 for one target" }
}

/** Reads an amount of dollars. */
export const dollars = (text: string): Read<number> => {
  const value = /^\$?\d+(?:\.\d+)?$/.test(text) ? Number(text.replace("$", "")) : Number.NaN
  return value > 0 && value <= 1e9 ? ok(value) : { ok: false, requirement: "dollars such as 5 or 0.50" }
}

/** Dollars for a million tokens. */
export interface Price {
  readonly input: number
  readonly output: number
}

/** Reads the prices of input and output, such as `1.25,10`. */
export const price = (text: string): Read<Price> => {
  const [, input = "", output = ""] = /^(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)$/.exec(text) ?? []
  return output === ""
    ? { ok: false, requirement: "IN,OUT in dollars for a million tokens, such as 1.25,10" }
    : ok({ input: Number(input), output: Number(output) })
}

const unitMillis = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

const isUnit = (unit: string): unit is keyof typeof unitMillis => Object.hasOwn(unitMillis, unit)

// Node's longest timer. A longer one would fire at once.
const maxTimerMillis = 2 ** 31 - 1

/** Reads a duration with a unit, as milliseconds. Refuses a bare number, whose unit would be a guess. */
export const duration =
  (minimumMillis: number, maximumMillis: number = maxTimerMillis) => (text: string): Read<number> => {
    const [, digits = "", unit = ""] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text) ?? []
    const millis = isUnit(unit) ? Math.round(Number(digits) * unitMillis[unit]) : Number.NaN
    if (millis >= minimumMillis && millis <= maximumMillis) return ok(millis)
    const atLeast = minimumMillis === 0 ?
      "" :
      `, at least ${minimumMillis % 1_000 === 0 ? `${minimumMillis / 1_000}s` : `${minimumMillis}ms`}`
    return { ok: false, requirement: `a duration such as 500ms, 30s, 2m or 1h${atLeast}` }
  }

const unitBytes = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 } as const

const isByteUnit = (unit: string): unit is keyof typeof unitBytes => Object.hasOwn(unitBytes, unit)

/** Reads a size with a unit, as bytes. */
export const bytes = (text: string): Read<number> => {
  const [, digits = "", unit = ""] = /^(\d+(?:\.\d+)?)([KMG]iB)$/.exec(text) ?? []
  const value = isByteUnit(unit) ? Math.round(Number(digits) * unitBytes[unit]) : 0
  return value > 0 && Number.isSafeInteger(value)
    ? ok(value)
    : { ok: false, requirement: "a size such as 500MiB or 2GiB" }
}

/** Reads an absolute HTTP URL without a user name or password. */
export const httpUrl = (text: string): Read<string> => {
  const url = URL.parse(text)
  const isHttp = url !== null && (url.protocol === "https:" || url.protocol === "http:")
  if (isHttp && url.username === "" && url.password === "") return ok(text)
  return {
    ok: false,
    requirement: isHttp
      ? "a URL without user name and password; pass the key in the environment or with --key-file"
      : "an http:// or https:// URL, such as https://api.openai.com/v1"
  }
}

/** Whether the text is the URL of a database, and not the path of a file. */
export const isDatabaseUrl = (text: string): boolean => /^(?:rediss?|postgres(?:ql)?):/.test(text)

/** A socket of Postgres has the host in its query: `postgres:///database?host=/run/postgresql`. */
const hasHost = ({ host, protocol, searchParams }: URL): boolean =>
  host !== "" || (protocol.startsWith("postgres") && (searchParams.get("host") ?? "") !== "")

/** Reads the URL of a database with one of these schemes. Its password may be a variable, as `${NAME}`. */
export const databaseUrl = (schemes: ReadonlyArray<string>) => (text: string): Read<string> => {
  const url = URL.parse(text)
  if (text.startsWith("${") || (url !== null && hasHost(url) && schemes.includes(url.protocol.slice(0, -1)))) {
    return ok(text)
  }
  return { ok: false, requirement: `a URL that begins with ${schemes.map((scheme) => `${scheme}://`).join(", ")}` }
}

const serverUrl = databaseUrl(["redis", "rediss", "postgres", "postgresql"])

/** Reads the URL of the database that gateways share. */
export const storeUrl = (text: string): Read<string> => {
  if (/^sqlite:./.test(text)) return ok(text)
  const read = serverUrl(text)
  return read.ok ? read : { ok: false, requirement: `${read.requirement} or sqlite:` }
}

/** Reads the URL of a database of batches. A path is a file of SQLite. */
export const batchesUrl = (text: string): Read<string> => {
  if (text.startsWith("${") || /^sqlite:./.test(text)) return ok(text)
  const url = URL.parse(text)
  return url !== null && hasHost(url) && /^postgres(?:ql)?:$/.test(url.protocol)
    ? ok(text)
    : { ok: false, requirement: "a URL such as sqlite:batches.sqlite or postgres://host/database" }
}

export type Wire = "openai" | "anthropic"

/** A target as the flag gives it. */
export interface TargetFlag {
  readonly name: string
  readonly wire: Wire
  readonly url: string
  readonly model: string
}

const targetForm = /^([^=]*)=(anthropic:)?(\S+?)#(.*)$/s
const targetName = /^[A-Za-z][A-Za-z0-9_-]{0,31}$/

/** Reads `NAME=URL#MODEL`, or `NAME=anthropic:URL#MODEL` for Anthropic's format. */
export const target = (text: string): Read<TargetFlag> => {
  const [, name = "", anthropic, url = "", model = ""] = targetForm.exec(text) ?? []
  if (model.trim() === "") {
    return { ok: false, requirement: "NAME=URL#MODEL, such as main=https://api.openai.com/v1#gpt-5" }
  }
  if (!targetName.test(name)) {
    return {
      ok: false,
      requirement: "NAME=URL#MODEL with a NAME of letters, digits, - and _ that begins with a letter"
    }
  }
  const read = httpUrl(url)
  return read.ok
    ? ok({ name, wire: anthropic === undefined ? "openai" : "anthropic", url, model: model.trim() })
    : { ok: false, requirement: `NAME=URL#MODEL with ${read.requirement}` }
}

/** A header as the flag gives it. */
export interface HeaderFlag {
  readonly name: string
  /** Can have variables of the environment, as `${NAME}`. */
  readonly value: string
}

const headerForm = /^([\w!#$%&'*+.^`|~-]+)=(\P{Cc}+)$/u

/** Reads `NAME=VALUE`. */
export const header = (text: string): Read<HeaderFlag> => {
  const [, name, value = ""] = headerForm.exec(text) ?? []
  return name === undefined || value.trim() === ""
    ? { ok: false, requirement: "NAME=VALUE, such as X-Team=search or 'X-Api-Key=${API_KEY}'" }
    : ok({ name, value: value.trim() })
}

const variable = /\$\{([A-Za-z_]\w*)\}/g

/** Replaces the variables of a header's value. Returns the name of the first that is not set as the failure. */
export const expand = (value: string, env: { readonly [name: string]: string | undefined }): Read<string> => {
  const unset = [...value.matchAll(variable)].map(([, name = ""]) => name).find((name) => !env[name]?.trim())
  return unset === undefined
    ? ok(value.replaceAll(variable, (_, name: string) => env[name]?.trim() ?? ""))
    : { ok: false, requirement: unset }
}

/** Hides the value of a header, unless it comes from variables. */
export const shownHeader = (text: string): string => {
  const [, name, value = ""] = headerForm.exec(text) ?? []
  if (name === undefined) return "[masked]"
  return value.search(variable) === -1 ? `${name}=[masked]` : text
}

const targetFields = new Set(["name", "url", "model", "wire"])

/** Writes a target given as an object, such as `{"name": "main", "url": "https://...", "model": "..."}`. */
export const targetFromObject = (fields: Fields): Read<string> => {
  const stray = Object.keys(fields).find((field) => !targetFields.has(field))
  const { model, name, url, wire = "openai" } = fields
  const isWhole = [name, url, model].every((field) => typeof field === "string")
  return isWhole && stray === undefined && (wire === "openai" || wire === "anthropic")
    ? ok(`${String(name)}=${wire === "anthropic" ? "anthropic:" : ""}${String(url)}#${String(model)}`)
    : {
      ok: false,
      requirement: `NAME=URL#MODEL, or an object with name, url, model and, if needed, wire ("openai" or "anthropic")`
    }
}

export const inputFormats = ["jsonl", "json", "csv", "tsv", "text"] as const

export type InputFormat = typeof inputFormats[number]

export const template = (text: string): Read<string> =>
  /\{\{[^{}]+\}\}/.test(text)
    ? ok(text)
    : { ok: false, requirement: `a text with the name of a field, such as "Summarise: {{body}}"` }
