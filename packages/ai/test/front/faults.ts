import type * as Http from "node:http"
import type { FrontWire } from "./wires.ts"

// Every fault of a provider, at every moment of a stream.

export type Moment = "before output" | "within" | "after completion"
export const moments: ReadonlyArray<Moment> = ["before output", "within", "after completion"]

export interface Fault {
  readonly name: string
  readonly make: (response: Http.ServerResponse, wire: FrontWire, moment: Moment) => void
  /** The code of the error, if the answer is lost. */
  readonly code: string
}

export const faults: ReadonlyArray<Fault> = [
  { name: "a cut", make: (response) => response.destroy(), code: "truncated_stream" },
  { name: "a clean end", make: (response) => response.end(), code: "truncated_stream" },
  {
    name: "a cut within an event",
    make: (response, wire, moment) => {
      // After the end, the beginning of more content would say that the answer was not complete.
      const event = moment === "after completion" && wire.end !== "" ? wire.end : wire.word("never")
      response.write(event.slice(0, 30), () => setImmediate(() => response.destroy()))
    },
    code: "truncated_stream"
  },
  { name: "a stall", make: () => {}, code: "idle_timeout" },
  { name: "an error within the stream", make: (response, wire) => response.end(wire.error), code: "provider_error" },
  {
    name: "a reset",
    make: (response) => {
      response.socket?.resetAndDestroy()
    },
    code: "truncated_stream"
  },
  {
    name: "a malformed event",
    make: (response) => response.end("event: x\ndata: {\"broken\n\n"),
    code: "malformed_event"
  }
]

/** What comes before the fault. */
export const before = (wire: FrontWire, moment: Moment): string => {
  const begun = wire.head + wire.word("one ") + wire.word("two")
  return moment === "before output" ? wire.head : moment === "within" ? begun : begun + wire.finish
}

export const whole = (wire: FrontWire): string => wire.head + wire.word("fine") + wire.finish + wire.end

/** The sockets of this process that have bytes are read in each turn, however late its timers are. */
const afterTurns = (turns: number, run: () => void): void =>
  void setImmediate(() => turns === 1 ? run() : afterTurns(turns - 1, run))

/** Writes the beginning of a stream, and the fault once a reader in this process has the beginning. */
export const writeFault = (response: Http.ServerResponse, wire: FrontWire, moment: Moment, fault: Fault): void => {
  response.write(
    before(wire, moment),
    () => setTimeout(() => afterTurns(5, () => fault.make(response, wire, moment)), 5)
  )
}
