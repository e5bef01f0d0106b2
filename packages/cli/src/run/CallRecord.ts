/** What was decided for one prompt, as it is kept: for `sluice explain`, for the report, and for the log file. */
import * as CallLog from "@sluice/ai/CallLog"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Result } from "./Result.ts"

/**
 * One prompt, when it is over. It holds no prompt, no answer, no key and no word of a provider.
 *
 * A prompt makes a call for each time that it had to wait for a provider that was down.
 */
export const CallRecord = Schema.Struct({
  line: Schema.Int,
  id: Schema.optionalKey(Schema.String),
  status: Schema.Literals(["ok", "failed"]),
  how: Schema.Literals(["led", "joined", "cached"]),
  /** Epoch milliseconds. */
  startedAt: Schema.Finite,
  milliseconds: Schema.Finite,
  attempts: Schema.Int,
  target: Schema.optionalKey(Schema.String),
  model: Schema.optionalKey(Schema.String),
  finish: Schema.optionalKey(Schema.String),
  /** What it failed with, by its tag. */
  error: Schema.optionalKey(Schema.String),
  /** The call that answered, which may be another line's. */
  call: Schema.optionalKey(Schema.String),
  calls: Schema.Array(CallLog.CallLog),
  /** Calls that are left out, since there were too many: they stand after the first half of `calls`. */
  leftOut: Schema.Int
})

export type CallRecord = typeof CallRecord.Type

const Line = Schema.fromJsonString(Schema.toCodecJson(CallRecord))
const encodeLine = Schema.encodeSync(Line)
const decodeLine = Schema.decodeUnknownOption(Line)

/** The record as a line of the log. */
export const encode = (record: CallRecord, mask: (text: string) => string): string => `${mask(encodeLine(record))}\n`

/** The record that this line is, if it is one. */
export const decode = (line: string): CallRecord | undefined => Option.getOrUndefined(decodeLine(line))

/** How many calls of one prompt are kept, at most. */
const most = 40

/** The calls of one prompt, as they end. */
export class Trace {
  readonly startedAt: number
  /** The call that answered. */
  call: string | undefined
  /** The first ones, and the last ones. */
  private readonly first: Array<CallLog.CallLog> = []
  private readonly last: Array<CallLog.CallLog> = []
  private leftOut = 0

  constructor(startedAt: number) {
    this.startedAt = startedAt
  }

  add(log: CallLog.CallLog): void {
    if (this.first.length < most / 2) this.first.push(log)
    else {
      this.last.push(log)
      if (this.last.length <= most / 2) return
      this.last.shift()
      this.leftOut++
    }
  }

  record(result: Result): CallRecord {
    return {
      line: result.line,
      ...defined("id", result.id),
      status: result.status,
      how: result.how,
      startedAt: this.startedAt,
      milliseconds: result.milliseconds,
      attempts: result.attempts,
      ...defined("target", result.target),
      ...defined("model", result.model),
      ...(result.status === "ok" ? { finish: result.finish } : { error: result.error.tag }),
      ...defined("call", this.call),
      calls: [...this.first, ...this.last],
      leftOut: this.leftOut
    }
  }
}

const defined = <K extends string, A>(name: K, value: A | undefined): { readonly [_ in K]?: A } =>
  // An object with just this one field, or none.
  value === undefined ? {} : { [name]: value } as { readonly [_ in K]: A }
