import type { IncomingHttpHeaders } from "node:http"

/** How many prompts are counted. Beyond it the least recent are evicted, and start again at attempt 1. */
const capacity = 100_000

/** Counts the attempts at each prompt. */
export class Attempts {
  private readonly seen = new Map<string, number>()

  /** Returns the attempt of a request. `stated`: the number that the client sent, which takes precedence. */
  next(digest: string, stated: number | undefined): number {
    const before = this.seen.get(digest) ?? 0
    // Inserted again, so that the map is in the order of last use.
    this.seen.delete(digest)
    this.seen.set(digest, before + 1)
    if (this.seen.size > capacity) {
      for (const oldest of this.seen.keys()) {
        this.seen.delete(oldest)
        break
      }
    }
    return stated ?? before + 1
  }

  clear(): void {
    this.seen.clear()
  }
}

/** The attempt number that a client sent. The official SDKs send the number of retries, Sluice that of attempts. */
export const stated = (headers: IncomingHttpHeaders): number | undefined => {
  const retries = read(headers["x-stainless-retry-count"], 0)
  return retries === undefined ? read(headers["x-sluice-attempt"], 1) : retries + 1
}

const read = (header: string | ReadonlyArray<string> | undefined, minimum: number): number | undefined => {
  if (typeof header !== "string" || !/^\d{1,6}$/.test(header)) return undefined
  const number = Number(header)
  return number >= minimum ? number : undefined
}
