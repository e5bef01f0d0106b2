import type { CallLog } from "../../CallLog.ts"
import type { LogKeeper } from "../resilient/lastLogs.ts"

/** The logs of the last calls, by their ids. */
export class CallLogs implements LogKeeper {
  private readonly capacity: number
  private readonly logs = new Map<string, CallLog>()

  constructor(capacity: number) {
    this.capacity = capacity
  }

  add(log: CallLog): void {
    this.logs.set(log.id, log)
    if (this.logs.size <= this.capacity) return
    // A map keeps the order of insertion.
    for (const oldest of this.logs.keys()) {
      this.logs.delete(oldest)
      return
    }
  }

  get(id: string): CallLog | undefined {
    return this.logs.get(id)
  }
}
