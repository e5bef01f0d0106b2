/** Renders the progress of a run. */
import * as Terminal from "../Terminal.ts"
import type * as Lock from "./Lock.ts"
import * as Words from "./Words.ts"

export interface Status {
  readonly results: string
  readonly answered: number
  readonly failed: number
  /** Lines that were read and have no answer only because the run stopped. */
  readonly unsent: number
  readonly lock: Lock.Status
  /** Bytes of an unfinished result: a run is writing it, or was killed. */
  readonly torn: number
  /** The input, and how many lines it has. `undefined` if it is not known. */
  readonly input: { readonly path: string; readonly lines: number | undefined } | undefined
  /** Answers to each line. Default: 1. */
  readonly samples?: number | undefined
}

const labelWidth = 15

/** Renders the status. The caller prints the command that continues the run below it. */
export const render = (status: Status): string => {
  const { answered, failed, input, samples = 1, torn, unsent } = status
  const row = (label: string, text: string): string => `  ${label.padEnd(labelWidth)}${text}\n`
  const left = leftOf(status)
  const of = input === undefined || input.lines === undefined
    ? ""
    : samples === 1
    ? ` of ${Words.plural(input.lines, "line")} in ${Terminal.escape(input.path)}`
    : ` of ${Words.count(samples * input.lines)} answers to ${Words.plural(input.lines, "line")} in ${
      Terminal.escape(input.path)
    }`
  return [
    `${Terminal.escape(status.results)}: ${stateOf(status)}\n`,
    row("answered", `${Words.count(answered)}${of}`),
    row("failed", Words.count(failed)),
    row("not finished", Words.count(unsent)),
    ...(left === undefined ? [] : [row("no result yet", Words.count(left))]),
    ...(torn === 0
      ? []
      : [row("last line", isRunning(status) ? "being written" : `unfinished, ${Words.plural(torn, "byte")}`)])
  ].join("")
}

export const isRunning = ({ lock }: Status): boolean => lock._tag === "held"

/** Lines of the input without a result. `undefined` if the input is not known. */
export const leftOf = ({ answered, failed, input, samples = 1, unsent }: Status): number | undefined =>
  input?.lines === undefined ? undefined : Math.max(0, samples * input.lines - answered - failed - unsent)

/** Whether every line has an answer, as far as is known. */
export const isComplete = (status: Status): boolean =>
  status.failed === 0 && status.unsent === 0 && leftOf(status) === 0

const stateOf = (status: Status): string => {
  const { lock } = status
  switch (lock._tag) {
    case "held":
      return lock.owner === undefined
        ? "its lock cannot be read"
        : `a run writes it (process ${lock.owner.pid} on ${Terminal.escape(lock.owner.host)})`
    case "stale":
      return `its run was killed (process ${lock.owner.pid})`
    case "free":
      return isComplete(status) ? "complete" : "no run writes it"
  }
}
