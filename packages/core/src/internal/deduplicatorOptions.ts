import type { DeduplicatorOptions } from "../Deduplicator.ts"
import type { Options } from "./options.ts"

/** Reads a deduplicator's options into a list of issues, each option under the path that is given. */
export const checkDeduplicator = (options: Options, input: DeduplicatorOptions, path: string) => {
  const given: unknown = input
  const isObject = typeof given === "object" && given !== null
  if (!isObject) options.refuse(path === "" ? "options" : path.slice(0, -1), given, "an object")
  return checkEach(options, isObject ? input : {}, path)
}

const checkEach = (options: Options, input: DeduplicatorOptions, path: string) => {
  const { capacity = 10_000, maxReplay = 4096, maxWaiters = 10_000, name = "deduplicator", timeToLive = 0 } = input
  if (typeof name !== "string") options.refuse(`${path}name`, name, "a text")
  return {
    name,
    capacity: options.integer(`${path}capacity`, capacity, 1),
    timeToLiveMillis: options.millis(`${path}timeToLive`, timeToLive, 0),
    maxWaiters: options.integer(`${path}maxWaiters`, maxWaiters, 1),
    maxReplay: options.integer(`${path}maxReplay`, maxReplay, 1)
  }
}
