/**
 * What happens to circuits, quotas and flights when their store fails. Each cell is the title of a test, and a cell of a table in
 * `docs/stores.md`: of a server's faults, which are tested on Redis and Postgres, or of those of a file of SQLite.
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

/** A fault, and what it does to each state. */
export type Row = { readonly fault: string } & { readonly [state in State]: string }

const clockForward = {
  circuits: "an opening ends up to an hour early, with a probe",
  quotas: "windows end up to an hour early; budgets lose nothing",
  flights: "results expire up to an hour early; the call is made again"
}
const clockBack = {
  circuits: "no opening lasts longer",
  quotas: "no window lasts longer; budgets lose nothing",
  flights: "results are found for up to an hour longer"
}

export const servers = {
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
  clockForward: { fault: "has its clock set an hour forward", ...clockForward },
  clockBack: { fault: "has its clock set an hour back", ...clockBack },
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
} satisfies { readonly [fault: string]: Row }

const replaced = {
  circuits: "each process uses circuits of its own; then every circuit is closed",
  quotas: "each process keeps to its part of the rates; budgets refuse; then all sums start from 0",
  flights: "each process makes its own call; then no result is found"
}

export const files = {
  locked: { fault: "is locked for 5 s by another program", ...alone },
  busy: { fault: "stays locked for longer than `busyTimeout`", ...alone },
  full: { fault: "is on a disk that is full", ...alone },
  readOnlyFile: {
    fault: "is made read-only, with its folder",
    circuits: "running processes go on; one that starts uses circuits of its own",
    quotas: "running processes go on; one that starts keeps to its part of the rates; its budgets refuse",
    flights: "running processes go on; one that starts makes its own call"
  },
  deleted: { fault: "is deleted", ...replaced },
  corrupt: { fault: "is corrupt, and is replaced", ...replaced },
  flushed: { fault: "loses its rows", ...lost },
  killed: {
    fault: "is used by a process that is killed right after a commit",
    circuits: "the opening holds for the others",
    quotas: "what it reserved stays counted; no sum is lost",
    flights: "its lease ends, and the next process makes the call"
  },
  clockForward: { fault: "is on a machine whose clock is set an hour forward", ...clockForward },
  clockBack: { fault: "is on a machine whose clock is set an hour back", ...clockBack }
} satisfies { readonly [fault: string]: Row }

export type Fault = keyof typeof servers | keyof typeof files

/** The title of a cell's test. */
export const titleOf = (row: Row, state: State): string => `${state}: ${row[state]}`
