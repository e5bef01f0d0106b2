/** The live pages that are open, as streams of events. Each gets a snapshot, and then what changes. */
import * as Effect from "effect/Effect"
import type { ServerResponse } from "node:http"
import type { Clients } from "./Clients.ts"
import type { Live } from "./Live.ts"
import * as Refusal from "./Refusal.ts"
import type { Current } from "./Reloads.ts"

export interface Options {
  readonly live: Live
  readonly clients: Pick<Clients, "levels">
  readonly current: () => {
    readonly front: Pick<Current["front"], "targets">
    readonly settings: Pick<Current["settings"], "routes" | "targets">
  }
}

const maxPages = 16
/** What a page may leave unread. It comes back, and gets a snapshot. */
const maxUnreadBytes = 2 ** 20
const tickMillis = 250
/** Every so many ticks the targets and keys are sent. */
const ticksOfTargets = 4

const tooMany: Refusal.Refusal = {
  status: 503,
  code: "too_many_pages",
  message: `${maxPages} live pages are open. Close one.`
}

const stopping: Refusal.Refusal = { status: 503, code: "draining", message: "The gateway is stopping." }

export class Pages {
  private readonly options: Options
  private readonly pages = new Set<ServerResponse>()
  private timer: NodeJS.Timeout | undefined
  private ticks = 0
  private isClosed = false

  private constructor(options: Options) {
    this.options = options
  }

  /** Follows the gateway until it is closed. */
  static open(options: Options): Pages {
    const pages = new Pages(options)
    void pages.sample()
    pages.timer = setInterval(() => pages.tick(), tickMillis).unref()
    return pages
  }

  /** Adds a page. */
  add(response: ServerResponse, path: string): void {
    if (this.isClosed || this.pages.size >= maxPages) {
      return Refusal.send(response, path, this.isClosed ? stopping : tooMany)
    }
    // What the others have not got yet is in the snapshot.
    const now = Date.now()
    this.send("delta", this.delta(now, false))
    response.writeHead(200, {
      "content-type": "text/event-stream",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
      "x-content-type-options": "nosniff"
    })
    response.write("retry: 1000\n\n")
    response.once("close", () => this.pages.delete(response))
    const { clients, current, live } = this.options
    const { routes } = current().settings
    response.write(
      eventOf("snapshot", {
        ...live.snapshot(now),
        routes: Object.fromEntries(routes.map(({ asked, targets }) => [asked, targets])),
        keys: live.keys(clients.levels)
      })
    )
    this.pages.add(response)
  }

  /** Tells the pages that the gateway stops, and takes no more. */
  close(): void {
    clearInterval(this.timer)
    this.isClosed = true
    this.send("bye", { why: "draining" })
    for (const page of this.pages) page.end()
  }

  /** Reads the state of the targets, and sends it. */
  async sample(): Promise<void> {
    const { front, settings } = this.options.current()
    const states = await Effect.runPromise(front.targets)
    if (this.isClosed) return
    const now = Date.now()
    this.options.live.sampled(states, settings.targets, now)
    if (this.pages.size > 0) this.send("delta", this.delta(now, true))
  }

  private tick(): void {
    this.ticks++
    if (this.ticks % ticksOfTargets === 0) void this.sample()
    else if (this.pages.size > 0) this.send("delta", this.delta(Date.now(), false))
  }

  private delta(now: number, withTargets: boolean) {
    const { clients, live } = this.options
    return { ...live.delta(now, withTargets), ...(withTargets ? { keys: live.keys(clients.levels) } : {}) }
  }

  private send(event: string, data: object): void {
    if (this.pages.size === 0) return
    const text = eventOf(event, data)
    for (const page of this.pages) {
      if (page.writableLength > maxUnreadBytes) page.destroy()
      else page.write(text)
    }
  }
}

const eventOf = (event: string, data: object): string => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`
