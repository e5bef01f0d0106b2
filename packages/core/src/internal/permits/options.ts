import type { BackpressureOptions, PermitOptions } from "../../Backpressure.ts"
import type { Known, OptionsReader } from "../../OptionsReader.ts"
import type { PermitRequest } from "./permits.ts"

/** Checked options. */
export interface Settings {
  readonly name: string
  readonly capacity: number
  readonly queue: number
  readonly maxWaitMillis: number | undefined
  readonly softLimit: number | undefined
  readonly softRelease: number | undefined
}

const backpressureOptions: Known<BackpressureOptions> = {
  name: true,
  capacity: true,
  queue: true,
  maxWait: true,
  softLimit: true,
  softRelease: true
}

/** Reads options. `prefix` is the path before each option: `backpressure.` in a policy. */
export const readBackpressure = (options: OptionsReader, input: BackpressureOptions, prefix = ""): Settings => {
  const given = options.object(prefix === "" ? "options" : prefix.slice(0, -1), input, backpressureOptions)
  const { capacity = 16, maxWait, name = "backpressure", queue = 0, softLimit, softRelease } = given
  options.string(`${prefix}name`, name)
  options.integer(`${prefix}capacity`, capacity, 1)
  options.integer(`${prefix}queue`, queue, 0)
  if (softLimit !== undefined && !isWithin(softLimit, 1, capacity)) {
    options.refuse(`${prefix}softLimit`, softLimit, "must be a whole number of at least 1, below `capacity`")
  }
  if (softRelease !== undefined && !isWithin(softRelease, 0, softLimit)) {
    options.refuse(`${prefix}softRelease`, softRelease, "must be a whole number of at least 0, below `softLimit`")
  }
  return {
    name,
    capacity,
    queue,
    maxWaitMillis: maxWait === undefined ? undefined : options.millis(`${prefix}maxWait`, maxWait, 0),
    softLimit,
    softRelease
  }
}

const isWithin = (actual: number, minimum: number, below: number | undefined): boolean =>
  Number.isInteger(actual) && actual >= minimum && typeof below === "number" && actual < below

const permitOptions: Known<PermitOptions> = { permits: true, maxWait: true }

/** Reads what one call requests. `maxWaitMillis` is the default of its `maxWait`. `known` has the names of other options too. */
export const readPermitOptions = (
  options: OptionsReader,
  input: PermitOptions,
  maxWaitMillis: number | undefined,
  known: Known<PermitOptions> = permitOptions
): PermitRequest => {
  const { maxWait, permits = 1 } = options.object("options", input, known)
  return {
    permits: options.integer("permits", permits, 1),
    maxWaitMillis: maxWait === undefined ? maxWaitMillis : options.millis("maxWait", maxWait, 0),
    where: undefined
  }
}
