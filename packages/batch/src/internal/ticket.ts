/** What the queue carries: a range of requests of one batch. */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

export interface Ticket {
  /** The number of the batch in its tables. */
  readonly batch: number
  /** Which run of the batch: a retry starts another one. */
  readonly run: number
  readonly from: number
  /** Exclusive. */
  readonly to: number
  /** How often it was put back. */
  readonly round: number
}

/** Equal tickets have equal ids, so two feeders that run at once offer each ticket once. */
export const idOf = ({ batch, from, round, run, to }: Ticket): string => `${batch}.${run}/${from}-${to}/${round}`

const Encoded = Schema.Struct({
  v: Schema.Literal(1),
  batch: Schema.Int,
  run: Schema.Int,
  from: Schema.Int,
  to: Schema.Int,
  round: Schema.Int
})

export const encode = (ticket: Ticket): unknown => ({ v: 1, ...ticket })

/** `undefined` for a ticket of another version. */
export const decode = (encoded: unknown): Ticket | undefined =>
  Option.getOrUndefined(Schema.decodeUnknownOption(Encoded)(encoded))

/** A worker reads the requests of a ticket at once. */
const maxBytes = 4 * 2 ** 20

/** A small batch has small tickets, so that every worker gets some; and so has one of large requests. */
export const sizeFor = (
  { bytes, total }: { readonly bytes: number; readonly total: number },
  largest: number
): number => Math.max(1, Math.min(largest, Math.floor(total / 64), Math.floor(maxBytes * total / Math.max(1, bytes))))
