/** The record of one prompt: for `sluice explain`, the report and the log file. */
import * as CallLog from "@sluice/ai/CallLog"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Result } from "./Result.ts"

/**
 * The record of a completed prompt. Holds no prompt, answer, key or provider's text.
 *
 * Each wait for a provider that was down begins another call.
 */
export const CallRecord = Schema.Struct({
  line: Schema.Int,
  sample: Schema.optionalKey(Schema.Int),
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
  /** The tag of the error. */
  error: Schema.optionalKey(Schema.String),
  /** The call that answered. Another line may have made it. */
  call: Schema.optionalKey(Schema.String),
  calls: Schema.Array(CallLog.CallLog),
  /** How many calls are omitted after the first half of `calls`, because there were too many. */
  leftOut: Schema.Int
})

export type CallRecord = typeof CallRecord.Type

const Line = Schema.fromJsonString(Schema.toCodecJson(CallRecord))
const encodeLine = Schema.encodeSync(Line)
const decodeLine = Schema.decodeUnknownOption(Line)

/** Encodes a record as a line of the log. */
export const encode = (record: CallRecord): string => `${encodeLine(record)}\n`

/** Decodes a line of the log. `undefined` if it is no record. */
export const decode = (line: string): CallRecord | undefined => Option.getOrUndefined(decodeLine(line))

/** Caps the calls in a record. */
const maxCalls = 40

/** Collects the calls of one prompt as they end. */
export class Trace {
  readonly startedAt: number
  /** The call that answered. */
  call: string | undefined
  private readonly first: Array<CallLog.CallLog> = []
  private readonly last: Array<CallLog.CallLog> = []
  private leftOut = 0

  constructor(startedAt: number) {
    this.startedAt = startedAt
  }

  add(log: CallLog.CallLog): void {
    if (this.first.length < maxCalls / 2) this.first.push(log)
    else {
      this.last.push(log)
      if (this.last.length <= maxCalls / 2) return
      this.last.shift()
      this.leftOut++
    }
  }

  record(result: Result): CallRecord {
    return {
      line: result.line,
      ...defined("sample", result.sample),
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
  // TypeScript widens a computed key to an index signature.
  value === undefined ? {} : { [name]: value } as { readonly [_ in K]: A }
