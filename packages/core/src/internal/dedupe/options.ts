import type { DeduplicatorOptions } from "../../Deduplicator.ts"
import type { Known, OptionsReader } from "../../OptionsReader.ts"

const deduplicatorOptions: Known<DeduplicatorOptions> = {
  name: true,
  capacity: true,
  maxBytes: true,
  timeToLive: true,
  maxWaiters: true,
  maxReplay: true,
  shared: true,
  lease: true,
  maxResultBytes: true
}

/** Reads options. `path` is the prefix of each option: `deduplicator.` in a policy. */
export const readDeduplicator = (options: OptionsReader, input: DeduplicatorOptions, path: string) => {
  const given = options.object(path === "" ? "options" : path.slice(0, -1), input, deduplicatorOptions)
  const { capacity = 10_000, maxBytes, maxReplay = 4096, maxWaiters = 10_000 } = given
  const { name = "deduplicator", timeToLive = 0 } = given
  const { lease = "10 seconds", maxResultBytes = 2 ** 20, shared = false } = given
  options.string(`${path}name`, name)
  if (typeof shared !== "boolean") options.refuse(`${path}shared`, shared, "must be true or false")
  return {
    name,
    capacity: options.integer(`${path}capacity`, capacity, 1),
    maxBytes: maxBytes === undefined
      ? Number.POSITIVE_INFINITY
      : options.integer(`${path}maxBytes`, maxBytes, 1),
    timeToLiveMillis: options.millis(`${path}timeToLive`, timeToLive, 0),
    maxWaiters: options.integer(`${path}maxWaiters`, maxWaiters, 1),
    maxReplay: options.integer(`${path}maxReplay`, maxReplay, 1),
    shared,
    leaseMillis: Math.ceil(options.millis(`${path}lease`, lease, 1_000, 3_600_000)),
    maxResultBytes: options.integer(`${path}maxResultBytes`, maxResultBytes, 1)
  }
}
