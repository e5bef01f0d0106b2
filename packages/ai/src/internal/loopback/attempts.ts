import type { IncomingHttpHeaders } from "node:http"

/** How many prompts are remembered. Beyond it the oldest are forgotten and would begin anew at attempt 1. */
const capacity = 100_000

/** Tells which attempt at its prompt a request is. */
export class Attempts {
  private readonly seen = new Map<string, number>()

  /** `stated` is what the client says itself, which wins. */
  next(digest: string, stated: number | undefined): number {
    const before = this.seen.get(digest) ?? 0
    // Inserted anew, so that the map's order is that of their last use.
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

/** Which attempt a client says that its request is: the official SDKs count retries, we count attempts. */
export const stated = (headers: IncomingHttpHeaders): number | undefined => {
  const retries = read(headers["x-stainless-retry-count"], 0)
  return retries === undefined ? read(headers["x-sluice-attempt"], 1) : retries + 1
}

const read = (header: string | ReadonlyArray<string> | undefined, minimum: number): number | undefined => {
  if (typeof header !== "string" || !/^\d{1,6}$/.test(header)) return undefined
  const number = Number(header)
  return number >= minimum ? number : undefined
}
