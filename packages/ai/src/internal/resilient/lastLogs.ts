import { OptionsReader } from "@sluice/core/OptionsReader"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { CallLog } from "../../CallLog.ts"

/** The same number as the buffer of a layer's `calls`. */
const defaultCapacity = 256

/** Takes the log of every call when it ends. */
export interface LogKeeper {
  add(log: CallLog): void
}

/** The last logs of the calls made within an effect. */
export class LastLogs implements LogKeeper {
  /** How many older logs were dropped. */
  dropped = 0
  private readonly capacity: number
  /** A ring buffer once `capacity` is reached. */
  private readonly logs: Array<CallLog> = []
  private oldest = 0

  constructor(capacity: number) {
    this.capacity = capacity
  }

  add(log: CallLog): void {
    if (this.logs.length < this.capacity) {
      this.logs.push(log)
      return
    }
    this.logs[this.oldest] = log
    this.oldest = (this.oldest + 1) % this.capacity
    this.dropped++
  }

  /** In the order in which they were added. */
  get all(): ReadonlyArray<CallLog> {
    return [...this.logs.slice(this.oldest), ...this.logs.slice(0, this.oldest)]
  }
}

/** A `capacity` that is not an integer from 1 is a defect. */
export const make = (capacity = defaultCapacity): Effect.Effect<LastLogs> =>
  Effect.suspend(() => {
    const options = new OptionsReader("ResilientModel")
    return Effect.orDie(options.check(new LastLogs(options.integer("capacity", capacity, 1))))
  })

/** Where the calls of an effect put their logs. */
export const CurrentLogs: Context.Reference<LogKeeper | undefined> = Context.Reference<LogKeeper | undefined>(
  "@sluice/ai/ResilientModel/CurrentLogs",
  { defaultValue: () => undefined }
)
