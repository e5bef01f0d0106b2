import type { DeduplicatorOptions } from "../../Deduplicator.ts"
import type { Known, OptionsReader } from "../../OptionsReader.ts"

const deduplicatorOptions: Known<DeduplicatorOptions> = {
  name: true,
  capacity: true,
  maxBytes: true,
  timeToLive: true,
  maxWaiters: true,
  maxReplay: true
}

/** Reads options. `path` is the prefix of each option: `deduplicator.` in a policy. */
export const readDeduplicator = (options: OptionsReader, input: DeduplicatorOptions, path: string) => {
  const given = options.object(path === "" ? "options" : path.slice(0, -1), input, deduplicatorOptions)
  const { capacity = 10_000, maxBytes, maxReplay = 4096, maxWaiters = 10_000 } = given
  const { name = "deduplicator", timeToLive = 0 } = given
  options.string(`${path}name`, name)
  return {
    name,
    capacity: options.integer(`${path}capacity`, capacity, 1),
    maxBytes: maxBytes === undefined
      ? Number.POSITIVE_INFINITY
      : options.integer(`${path}maxBytes`, maxBytes, 1),
    timeToLiveMillis: options.millis(`${path}timeToLive`, timeToLive, 0),
    maxWaiters: options.integer(`${path}maxWaiters`, maxWaiters, 1),
    maxReplay: options.integer(`${path}maxReplay`, maxReplay, 1)
  }
}
