/** Values of the flags of `sluice serve` and `sluice keys`. */
import type { Fields, Read, Wire } from "./Flag.ts"
import * as Flag from "./Flag.ts"
import * as Nearest from "./Nearest.ts"
import * as Terminal from "./Terminal.ts"

/** A target as the flag or `sluice.json` gives it. */
export interface Target {
  readonly name: string
  readonly wire: Wire
  readonly url: string
  /** `undefined`: the model that a client asks for. */
  readonly model?: string | undefined
  /** Its own names for models that clients ask for. It gets requests for these models only, if it has some. */
  readonly models?: { readonly [asked: string]: string } | undefined
  /** The variable that has its key. Default: as for `sluice run`. */
  readonly keyEnv?: string | undefined
  readonly order?: number | undefined
  readonly weight?: number | undefined
  /** Whether it continues an answer that broke off. */
  readonly prefill?: boolean | undefined
}

/** Where requests for a model go. */
export interface Route {
  /** A name, or the beginning of names if it ends in `*`. */
  readonly asked: string
  readonly targets: ReadonlyArray<string>
  /** The same targets, with the weights of those that share the calls. */
  readonly steps: ReadonlyArray<Step>
}

/** A target, or targets that share the calls by these weights. */
export type Step = string | { readonly [target: string]: number }

const ok = <A>(value: A): Read<A> => ({ ok: true, value })
const no = (requirement: string) => ({ ok: false, requirement }) as const

const isRecord = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const isText = (value: unknown): value is string => typeof value === "string" && value.trim() !== ""

const isWeight = (value: unknown): value is number => typeof value === "number" && value > 0 && value <= 1e6

const keyForm = /^\$\{([A-Za-z_]\w*)\}$/

const targetForm = "NAME=URL#MODEL, NAME=URL, or an object with name and url"

/** The fields of a target in `sluice.json`, and what each must be. */
const targetFields: { readonly [field: string]: (value: unknown) => string | undefined } = {
  name: (value) => isText(value) ? undefined : "a text",
  url: (value) => isText(value) ? undefined : "a text",
  wire: (value) => value === "openai" || value === "anthropic" ? undefined : `"openai" or "anthropic"`,
  model: (value) => isText(value) ? undefined : "a text",
  models: (value) =>
    isRecord(value) && Object.values(value).every(isText)
      ? undefined
      : `an object from the names that clients use to its own, such as {"small": "gpt-5-mini"}`,
  key: (value) =>
    typeof value === "string" && keyForm.test(value)
      ? undefined
      : "the variable that has it, as ${NAME}; a key does not belong in this file",
  prefill: (value) => typeof value === "boolean" ? undefined : "true or false",
  order: (value) => Number.isSafeInteger(value) && Number(value) >= 0 ? undefined : "a whole number from 0",
  weight: (value) => isWeight(value) ? undefined : "a number above 0, at most 1000000"
}

/** Writes a target given as an object as JSON, which `target` reads. */
export const targetFromObject = (fields: Fields): Read<string> => {
  for (const [field, value] of Object.entries(fields)) {
    const check = Object.hasOwn(targetFields, field) ? targetFields[field] : undefined
    if (check === undefined) {
      const nearest = Nearest.find(field, Object.keys(targetFields))
      const shown = Terminal.clip(Terminal.escape(field), 40)
      return no(`without the unknown key ${shown}${nearest === undefined ? "" : `; did you mean ${nearest}?`}`)
    }
    const requirement = check(value)
    if (requirement !== undefined) return no(`a target whose ${field} is ${requirement}`)
  }
  if (!("name" in fields) || !("url" in fields)) return no(targetForm)
  // The name of the variable, so that the key is in no text.
  const { key, ...others } = fields
  return ok(JSON.stringify({ ...others, keyEnv: keyForm.exec(String(key))?.[1] }))
}

/** Reads `NAME=URL#MODEL`, `NAME=URL`, or an object as JSON. */
export const target = (text: string): Read<Target> => {
  if (text.startsWith("{")) return targetOfJson(text)
  // A URL without a model gets one for the check of the rest.
  const read = Flag.target(text.includes("#") ? text : `${text}#any`)
  if (!read.ok) return no(read.requirement.replace("NAME=URL#MODEL", "NAME=URL#MODEL or NAME=URL"))
  return ok(text.includes("#") ? read.value : { ...read.value, model: undefined })
}

/** Reads JSON. `undefined`: it is no object. */
const objectOf = (text: string): Fields | undefined => {
  try {
    const value: unknown = JSON.parse(text)
    return isRecord(value) ? value : undefined
  } catch {
    return undefined
  }
}

const targetOfJson = (text: string): Read<Target> => {
  const fields = objectOf(text)
  if (fields === undefined) return no(targetForm)
  const { keyEnv, model, models, name, order, prefill, url, weight, wire = "openai" } = fields
  const read = target(`${String(name)}=${wire === "anthropic" ? "anthropic:" : ""}${String(url)}`)
  if (!read.ok) return read
  return ok({
    ...read.value,
    model: isText(model) ? model.trim() : undefined,
    models: isRecord(models) ? textsOf(models) : undefined,
    keyEnv: isText(keyEnv) ? keyEnv : undefined,
    order: typeof order === "number" ? order : undefined,
    weight: typeof weight === "number" ? weight : undefined,
    prefill: prefill === true
  })
}

const textsOf = (fields: Fields): { readonly [name: string]: string } =>
  Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, String(value)]))

const routeForm = "ASKED=NAME,NAME, such as gpt-5*=main,backup, with a * only at the end of ASKED"

const isPattern = (text: string): boolean => /^[^\s*]*\*?$/.test(text) && text !== ""

const routesForm =
  `an object from models to lists of targets, such as {"gpt-5*": ["main", "backup"]}, or with weights ` +
  `{"gpt-5*": [{"main": 1, "azure": 3}, "backup"]}, with a * only at the end of a model`

const stepOf = (value: unknown): Step | undefined => {
  if (isText(value)) return value
  if (!isRecord(value)) return undefined
  const shares = Object.entries(value).flatMap(([name, weight]) => isWeight(weight) ? [[name, weight] as const] : [])
  return shares.length === 0 || shares.length < Object.keys(value).length ? undefined : Object.fromEntries(shares)
}

/** Reads the routes of `sluice.json`. `undefined`: they have another form. */
const routesOf = (fields: Fields): ReadonlyArray<Route> | undefined => {
  const routes: Array<Route> = []
  for (const [asked, list] of Object.entries(fields)) {
    const items: ReadonlyArray<unknown> = Array.isArray(list) ? list : []
    const steps = items.map(stepOf).filter((step) => step !== undefined)
    if (!isPattern(asked) || steps.length === 0 || steps.length < items.length) return undefined
    routes.push(routeOf(asked, steps))
  }
  return routes
}

const routeOf = (asked: string, steps: ReadonlyArray<Step>): Route => ({
  asked,
  targets: steps.flatMap((step) => typeof step === "string" ? [step] : Object.keys(step)),
  steps
})

/** Writes the routes of `sluice.json`, an object from models to targets, as JSON, which `routes` reads. */
export const routesFromObject = (fields: Fields): Read<string> =>
  routesOf(fields) === undefined ? no(routesForm) : ok(JSON.stringify(fields))

/** Reads `ASKED=NAME,NAME`, or an object as JSON. */
export const routes = (text: string): Read<ReadonlyArray<Route>> => {
  if (text.startsWith("{")) {
    const fields = objectOf(text)
    const routes = fields === undefined ? undefined : routesOf(fields)
    return routes === undefined ? no(routesForm) : ok(routes)
  }
  const [, asked = "", list = ""] = /^([^=]*)=(.*)$/s.exec(text) ?? []
  const targets = list.split(",").map((name) => name.trim())
  return isPattern(asked) && targets.every((name) => name !== "") ? ok([routeOf(asked, targets)]) : no(routeForm)
}

/** Reads names of models with commas between them. */
export const modelNames = (text: string): Read<ReadonlyArray<string>> => {
  const names = text.split(",").map((name) => name.trim())
  return names.every(isPattern)
    ? ok(names)
    : no("names of models, such as gpt-5-mini,claude-*, with a * only at the end")
}

/** Whether the name of a model is one of these, of which one that ends in `*` is the beginning of names. */
export const isOneOf = (patterns: ReadonlyArray<string>, model: string): boolean =>
  patterns.some((pattern) => pattern.endsWith("*") ? model.startsWith(pattern.slice(0, -1)) : model === pattern)

/** Reads the name of a host, without a port. */
export const hostName = (text: string): Read<string> =>
  /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/i.test(text)
    ? ok(text.toLowerCase())
    : no("the name of a host without a port, such as gateway.example.com")
