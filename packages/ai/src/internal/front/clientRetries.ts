import type { Exchange } from "./exchange.ts"

/** The AI SDK retries after 2 and 4 seconds. A request that comes later is probably one of a person. */
const windowMillis = 10_000

// Up to 512 KB are kept, and only until the first find.
const keptFailures = 8
const maxBodyBytes = 64 * 1024

interface Failure {
  readonly body: Uint8Array
  readonly at: number
}

/**
 * Finds a client that sends a request again although the front has used up its attempts for it. `x-should-retry: false` tells a
 * client not to, but the AI SDK and LangChain JS do not read it. Reports one client only.
 */
export class ClientRetries {
  private readonly report: (userAgent: string) => void
  private readonly failures: Array<Failure> = []
  private hasReported = false

  constructor(report: (userAgent: string) => void) {
    this.report = report
  }

  /** A request for which all attempts failed. */
  failed({ body }: Exchange, now: number): void {
    if (this.hasReported || body.length > maxBodyBytes) return
    this.failures.push({ body, at: now })
    if (this.failures.length > keptFailures) this.failures.shift()
  }

  /** A request that begins. */
  began({ body, headers }: Exchange, now: number): void {
    if (this.failures.length === 0 || isFirst(headers)) return
    const isRepeated = this.failures.some((failure) =>
      now - failure.at < windowMillis && failure.body.length === body.length && Buffer.compare(failure.body, body) === 0
    )
    if (!isRepeated) return
    this.hasReported = true
    this.failures.length = 0
    this.report(productOf(headers["user-agent"]))
  }
}

/**
 * Whether the client says that this is no retry. The official clients count, and name themselves as `OpenAI/JS 7.55.0`. LangChain JS
 * has a name of its own, and retries above a client that counts 0 each time.
 */
const isFirst = (headers: Exchange["headers"]): boolean =>
  headers["x-stainless-retry-count"] === "0" && /^\w+\/[A-Z]/.test(String(headers["user-agent"] ?? ""))

/** The first product of a `user-agent`, such as `ai/7.0.0`. */
const productOf = (userAgent: Exchange["headers"][string]): string =>
  /^[\w.@/-]{1,64}/.exec(String(userAgent ?? ""))?.[0] ?? "unknown"
