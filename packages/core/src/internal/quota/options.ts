import * as Duration from "effect/Duration"
import type { Amount, Amounts, AskOptions, Dimension, QuotaOptions } from "../../Quota.ts"
import { type Known, type OptionsReader, toMillis } from "../../OptionsReader.ts"

/** A checked dimension. */
export interface CheckedDimension extends Dimension {
  /** Whether it learns from rejected calls: it has a window of time and is no budget. */
  readonly isRate: boolean
  /** The burst rate as a multiple of the limit's own rate. `undefined`: no burst limit. */
  readonly burstFactor: number | undefined
}

/** Checked options. */
export interface Settings {
  readonly name: string
  readonly limits: ReadonlyArray<CheckedDimension>
  readonly tenantLimits: ReadonlyArray<CheckedDimension>
  readonly guardMillis: number
  readonly queue: number
  readonly maxWaitMillis: number | undefined
  readonly overtake: number
  readonly oversize: "alone" | "refuse"
  readonly adapts: boolean
  readonly leaseMillis: number
  readonly processes: number
  /** `undefined`: each call asks a shared store. */
  readonly slice: { readonly share: number; readonly lifeMillis: number } | undefined
  readonly capacityOfKeys: number
}

const quotaOptions: Known<QuotaOptions> = {
  name: true,
  limits: true,
  tenantLimits: true,
  burst: true,
  guard: true,
  queue: true,
  maxWait: true,
  overtake: true,
  oversize: true,
  adapt: true,
  lease: true,
  processes: true,
  slice: true,
  capacityOfKeys: true
}

const dimensionOptions: Known<Dimension> = {
  name: true,
  limit: true,
  windowMillis: true,
  counts: true,
  whenStoreFails: true,
  perCall: true,
  start: true
}

const hourMillis = 3_600_000

/** By default a whole window is used in a sixth of its time at the earliest: a minute in ten seconds. */
const defaultBurstFactor = 6

/** Reads options. `prefix` is the path before each option: `quota.` in a policy. */
export const readQuota = (options: OptionsReader, input: QuotaOptions, prefix = ""): Settings => {
  const given = options.object(prefix === "" ? "options" : prefix.slice(0, -1), input, quotaOptions)
  const { adapt = true, burst, capacityOfKeys = 1_000, guard = 1_000, lease = 60_000, limits = [], maxWait } = given
  const { name = "quota", overtake = 0.5, oversize = "alone", processes = 1, queue = 1_000, tenantLimits = [] } = given
  const at = (option: string) => `${prefix}${option}`
  options.string(at("name"), name)
  const burstMillis = burst === undefined ? undefined : options.millis(at("burst"), burst, 0)
  if (!Array.isArray(limits) || limits.length === 0) {
    options.refuse(at("limits"), limits, "must be a list of at least one limit")
  }
  if (!Array.isArray(tenantLimits)) options.refuse(at("tenantLimits"), tenantLimits, "must be a list of limits")
  if (typeof adapt !== "boolean") options.refuse(at("adapt"), adapt, "must be true or false")
  const checkedLimits = readDimensions(options, at("limits"), limits, burstMillis)
  const checkedTenantLimits = readDimensions(options, at("tenantLimits"), tenantLimits, burstMillis)
  return {
    name,
    limits: checkedLimits,
    tenantLimits: checkedTenantLimits,
    slice: readSlice(options, at("slice"), given.slice, [...checkedLimits, ...checkedTenantLimits], processes),
    guardMillis: options.millis(at("guard"), guard, 0),
    queue: options.integer(at("queue"), queue, 0),
    maxWaitMillis: maxWait === undefined ? undefined : options.millis(at("maxWait"), maxWait, 0),
    overtake: options.number(at("overtake"), overtake, 0, 100),
    oversize: options.oneOf(at("oversize"), oversize, ["alone", "refuse"]),
    adapts: adapt,
    leaseMillis: options.millis(at("lease"), lease, 1_000),
    processes: options.integer(at("processes"), processes, 1),
    capacityOfKeys: options.integer(at("capacityOfKeys"), capacityOfKeys, 1)
  }
}

const longestLifeMillis = 600

/** A longer life saves requests, and lets a window hold less: its slices count as if they arrived at its end. */
const lifeShare = 0.01
const maxLifeShare = 0.1

const readSlice = (
  options: OptionsReader,
  path: string,
  input: QuotaOptions["slice"],
  limits: ReadonlyArray<CheckedDimension>,
  processes: number
): Settings["slice"] => {
  if (input === false) return undefined
  const { life, share = 1 / (4 * Math.max(1, processes)) } = options.object(path, input ?? {}, sliceOptions)
  const windowMillis = Math.min(...limits.flatMap((one) => one.isRate ? [one.windowMillis] : []))
  options.number(`${path}.share`, share, 0, 1)
  const lifeMillis = life === undefined
    ? Math.min(longestLifeMillis, windowMillis * lifeShare)
    : options.millis(`${path}.life`, life, 1)
  if (life !== undefined && lifeMillis > windowMillis * maxLifeShare) {
    options.refuse(`${path}.life`, life, "must be at most a tenth of the shortest window")
  }
  return windowMillis === Number.POSITIVE_INFINITY ? undefined : { share, lifeMillis }
}

const sliceOptions: Known<Exclude<QuotaOptions["slice"], false | undefined>> = { share: true, life: true }

const readDimensions = (
  options: OptionsReader,
  path: string,
  input: unknown,
  burstMillis: number | undefined
): ReadonlyArray<CheckedDimension> => {
  if (!Array.isArray(input)) return []
  const read = input.map((one: Dimension, index) => readDimension(options, `${path}[${index}]`, one, burstMillis))
  const seen = new Set<string>()
  for (const { name, windowMillis } of read) {
    const id = `${name} ${windowMillis}`
    if (seen.has(id)) options.refuse(path, name, "must not have two limits of the same name and window")
    seen.add(id)
  }
  return read
}

const readDimension = (
  options: OptionsReader,
  path: string,
  input: Dimension,
  burstMillis: number | undefined
): CheckedDimension => {
  const given = options.object(path, input, dimensionOptions)
  const {
    counts = "reservedThenActual",
    limit = Number.NaN,
    perCall = 0,
    start,
    whenStoreFails = "share",
    windowMillis = Number.NaN
  } = given
  options.nonEmptyString(`${path}.name`, given.name)
  options.integer(`${path}.limit`, limit, 1)
  options.integer(`${path}.perCall`, perCall, 0)
  options.oneOf(`${path}.counts`, counts, ["actual", "reserved", "reservedThenActual", "learned"])
  options.oneOf(`${path}.whenStoreFails`, whenStoreFails, ["share", "refuse"])
  if (start !== undefined) {
    options.integer(`${path}.start`, start, 1, limit)
    if (windowMillis !== 0) options.refuse(`${path}.start`, start, "must be absent, except for calls at once")
  }
  const isTotal = windowMillis === Number.POSITIVE_INFINITY
  const isTime = Number.isFinite(windowMillis) && windowMillis >= 1_000
  if (windowMillis !== 0 && !isTotal && !isTime) {
    options.refuse(`${path}.windowMillis`, windowMillis, "must be 0, at least 1000, or Infinity")
  }
  const isRate = isTime && whenStoreFails === "share"
  const factor = burstMillis === undefined ? defaultBurstFactor : Math.max(1, windowMillis / burstMillis)
  return {
    name: given.name ?? "",
    limit,
    windowMillis,
    counts,
    whenStoreFails,
    perCall,
    start,
    isRate,
    burstFactor: isRate && windowMillis <= hourMillis && burstMillis !== 0 ? factor : undefined
  }
}

const askOptions: Known<AskOptions> = { key: true, tenant: true, amounts: true, maxWait: true }

/** The checked options of one call. */
export interface Asked {
  readonly ask: AskOptions
  readonly maxWaitMillis: number | undefined
}

/** Reads the options of one call. */
export const readAsk = (options: OptionsReader, input: AskOptions, settings: Settings): Asked => {
  const ask = options.object("options", input, askOptions)
  const { amounts, key, maxWait, tenant } = ask
  if (key !== undefined) options.string("key", key)
  if (tenant !== undefined) options.string("tenant", tenant)
  if (amounts !== undefined) readAmounts(options, "amounts", amounts, settings)
  return { ask, maxWaitMillis: maxWait === undefined ? settings.maxWaitMillis : options.millis("maxWait", maxWait, 0) }
}

/** Checks the amounts of a call. Refuses a name without a limit: with a misspelt name the call would not be limited. */
export const readAmounts = (options: OptionsReader, path: string, amounts: Amounts, settings: Settings): void => {
  const known = new Set([...settings.limits, ...settings.tenantLimits].map(({ name }) => name))
  for (const [name, amount] of Object.entries(options.object(path, amounts))) {
    const at = `${path}.${name}`
    if (!known.has(name)) options.refuse(at, amount, `must be one of ${[...known].join(", ")}`)
    if (typeof amount === "number") options.integer(at, amount, 0)
    else if (amount === undefined) options.refuse(at, amount, "must be a number, or what is known and at most")
    else {
      const range = options.object<Exclude<Amount, number>>(at, amount, { known: true, atMost: true })
      const { atMost = Number.NaN, known: least = Number.NaN } = range
      options.integer(`${at}.known`, least, 0)
      options.integer(`${at}.atMost`, atMost, typeof least === "number" ? least : 0)
    }
  }
}

/** Reads which limit a name means, and a window if two limits have that name. */
export const readLimit = (
  options: OptionsReader,
  name: string,
  input: { readonly window?: Duration.Input | undefined } = {},
  { limits }: Settings
): CheckedDimension | undefined => {
  const { window } = options.object("options", input, { window: true })
  const named = limits.filter((limit) => limit.name === name)
  if (named.length === 0) options.refuse("dimension", name, "must be the name of one of the limits")
  const windowMillis = window === undefined ? undefined : toMillis(window)
  const found = named.filter((limit) => windowMillis === undefined || limit.windowMillis === windowMillis)
  if (named.length > 0 && found.length !== 1) {
    const windows = named.map((limit) => Duration.format(Duration.millis(limit.windowMillis)))
    options.refuse("window", window, `must be one of ${windows.join(", ")}`)
  }
  return found[0]
}
