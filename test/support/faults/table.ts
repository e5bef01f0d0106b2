/**
 * What happens to circuits, quotas and flights when their store fails. Each cell is the title of a test on each store, and a cell of the
 * table in `docs/stores.md`.
 */

export const states = ["circuits", "quotas", "flights"] as const
export type State = (typeof states)[number]

const alone = {
  circuits: "each process uses circuits of its own, from the last known state; no opening is lost",
  quotas: "each process keeps to its part of the rates; budgets refuse; no sum is lost",
  flights: "each process makes its own call; no result is lost"
}
const lost = {
  circuits: "every circuit is closed; the next failures open it again",
  quotas: "all sums start from 0, those of budgets too",
  flights: "no result is found; the call is made again"
}

export const table = {
  refuses: { fault: "refuses connections", ...alone },
  slow: { fault: "answers 5 s late", ...alone },
  replyLost: {
    fault: "loses the reply of what it did",
    circuits: "each process uses circuits of its own; an outcome counts at most once",
    quotas: "each process keeps to its part of the rates; budgets refuse; a reservation counts at most once",
    flights: "each process makes its own call; no result is lost"
  },
  restartedEmpty: { fault: "restarts without its data", ...lost },
  flushed: { fault: "loses its data and keeps running", ...lost },
  readOnly: { fault: "is read-only", ...alone },
  clockForward: {
    fault: "has its clock set an hour forward",
    circuits: "an opening ends up to an hour early, with a probe",
    quotas: "windows end up to an hour early; budgets lose nothing",
    flights: "results expire up to an hour early; the call is made again"
  },
  clockBack: {
    fault: "has its clock set an hour back",
    circuits: "no opening lasts longer",
    quotas: "no window lasts longer; budgets lose nothing",
    flights: "results are found for up to an hour longer"
  },
  processClocks: {
    fault: "is used by processes whose clocks are an hour off",
    circuits: "openings are shared as ever: the server's clock alone counts",
    quotas: "limits are kept as ever: the server's clock alone counts",
    flights: "results are shared as ever: the server's clock alone counts"
  },
  failover: {
    fault: "fails over to a replica",
    circuits: "each process uses circuits of its own until the replica answers; what was replicated is kept",
    quotas:
      "each process keeps to its part of the rates and budgets refuse, until the replica answers; what was replicated is kept",
    flights:
      "each process makes its own call until the replica answers; a result may be lost, and the call is made again"
  }
} satisfies { readonly [fault: string]: { readonly fault: string } & { readonly [state in State]: string } }

export type Fault = keyof typeof table
export const faults = Object.keys(table) as ReadonlyArray<Fault>

/** The title of a cell's test. */
export const titleOf = (fault: Fault, state: State): string => `${state}: ${table[fault][state]}`
