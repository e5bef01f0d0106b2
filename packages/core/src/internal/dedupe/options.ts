import type { DeduplicatorOptions } from "../../Deduplicator.ts"
import type { OptionsReader } from "../../OptionsReader.ts"

/** Reads options. `path` is the prefix of each option: `deduplicator.` in a policy. */
export const readDeduplicator = (options: OptionsReader, input: DeduplicatorOptions, path: string) => {
  const given = options.object(path === "" ? "options" : path.slice(0, -1), input)
  const { capacity = 10_000, maxReplay = 4096, maxWaiters = 10_000, name = "deduplicator", timeToLive = 0 } = given
  options.string(`${path}name`, name)
  return {
    name,
    capacity: options.integer(`${path}capacity`, capacity, 1),
    timeToLiveMillis: options.millis(`${path}timeToLive`, timeToLive, 0),
    maxWaiters: options.integer(`${path}maxWaiters`, maxWaiters, 1),
    maxReplay: options.integer(`${path}maxReplay`, maxReplay, 1)
  }
}
