/** Renders the record of a prompt as a timeline for a terminal. */
import type { Attempt, CallLog, Skipped } from "@sluice/ai/CallLog"
import * as Duration from "effect/Duration"
import type { CallRecord } from "../run/CallRecord.ts"
import * as Failure from "../run/Failure.ts"
import * as Limits from "../run/Limits.ts"
import * as Words from "../run/Words.ts"
import * as Terminal from "../Terminal.ts"
import * as Text from "../Text.ts"

/** Finds the records of prompts by id, or else by line number. */
export class Search {
  readonly name: string
  private readonly byId: Array<CallRecord> = []
  private readonly byLine: Array<CallRecord> = []

  constructor(name: string) {
    this.name = name
  }

  add(record: CallRecord): void {
    if (record.id === this.name) this.byId.push(record)
    else if (String(record.line) === this.name) this.byLine.push(record)
  }

  get found(): ReadonlyArray<CallRecord> {
    return this.byId.length > 0 ? this.byId : this.byLine
  }
}

/** Renders several records, each with that of the line whose call answered it. */
export const renderAll = (
  records: ReadonlyArray<CallRecord>,
  leaders: ReadonlyMap<string, CallRecord>,
  columns: number
): string =>
  records
    .map((record) => render(record, leaders.get(record.call ?? ""), Math.min(120, Math.max(40, columns))))
    .join("\n")

/** Renders a record. `leader` is the record of the line that made the call, if it was another. */
export const render = (record: CallRecord, leader: CallRecord | undefined, columns: number): string => {
  const source = record.calls.length === 0 ? leader ?? record : record
  const payer = source === record ? "paid" : `paid by line ${source.line}`
  const lines = [
    ...Text.wrap(headline(record), columns),
    ...Text.wrap(origin(record, leader), columns - 2).map((line) => `  ${line}`),
    ...(source.calls.length === 0 ? [] : ["", ...timeline(source, columns), "", `  ${payer}: ${paid(source.calls)}`])
  ]
  // The log may not be this program's, and its text could control a terminal.
  return lines.map((line) => `${Terminal.escape(line.trimEnd())}\n`).join("")
}

const headline = (record: CallRecord): string => {
  const { attempts, error, finish, id, milliseconds, model, sample, status, target } = record
  const line = sample === undefined ? String(record.line) : `${record.line}, sample ${sample}`
  const name = id === undefined ? `line ${line}` : `${Terminal.clip(Terminal.escape(id), 60)} (line ${line})`
  const count = Words.plural(attempts, "attempt")
  const after = attempts === 0 ? Words.time(milliseconds) : `${Words.time(milliseconds)} and ${count}`
  if (status === "failed") return `${name}: failed after ${after}: ${Terminal.escape(error ?? "unknown")}`
  const answerer = [target, model === undefined ? undefined : `(${Terminal.clip(Terminal.escape(model), 40)})`]
    .filter((word) => word !== undefined).join(" ")
  const cut = finish === "stop" ? "" : `; incomplete: ${Terminal.escape(finish ?? "unknown")}`
  return `${name}: answered by ${answerer} after ${after}${cut}`
}

const origin = ({ call, how, line }: CallRecord, leader: CallRecord | undefined): string => {
  const other = leader === undefined || leader.line === line
    ? "an equal prompt"
    : `the equal prompt on line ${leader.line}`
  switch (how) {
    case "led":
      return call === undefined ? "" : `call ${call}`
    case "joined":
      return `No call of its own: shared the call of ${other}, which was in flight.`
    case "cached":
      return `No call of its own: reused the answer to ${other}.`
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
      if (wait > 0) rows.push({ at: previous.endedAt, target: "", text: `waited ${Words.time(wait)}` })
    }
    if (leftOut > 0 && index === calls.length / 2) {
      rows.push({
        at: call.startedAt,
        target: "",
        text: `${Words.plural(leftOut, "more call is", "more calls are")} omitted`
      })
    }
    for (const step of call.steps) {
      if (step._tag === "Attempt") number++
      rows.push(step._tag === "Attempt" ? attempt(step, number) : skipped(step))
    }
    if (call.result === "Interrupted") {
      rows.push({ at: call.endedAt, target: "", text: "interrupted: the run was stopped" })
    }
    previous = call
  }
  return rows
}

const attempt = (step: Attempt, number: number): Row => {
  const { endedAt, fault, firstTokenAt, quota, skippedEvents = 0, startedAt, target, usage, waitedMillis } = step
  // Less is the overhead of starting an attempt, not a delay.
  const delay = waitedMillis >= 10 ? `, delayed by ${Words.time(waitedMillis)}` : ""
  const queued = quota === undefined
    ? ""
    : `, waited ${Words.time(quota.waitedMillis)} for ${Terminal.escape(Limits.nameOf(quota.dimension))}`
  const first = firstTokenAt === undefined ? "" : ` (first token after ${Words.time(firstTokenAt - startedAt)})`
  const took = Words.time(endedAt - startedAt)
  const skipped = skippedEvents === 0 ? "" : `; skipped ${Words.plural(skippedEvents, "unreadable event")}`
  const cost = `${skipped}${usage === undefined ? "" : `; ${tokens(usage)}`}`
  const what = fault === undefined
    ? step.next === "Done" ? `answered in ${took}${first}${cost}` : `interrupted after ${took}${first}`
    : `${faultText(fault)} after ${took}${first}${cost}; ${nextTexts[step.next]}`
  return {
    at: startedAt,
    target: Terminal.escape(target),
    text: `attempt ${number}${queued === "" ? delay : queued}: ${what}`
  }
}

const faultText = (fault: NonNullable<Attempt["fault"]>): string => {
  const { message, retryAfterMillis, type } = fault
  const wait = retryAfterMillis === undefined ? "" : `, Retry-After ${Words.time(retryAfterMillis)},`
  // Without the target, which has its own column.
  const more = message === type || /^HTTP \d+$/.test(message)
    ? ""
    : `: ${Terminal.escape(message.replace(/^[^ ]+: /, ""))},`
  const status = fault.status === undefined || fault.status < 400 ? "" : ` (HTTP ${fault.status})`
  const reason = Failure.reasonOf(fault)
  return `${reason}${reason.startsWith("HTTP") ? "" : status}${more}${wait}`
}

const nextTexts: { readonly [Next in Attempt["next"]]: string } = {
  Done: "done",
  Retry: "retries the same target",
  Fallback: "falls back to another target",
  Reask: "repeats the request, which is paid for again",
  Restart: "discards the partial output and starts over",
  Continue: "continues the partial output",
  Stop: "the call ends"
}

const skipped = ({ at, retryAfter, target, why }: Skipped): Row => {
  const when = retryAfter === undefined ? "" : `, retry in ${Words.time(Duration.toMillis(retryAfter))}`
  return { at, target: Terminal.escape(target), text: `skipped: ${skipTexts[why]}${when}` }
}

const skipTexts: { readonly [Why in Skipped["why"]]: string } = {
  CircuitOpen: "circuit open",
  RateLimited: "rate-limited",
  Busy: "all its permits are in use",
  Quota: "no room in its quota",
  Credential: "its key is refused or out of quota",
  ContextTooSmall: "the prompt is too long for its context"
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
