/** What tokens cost: from `--price`, from `--price-file`, or from the list of this package. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"
import type { Price } from "../Flag.ts"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"
import type { Target } from "./Settings.ts"

const Rate = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

/** Dollars for a million tokens. A prompt with more input tokens than `long.above` has other rates. */
const Model = Schema.Struct({
  input: Rate,
  output: Rate,
  long: Schema.optionalKey(Schema.Struct({ above: Schema.Int, input: Rate, output: Rate }))
})

export type Model = typeof Model.Type

const PriceList = Schema.Array(Schema.Struct({
  provider: Schema.optionalKey(Schema.String),
  /** The hosts with these prices. Absent: every host. */
  hosts: Schema.optionalKey(Schema.Array(Schema.String)),
  /** The day on which the source had these prices, such as `2026-11-30`. */
  date: Schema.optionalKey(Schema.String.check(Schema.isPattern(/^\d{4}-\d{2}-\d{2}$/))),
  source: Schema.optionalKey(Schema.String),
  note: Schema.optionalKey(Schema.String),
  models: Schema.Record(Schema.String, Model)
}))

export type PriceList = typeof PriceList.Type

/** The price file cannot be used. */
export class PriceError extends Schema.Error<PriceError>("sluice/PriceError")({
  _tag: Schema.tag("PriceError"),
  message: Schema.String
}) {}

const ownList = fileURLToPath(new URL("../../prices.json", import.meta.url))

const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(PriceList))

/** Reads a price list. Default: that of this package. */
export const read = (path: string = ownList): Effect.Effect<PriceList, PriceError> => {
  const refuse = (why: string) =>
    new PriceError({ message: `cannot use the prices in ${Terminal.escape(path)}: ${why}` })
  return Effect.tryPromise({ try: () => readFile(path, "utf8"), catch: (error) => refuse(SystemError.describe(error)) })
    .pipe(
      Effect.flatMap((text) =>
        Effect.mapError(
          decode(text),
          () => refuse(`it must be a list such as [{"models":{"NAME":{"input":1.25,"output":10}}}]`)
        )
      )
    )
}

/** A price, and the day on which its source had it. */
export interface Found {
  readonly price: Model
  readonly provider: string | undefined
  readonly date: string | undefined
}

type Place = Pick<Target, "url">

export class Prices {
  private readonly flag: Price | undefined
  private readonly list: PriceList
  private readonly found = new Map<string, Found | undefined>()

  /** The price of the flag applies to every model. */
  constructor(flag: Price | undefined, list: PriceList) {
    this.flag = flag
    this.list = list
  }

  /** The price of a model at a target. `undefined` if there is none. */
  of({ url }: Place, model: string): Found | undefined {
    if (this.flag !== undefined) return { price: this.flag, provider: undefined, date: undefined }
    const { hostname } = new URL(url)
    const key = `${hostname} ${model}`
    if (!this.found.has(key)) {
      if (this.found.size >= maxFound) this.found.clear()
      this.found.set(key, this.search(hostname, model))
    }
    return this.found.get(key)
  }

  private search(hostname: string, model: string): Found | undefined {
    const name = withoutDate(model)
    for (const { date, hosts, models, provider } of this.list) {
      if (hosts !== undefined && !hosts.includes(hostname)) continue
      const own = Object.hasOwn(models, model) ? model : name
      const price = Object.hasOwn(models, own) ? models[own] : undefined
      if (price !== undefined) return { price, provider, date }
    }
    return undefined
  }
}

/** Lines can name models of their own, without a bound. */
const maxFound = 1_000

/** The name of a model without the date of its snapshot: `-2025-08-07` or `-20251001`. */
const withoutDate = (model: string): string => model.replace(/-20\d\d-?[01]\d-?[0-3]\d$/, "")

/** Dollars for these tokens in millionths, rounded up. A dollar for a million tokens is a millionth for each. */
export const costOf = (
  { input, long, output }: Model,
  tokens: { readonly inputTokens: number; readonly outputTokens: number }
): number => {
  const rates = long !== undefined && tokens.inputTokens > long.above ? long : { input, output }
  // A rounding error of a millionth of a millionth must not become a millionth.
  return Math.ceil(tokens.inputTokens * rates.input + tokens.outputTokens * rates.output - 1e-6)
}

const dayMillis = 86_400_000
const oldDays = 90

/** Says that prices are old. `undefined` if they are not. */
export const ageOf = ({ date, provider }: Found, now: number): string | undefined => {
  if (date === undefined) return undefined
  const days = Math.floor((now - Date.parse(date)) / dayMillis)
  return days <= oldDays
    ? undefined
    : `the prices${provider === undefined ? "" : ` of ${Terminal.escape(provider)}`} are of ${date}, ${days} days old`
}

/** Millionths as dollars: `$12.30`, and with more digits below a dollar. */
export const shown = (millionths: number): string => {
  const dollars = millionths / 1e6
  if (dollars === 0) return "$0"
  return dollars >= 1 ? `$${dollars.toFixed(2)}` : `$${Number(dollars.toPrecision(3))}`
}
