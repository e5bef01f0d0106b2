/** What was decided for one prompt, as a timeline for a terminal. */
import type { Attempt, CallLog, Skipped } from "@sluice/ai/CallLog"
import * as Duration from "effect/Duration"
import type { CallRecord } from "../run/CallRecord.ts"
import * as Failure from "../run/Failure.ts"
import * as Words from "../run/Words.ts"
import * as Terminal from "../Terminal.ts"
import * as Text from "../Text.ts"

/** The records that were asked for: of the prompts with this id, or, if there are none, of the line with this number. */
export class Wanted {
  readonly name: string
  private readonly named: Array<CallRecord> = []
  private readonly numbered: Array<CallRecord> = []

  constructor(name: string) {
    this.name = name
  }

  add(record: CallRecord): void {
    if (record.id === this.name) this.named.push(record)
    else if (String(record.line) === this.name) this.numbered.push(record)
  }

  get found(): ReadonlyArray<CallRecord> {
    return this.named.length > 0 ? this.named : this.numbered
  }
}

/** All of these, one below the other, each with the record of the line whose call answered it. */
export const renderAll = (
  records: ReadonlyArray<CallRecord>,
  leaders: ReadonlyMap<string, CallRecord>,
  columns: number
): string =>
  records
    .map((record) => render(record, leaders.get(record.call ?? ""), Math.min(120, Math.max(40, columns))))
    .join("\n")

/**
 * The timeline. `leader` is the record of the line that made the call, if it was another one.
 */
export const render = (record: CallRecord, leader: CallRecord | undefined, columns: number): string => {
  const told = record.calls.length === 0 ? leader ?? record : record
  const payer = told === record ? "paid" : `paid by line ${told.line}`
  const lines = [
    ...Text.wrap(headline(record), columns),
    ...Text.wrap(origin(record, leader), columns - 2).map((line) => `  ${line}`),
    ...(told.calls.length === 0 ? [] : ["", ...timeline(told, columns), "", `  ${payer}: ${paid(told.calls)}`])
  ]
  return lines.map((line) => `${line.trimEnd()}\n`).join("")
}

const headline = (record: CallRecord): string => {
  const { attempts, error, finish, id, line, milliseconds, model, status, target } = record
  const name = id === undefined ? `line ${line}` : `${Terminal.clip(Terminal.escape(id), 60)} (line ${line})`
  const tries = attempts === 1 ? "1 try" : `${attempts} tries`
  const after = attempts === 0 ? Words.time(milliseconds) : `${Words.time(milliseconds)} and ${tries}`
  if (status === "failed") return `${name}: failed after ${after}: ${Terminal.escape(error ?? "unknown")}`
  const who = [target, model === undefined ? undefined : `(${Terminal.clip(Terminal.escape(model), 40)})`]
    .filter((word) => word !== undefined).join(" ")
  const cut = finish === "stop" ? "" : `; the answer is not whole: ${Terminal.escape(finish ?? "unknown")}`
  return `${name}: answered by ${who} after ${after}${cut}`
}

const origin = ({ call, how, line }: CallRecord, leader: CallRecord | undefined): string => {
  const other = leader === undefined || leader.line === line
    ? "an equal prompt"
    : `the equal prompt on line ${leader.line}`
  switch (how) {
    case "led":
      return call === undefined ? "" : `call ${call}`
    case "joined":
      return `It made no call of its own: it waited with ${other}, whose call ran.`
    case "cached":
      return `It made no call of its own: ${other} had been answered.`
  }
}

// ---------- the timeline

interface Row {
  readonly at: number
  readonly target: string
  readonly text: string
}

const timeline = (record: CallRecord, columns: number): ReadonlyArray<string> => {
  const rows = rowsOf(record)
  const targetWidth = Math.min(20, Math.max(...rows.map(({ target }) => Terminal.width(target))))
  const indent = timeWidth + 2 + targetWidth + 2
  return rows.flatMap(({ at, target, text }) => {
    const time = `+${Words.time(at - record.startedAt)}`.padStart(timeWidth)
    const head = `${time}  ${pad(Terminal.clip(target, targetWidth), targetWidth)}  `
    return Text.wrap(text, Math.max(20, columns - indent)).map((line, index) =>
      (index === 0 ? head : " ".repeat(indent)) + line
    )
  })
}

const timeWidth = 9

const pad = (text: string, columns: number): string => text + " ".repeat(Math.max(0, columns - Terminal.width(text)))

const rowsOf = ({ calls, leftOut }: CallRecord): ReadonlyArray<Row> => {
  const rows: Array<Row> = []
  let number = 0
  let previous: CallLog | undefined
  for (const [index, call] of calls.entries()) {
    if (previous !== undefined) {
      const wait = call.startedAt - previous.endedAt
      if (wait > 0) rows.push({ at: previous.endedAt, target: "", text: `waited for ${Words.time(wait)}` })
    }
    if (leftOut > 0 && index === calls.length / 2) {
      rows.push({ at: call.startedAt, target: "", text: `${Words.count(leftOut)} more rounds like these are left out` })
    }
    for (const step of call.steps) {
      if (step._tag === "Attempt") number++
      rows.push(step._tag === "Attempt" ? attempt(step, number) : skipped(step))
    }
    if (call.result === "Interrupted") {
      rows.push({ at: call.endedAt, target: "", text: "broken off: the run was stopped" })
    }
    previous = call
  }
  return rows
}

const attempt = (step: Attempt, number: number): Row => {
  const { endedAt, fault, firstTokenAt, startedAt, target, usage, waitedMillis } = step
  // A shorter one is the time that it takes to begin.
  const waited = waitedMillis >= 10 ? `, after a wait of ${Words.time(waitedMillis)}` : ""
  const first = firstTokenAt === undefined ? "" : ` (first token after ${Words.time(firstTokenAt - startedAt)})`
  const took = Words.time(endedAt - startedAt)
  const cost = usage === undefined ? "" : `; ${tokens(usage)}`
  const what = fault === undefined
    ? step.next === "Done" ? `answered in ${took}${first}${cost}` : `broken off after ${took}${first}`
    : `${said(fault)} after ${took}${first}${cost}; ${followed[step.next]}`
  return { at: startedAt, target: Terminal.escape(target), text: `try ${number}${waited}: ${what}` }
}

const said = (fault: NonNullable<Attempt["fault"]>): string => {
  const { message, retryAfterMillis, type } = fault
  const wait = retryAfterMillis === undefined ? "" : `, wants to be left alone for ${Words.time(retryAfterMillis)},`
  // The target stands at the left already.
  const more = message === type || /^HTTP \d+$/.test(message)
    ? ""
    : `: ${Terminal.escape(message.replace(/^[^ ]+: /, ""))},`
  const status = fault.status === undefined || fault.status < 400 ? "" : ` (HTTP ${fault.status})`
  const reason = Failure.reasonOf(fault)
  return `${reason}${reason.startsWith("HTTP") ? "" : status}${more}${wait}`
}

const followed: { readonly [Next in Attempt["next"]]: string } = {
  Done: "done",
  Retry: "the same target is asked again",
  Fallback: "another target is asked",
  Reask: "it is asked once more, at its price",
  Restart: "what had come is thrown away, and the answer begins anew",
  Stop: "the call ends"
}

const skipped = ({ at, retryAfter, target, why }: Skipped): Row => {
  const when = retryAfter === undefined ? "" : `, for ${Words.time(Duration.toMillis(retryAfter))}`
  return { at, target: Terminal.escape(target), text: `passed over: ${because[why]}${when}` }
}

const because: { readonly [Why in Skipped["why"]]: string } = {
  CircuitOpen: "its circuit is open",
  RateLimited: "it asked to be left alone",
  Busy: "as many calls as may are running there",
  Credential: "it refuses the key, or the key's quota is used up",
  ContextTooSmall: "the prompt is too long for it"
}

const paid = (calls: CallRecord["calls"]): string => {
  const sum = { inputTokens: 0, outputTokens: 0, estimated: false }
  for (const { usage } of calls) {
    sum.inputTokens += usage.inputTokens
    sum.outputTokens += usage.outputTokens
    sum.estimated ||= usage.estimated
  }
  return tokens(sum)
}

const tokens = ({ estimated, inputTokens, outputTokens }: CallLog["usage"]): string =>
  `${estimated ? "about " : ""}${Words.count(inputTokens)} tokens in, ${Words.count(outputTokens)} out`
