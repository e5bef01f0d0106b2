/** The live pages that are open, as streams of events. Each gets a snapshot, and then what changes. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { ServerResponse } from "node:http"
import type { BatchRows } from "./BatchRows.ts"
import type { Change } from "./Changes.ts"
import type { Clients } from "./Clients.ts"
import type { Live } from "./Live.ts"
import * as Refusal from "./Refusal.ts"
import type { Current } from "./Reloads.ts"

export interface Options {
  /** For what the targets log. */
  readonly context: Context.Context<never>
  readonly live: Live
  readonly clients: Pick<Clients, "levels">
  /** `undefined` without batches. */
  readonly batches?: Pick<BatchRows, "poll" | "forget" | "shown"> | undefined
  readonly current: () => {
    readonly front: Pick<Current["front"], "targets">
    readonly settings: Pick<Current["settings"], "routes" | "targets">
  }
  /** The last changes by hand of all gateways that share a store. Fails while the store does not answer. */
  readonly audit: Effect.Effect<ReadonlyArray<Change>, unknown>
  /** Those that a reload has replaced, and whose calls still run. */
  readonly replaced: () => Iterable<{ readonly front: Pick<Current["front"], "targets"> }>
}

/** `low`: what a hidden page needs for its title. */
export type Detail = "full" | "low"

const maxPages = 16
/** What a page may leave unread. It comes back, and gets a snapshot. */
const maxUnreadBytes = 2 ** 20
const tickMillis = 250
/** Every so many ticks the targets, keys and batches are sent. */
const ticksOfTargets = 4
const ticksOfLow = 8
const ticksOfAudit = 8

const tooMany: Refusal.Refusal = {
  status: 503,
  code: "too_many_pages",
  message: `${maxPages} live pages are open. Close one.`
}

const stopping: Refusal.Refusal = { status: 503, code: "draining", message: "The gateway is stopping." }

export class Pages {
  private readonly options: Options
  private readonly pages = new Map<ServerResponse, Detail>()
  private timer: NodeJS.Timeout | undefined
  private ticks = 0
  /** The number of the last delta, so that a page notices if it missed one. */
  private seq = 0
  private isClosed = false
  private isReadingAudit = false

  private constructor(options: Options) {
    this.options = options
  }

  /** Follows the gateway until it is closed. */
  static open(options: Options): Pages {
    const pages = new Pages(options)
    void pages.sample()
    void pages.readAudit()
    pages.timer = setInterval(() => pages.tick(), tickMillis).unref()
    return pages
  }

  /** Adds a page. */
  add(response: ServerResponse, path: string, detail: Detail): void {
    if (this.isClosed || this.pages.size >= maxPages) {
      return Refusal.send(response, path, this.isClosed ? stopping : tooMany)
    }
    // The snapshot has everything that other pages have not received yet.
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
    this.pages.set(response, detail)
    const { batches, clients, current, live } = this.options
    if (detail === "low") return void response.write(eventOf("low", live.brief(now)))
    const { routes } = current().settings
    response.write(
      eventOf("snapshot", {
        seq: this.seq,
        ...live.snapshot(now),
        routes: Object.fromEntries(routes.map(({ asked, targets }) => [asked, targets])),
        keys: live.keys(clients.levels),
        ...(batches !== undefined && { batches: batches.shown })
      })
    )
    void this.askBatches()
  }

  /** Tells the pages that the gateway stops, and takes no more. */
  close(): void {
    clearInterval(this.timer)
    this.isClosed = true
    for (const detail of ["full", "low"] as const) this.send("bye", { why: "draining" }, detail)
    for (const page of this.pages.keys()) page.end()
  }

  /** Reads the state of the targets, and sends it. */
  async sample(): Promise<void> {
    const { context, current, live, replaced } = this.options
    const { front, settings } = current()
    const fronts = [front, ...Array.from(replaced(), ({ front }) => front)]
    const [states = [], ...others] = await Effect.runPromiseWith(context)(
      Effect.forEach(fronts, ({ targets }) => targets)
    )
    if (this.isClosed) return
    const now = Date.now()
    live.sampled(states, others.flat(), settings.targets, now)
    if (this.pages.size > 0) this.send("delta", this.delta(now, true))
  }

  /** Takes over what was changed by command, or on the page of another gateway. */
  private async readAudit(): Promise<void> {
    if (this.isReadingAudit) return
    this.isReadingAudit = true
    const { audit, context, live } = this.options
    // Without an answer, the page keeps what it has.
    const changes = await Effect.runPromiseWith(context)(Effect.catchCause(audit, () => Effect.succeed([])))
    for (const change of changes.toReversed()) live.changed(change)
    this.isReadingAudit = false
  }

  private tick(): void {
    this.ticks++
    if (this.ticks % ticksOfLow === 0) this.send("low", this.options.live.brief(Date.now()), "low")
    if (this.ticks % ticksOfAudit === 0) void this.readAudit()
    if (this.ticks % ticksOfTargets === 0) {
      void this.askBatches()
      void this.sample()
    } else if (this.pages.size > 0) this.send("delta", this.delta(Date.now(), false))
  }

  /** Only for a page that shows them. */
  async askBatches(): Promise<void> {
    const { batches } = this.options
    if (new Set(this.pages.values()).has("full")) await batches?.poll(Date.now())
    else batches?.forget()
  }

  private delta(now: number, withTargets: boolean) {
    const { batches, clients, live } = this.options
    const rows = withTargets
      ? { keys: live.keys(clients.levels), ...(batches !== undefined && { batches: batches.shown }) }
      : {}
    return { seq: ++this.seq, ...live.delta(now, withTargets), ...rows }
  }

  private send(event: string, data: object, detail: Detail = "full"): void {
    if (this.pages.size === 0) return
    const text = eventOf(event, data)
    for (const [page, wanted] of this.pages) {
      if (wanted !== detail) continue
      if (page.writableLength > maxUnreadBytes) page.destroy()
      else page.write(text)
    }
  }
}

const eventOf = (event: string, data: object): string => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`
