/** What became of a flag's text: a value, or what it should have been. */
export type Read<A> =
  | { readonly ok: true; readonly value: A }
  | { readonly ok: false; readonly wanted: string }

/** One row of a command's table: it drives parsing, the messages about wrong values, and the help. */
export interface Flag<out A> {
  /** Without the dashes. */
  readonly name: string
  readonly short?: string | undefined
  /** What stands for the value in the help; a switch has none. */
  readonly argument?: string | undefined
  /** What it does, with its default and the reason for that. */
  readonly about: string
  /** Whether it may be given more than once. */
  readonly repeats?: boolean | undefined
  /** Reads what was given, in the order it was given; empty if the flag was left out. */
  readonly read: (given: ReadonlyArray<string>) => Read<A>
}

/** A command's flags, each under the name that its value has in code. */
export type Flags = { readonly [key: string]: Flag<unknown> }

/** The values of a table of flags. */
export type Values<F extends Flags> = { readonly [K in keyof F]: F[K] extends Flag<infer A> ? A : never }

interface Row {
  readonly short?: string | undefined
  readonly about: string
}

interface ValueRow<A> extends Row {
  readonly argument: string
  readonly parse: (text: string) => Read<A>
}

const ok = <A>(value: A): Read<A> => ({ ok: true, value })

/** A flag with a value, `undefined` when it is left out. */
export const optional = <A>(name: string, { parse, ...row }: ValueRow<A>): Flag<A | undefined> => ({
  name,
  ...row,
  read: ([text]): Read<A | undefined> => text === undefined ? ok(undefined) : parse(text)
})

/** A flag with a value that has a default. */
export const withDefault = <A>(name: string, fallback: A, { parse, ...row }: ValueRow<A>): Flag<A> => ({
  name,
  ...row,
  read: ([text]) => text === undefined ? ok(fallback) : parse(text)
})

/** A flag that may be given more than once. */
export const many = <A>(name: string, { parse, ...row }: ValueRow<A>): Flag<ReadonlyArray<A>> => ({
  name,
  ...row,
  repeats: true,
  read: (given) => {
    const values: Array<A> = []
    for (const text of given) {
      const read = parse(text)
      if (!read.ok) return read
      values.push(read.value)
    }
    return ok(values)
  }
})

/** A flag without a value. */
export const toggle = (name: string, row: Row): Flag<boolean> => ({
  name,
  ...row,
  read: (given) => ok(given.length > 0)
})

// ---------- values

/** Any text but none at all. */
export const text = (value: string): Read<string> =>
  value === "" ? { ok: false, wanted: "a text that is not empty" } : ok(value)

/** A whole number, in digits and nothing else. */
export const integer = (minimum: number, maximum: number) => (given: string): Read<number> => {
  const value = /^\d+$/.test(given) ? Number(given) : Number.NaN
  return value >= minimum && value <= maximum
    ? ok(value)
    : { ok: false, wanted: `a whole number from ${minimum} to ${maximum}` }
}

/** A decimal number. */
export const decimal = (minimum: number, maximum: number) => (given: string): Read<number> => {
  const value = /^\d+(?:\.\d+)?$/.test(given) ? Number(given) : Number.NaN
  return value >= minimum && value <= maximum
    ? ok(value)
    : { ok: false, wanted: `a number from ${minimum} to ${maximum}` }
}

const unitMillis = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const

const isUnit = (unit: string): unit is keyof typeof unitMillis => Object.hasOwn(unitMillis, unit)

// As long as Node's timers reach: a longer one would fire at once.
const longestMillis = 2 ** 31 - 1

/** A duration with its unit, in milliseconds. A bare number is refused: nobody knows whether it meant seconds. */
export const duration = (minimumMillis: number) => (given: string): Read<number> => {
  const [, digits = "", unit = ""] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(given) ?? []
  const millis = isUnit(unit) ? Math.round(Number(digits) * unitMillis[unit]) : Number.NaN
  if (millis >= minimumMillis && millis <= longestMillis) return ok(millis)
  const least = minimumMillis === 0 ? "" : `, at least ${minimumMillis}ms`
  return { ok: false, wanted: `a duration such as 500ms, 30s, 2m or 1h${least}` }
}

/** An absolute URL over HTTP, without a user name or a password in it. */
export const httpUrl = (given: string): Read<string> => {
  const url = URL.parse(given)
  const isHttp = url !== null && (url.protocol === "https:" || url.protocol === "http:")
  if (isHttp && url.username === "" && url.password === "") return ok(given)
  return {
    ok: false,
    wanted: isHttp
      ? "a URL without user name and password; the key comes from the environment or from --key-file"
      : "an http:// or https:// URL, such as https://api.openai.com/v1"
  }
}

/** The formats that a target may speak. */
export type Wire = "openai" | "anthropic"

/** A place where a model can be called, as a flag names it. */
export interface TargetFlag {
  readonly name: string
  readonly wire: Wire
  readonly url: string
  readonly model: string
}

const targetForm = /^([^=]*)=(anthropic:)?(\S+?)#(.*)$/s
const targetName = /^[A-Za-z][A-Za-z0-9_-]{0,31}$/

/** `NAME=URL#MODEL`, with `anthropic:` before the URL where Anthropic's format is spoken. */
export const target = (given: string): Read<TargetFlag> => {
  const [, name = "", anthropic, url = "", model = ""] = targetForm.exec(given) ?? []
  if (model.trim() === "") {
    return { ok: false, wanted: "NAME=URL#MODEL, such as main=https://api.openai.com/v1#gpt-5" }
  }
  if (!targetName.test(name)) {
    return { ok: false, wanted: "NAME=URL#MODEL, with a name of letters, digits, - and _ that begins with a letter" }
  }
  const read = httpUrl(url)
  return read.ok
    ? ok({ name, wire: anthropic === undefined ? "openai" : "anthropic", url, model: model.trim() })
    : { ok: false, wanted: `NAME=URL#MODEL with ${read.wanted}` }
}
