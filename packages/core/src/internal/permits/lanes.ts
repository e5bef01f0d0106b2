import type * as Context from "effect/Context"
import type * as Clock from "effect/Clock"
import { callAfter } from "../../Timer.ts"
import { type Linked, LinkedList } from "../kit/linkedList.ts"
import type { Request } from "./permits.ts"
import type { Ticket } from "./ticket.ts"

/** The ticket of a request in a lane. Only requests with a ticket are added. */
const ticketOf = <E>({ ticket }: Request<E>): Ticket => ticket as Ticket

/** The queued requests of one tenant. Their order is kept. */
class Row<E> implements Linked<Row<E>> {
  readonly name: string
  readonly requests = new LinkedList<Request<E>>()
  /** The size that it may still take in this round, as a share of a limit. */
  credit = 0
  /** Whether it takes turns: its own limits had room when it was asked last. */
  isActive = false
  cancelTimer: (() => void) | undefined = undefined
  previous: Row<E> | undefined = undefined
  next: Row<E> | undefined = undefined

  constructor(name: string) {
    this.name = name
  }
}

/** The queued requests of one key. */
class Lane<E> implements Linked<Lane<E>> {
  readonly key: string
  readonly rows = new Map<string, Row<E>>()
  /** Rows whose own limits have room, in the order of their turns. */
  readonly active = new LinkedList<Row<E>>()
  /** Whether it is asked when a permit is free. Otherwise it waits for room. */
  isReady = false
  wakesAt = Number.POSITIVE_INFINITY
  cancelTimer: (() => void) | undefined = undefined
  /** The size of the largest request so far, which a row may take in a round. */
  round = 0
  /** The request that others passed, and the sum of their sizes. */
  head: Request<E> | undefined = undefined
  passed = 0
  previous: Lane<E> | undefined = undefined
  next: Lane<E> | undefined = undefined

  constructor(key: string) {
    this.key = key
  }
}

/** The operations of the permits that the lanes use. */
export interface LanesHost<E> {
  readonly clock: Clock.Clock
  readonly context: Context.Context<never>
  hasPermit(request: Request<E>): boolean
  grant(request: Request<E>): void
  /** Refuses a request for which there will never be room. */
  refuse(request: Request<E>): void
  /** Called when a timer fired or an amount was given back: serves the lanes. */
  wake(): void
}

// How many requests behind a large one are considered for passing it.
const maxPassers = 16

/** Sizes are shares, so sums of them are not exact. */
const tolerance = 1e-9

/**
 * The queue of requests that need a quota: a lane for each key, and in it a row for each tenant. Lanes take turns for permits, rows
 * take turns by the size of their requests (deficit round robin). Only heads are asked, so the cost of a request does not grow with
 * the queue. A lane without room is asked again when its head may fit, or when an amount is given back.
 */
export class Lanes<E> {
  size = 0
  private readonly host: LanesHost<E>
  private readonly lanes = new Map<string, Lane<E>>()
  private readonly ready = new LinkedList<Lane<E>>()

  constructor(host: LanesHost<E>) {
    this.host = host
  }

  /** Whether a request has to queue behind others: rows with turns in its lane, or its own row. */
  hasQueue(ticket: Ticket): boolean {
    const lane = this.size === 0 ? undefined : this.lanes.get(ticket.lane)
    return lane !== undefined && (lane.active.size > 0 || lane.rows.has(ticket.row))
  }

  add(request: Request<E>, where: "Head" | "Tail"): void {
    const ticket = ticketOf(request)
    let lane = this.lanes.get(ticket.lane)
    if (lane === undefined) this.lanes.set(ticket.lane, lane = new Lane(ticket.lane))
    let row = lane.rows.get(ticket.row)
    if (row === undefined) {
      lane.rows.set(ticket.row, row = new Row(ticket.row))
      this.activate(lane, row)
    }
    if (where === "Head") row.requests.prepend(request)
    else row.requests.append(request)
    this.size++
    lane.round = Math.max(lane.round, ticket.size)
    ticket.queued()
    const isHead = row.requests.first === request
    // The row waits for the room that its last head needs.
    if (isHead && !row.isActive) this.activate(lane, row)
    // It is a new head, or small enough to pass the head.
    if (isHead || ticket.size <= this.allowance(lane)) this.makeReady(lane)
  }

  remove(request: Request<E>): void {
    const ticket = ticketOf(request)
    const lane = this.lanes.get(ticket.lane)
    const row = lane?.rows.get(ticket.row)
    if (lane === undefined || row === undefined) return
    const wasHead = row.requests.first === request
    row.requests.remove(request)
    this.size--
    ticket.left()
    if (lane.head === request) lane.head = undefined
    if (row.requests.first === undefined) this.removeRow(lane, row)
    else if (wasHead) {
      if (!row.isActive) this.activate(lane, row)
      this.makeReady(lane)
    }
  }

  /** Asks the heads of the lane and of the row again, after an amount was given back or a limit rose. */
  hasRoom(key: string, rowName: string): void {
    const lane = this.size === 0 ? undefined : this.lanes.get(key)
    if (lane === undefined) return
    const row = lane.rows.get(rowName)
    if (row !== undefined && !row.isActive) this.activate(lane, row)
    this.makeReady(lane)
    this.host.wake()
  }

  /** Grants requests that fit, while permits are free. */
  serve(): void {
    for (let lane = this.ready.first; lane !== undefined; lane = this.ready.first) {
      if (!this.serveOne(lane)) return
    }
  }

  *requests(): Generator<Request<E>> {
    for (const lane of this.lanes.values()) {
      for (const row of lane.rows.values()) {
        let request = row.requests.first
        while (request !== undefined) {
          // A request that is refused here leaves its row.
          const next = request.next
          yield request
          request = next
        }
      }
    }
  }

  /** Asks the next row of the lane. `false` if no permit is free. */
  private serveOne(lane: Lane<E>): boolean {
    const row = lane.active.first
    const head = row?.requests.first
    if (row === undefined || head === undefined) {
      this.block(lane, Number.POSITIVE_INFINITY)
      return true
    }
    if (!this.host.hasPermit(head)) return false
    if (row.credit < ticketOf(head).size && lane.active.size > 1) {
      row.credit += Math.max(lane.round, ticketOf(head).size)
      if (row.credit < ticketOf(head).size) return true
    }
    const wait = ticketOf(head).tryTake()
    if (wait === 0) this.grant(lane, row, head)
    else if (wait < 0) this.host.refuse(head)
    else if (ticketOf(head).isRowBlocked) this.blockRow(lane, row, wait)
    else {
      const passersWait = this.pass(lane, row, head)
      if (passersWait > 0) this.block(lane, Math.min(wait, passersWait))
    }
    return true
  }

  private grant(lane: Lane<E>, row: Row<E>, request: Request<E>): void {
    row.credit = Math.max(0, row.credit - ticketOf(request).size)
    if (lane.head === request) lane.head = undefined
    if (lane.active.size > 1) {
      const next = request.next
      if (next === undefined || row.credit < ticketOf(next).size) lane.active.moveToLast(row)
      this.ready.moveToLast(lane)
    } else if (this.ready.size > 1) this.ready.moveToLast(lane)
    this.host.grant(request)
  }

  /** The size that others may still take while the head waits. */
  private allowance(lane: Lane<E>): number {
    const head = lane.active.first?.requests.first
    if (head === undefined) return 0
    return ticketOf(head).size * ticketOf(head).overtake - (lane.head === head ? lane.passed : 0) + tolerance
  }

  /**
   * Grants a request that is small enough to pass the head of its row. Returns 0 if the lane is to be asked again now, otherwise
   * the milliseconds until the first of those requests may fit.
   */
  private pass(lane: Lane<E>, row: Row<E>, head: Request<E>): number {
    if (lane.head !== head) {
      lane.head = head
      lane.passed = 0
    }
    const allowed = this.allowance(lane)
    let soonest = Number.POSITIVE_INFINITY
    let next = head.next
    for (let looks = 0; next !== undefined && looks < maxPassers; looks++) {
      const ticket = ticketOf(next)
      const wait = ticket.size <= allowed ? ticket.tryTake() : -1
      if (wait === 0) {
        lane.passed += ticket.size
        this.host.grant(next)
        return 0
      }
      if (wait > 0) soonest = Math.min(soonest, wait)
      next = next.next
    }
    return row.requests.first === head ? soonest : 0
  }

  private makeReady(lane: Lane<E>): void {
    if (lane.isReady) return
    lane.isReady = true
    this.ready.append(lane)
  }

  private block(lane: Lane<E>, waitMillis: number): void {
    if (lane.isReady) this.ready.remove(lane)
    lane.isReady = false
    const wakesAt = this.host.clock.currentTimeMillisUnsafe() + waitMillis
    // An earlier timer is kept: it asks the head and is set again. Most settlements do not change the wait of the head.
    if (waitMillis === Number.POSITIVE_INFINITY || lane.wakesAt <= wakesAt) return
    lane.cancelTimer?.()
    lane.wakesAt = wakesAt
    lane.cancelTimer = callAfter(this.host.context, waitMillis, () => {
      lane.cancelTimer = undefined
      lane.wakesAt = Number.POSITIVE_INFINITY
      if (lane.active.size > 0) this.makeReady(lane)
      this.host.wake()
    })
  }

  private activate(lane: Lane<E>, row: Row<E>): void {
    row.cancelTimer?.()
    row.cancelTimer = undefined
    row.isActive = true
    lane.active.append(row)
  }

  private blockRow(lane: Lane<E>, row: Row<E>, waitMillis: number): void {
    lane.active.remove(row)
    row.isActive = false
    if (waitMillis === Number.POSITIVE_INFINITY) return
    row.cancelTimer = callAfter(this.host.context, waitMillis, () => {
      if (row.isActive) return
      this.activate(lane, row)
      this.makeReady(lane)
      this.host.wake()
    })
  }

  private removeRow(lane: Lane<E>, row: Row<E>): void {
    row.cancelTimer?.()
    row.cancelTimer = undefined
    if (row.isActive) lane.active.remove(row)
    lane.rows.delete(row.name)
    if (lane.rows.size > 0) return
    lane.cancelTimer?.()
    if (lane.isReady) this.ready.remove(lane)
    lane.isReady = false
    this.lanes.delete(lane.key)
  }
}
