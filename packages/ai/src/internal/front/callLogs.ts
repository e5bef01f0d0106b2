import type { CallLog } from "../../CallLog.ts"
import type { LogKeeper } from "../resilient/lastLogs.ts"

/** The logs of the last calls. */
export class CallLogs implements LogKeeper {
  private readonly capacity: number
  /** A ring: once it is full, the oldest is replaced. */
  private readonly logs: Array<CallLog> = []
  private next = 0

  constructor(capacity: number) {
    this.capacity = capacity
  }

  add(log: CallLog): void {
    if (this.capacity === 0) return
    this.logs[this.next] = log
    this.next = (this.next + 1) % this.capacity
  }

  /** Searches the newest first. A table of ids would cost every call, and a log is mostly asked for right after its call. */
  get(id: string): CallLog | undefined {
    const { logs, next } = this
    const isMeant = (log: CallLog) => log.id === id
    return logs.slice(0, next).findLast(isMeant) ?? logs.slice(next).findLast(isMeant)
  }
}
