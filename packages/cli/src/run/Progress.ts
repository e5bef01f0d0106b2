import * as Terminal from "../Terminal.ts"
import * as Prices from "./Prices.ts"
import * as Words from "./Words.ts"

/** The state of a run at one moment. */
export interface View {
  /** Epoch milliseconds. */
  readonly now: number
  readonly done: number
  readonly failed: number
  /** How many prompts the input has. `undefined` until it is counted. */
  readonly total: number | undefined
  readonly running: number
  readonly failedAttempts: number
  /** Prompts answered without a call of their own. */
  readonly shared: number
  /** Prompts done per second over the last ten seconds. */
  readonly rate: number
  readonly open: ReadonlyArray<{ readonly target: string; readonly probeAt: number }>
  /** How many targets there are. */
  readonly targets: number
  /** The cost so far and expected at the end, in millionths of a dollar. `undefined` if no price is known. */
  readonly cost?: { readonly spent: number; readonly expected: number | undefined } | undefined
}

/** Renders the progress line of a run, clipped to the width. */
export const render = (view: View, columns: number): string => {
  const { done, failed, failedAttempts, rate, running, shared, total } = view
  const all = total === undefined ? Words.count(done) : `${Words.count(done)}/${Words.count(total)}`
  const parts = [
    `${all} done`,
    ...(failed === 0 ? [] : [`${Words.count(failed)} failed`]),
    // Early, because a narrow terminal clips the end.
    ...circuitTexts(view),
    rateText(rate),
    `${Words.count(running)} running`,
    ...costTexts(view),
    ...(failedAttempts === 0 ? [] : [Words.plural(failedAttempts, "failed attempt")]),
    ...(shared === 0 ? [] : [`${Words.count(shared)} shared`]),
    ...(view.open.length < view.targets ? timeLeft(total, done, rate) : [])
  ]
  return Terminal.clip(parts.join(" · "), columns)
}

export const rateText = (rate: number): string =>
  rate >= 10
    ? `${Words.count(rate)}/s`
    : rate >= 1 || rate === 0
    ? `${rate.toFixed(1)}/s`
    : `${Math.ceil(60 * rate)}/min`

/** When the circuits that are open admit a call again. */
export const circuitTexts = ({ now, open, targets }: Pick<View, "now" | "open" | "targets">): ReadonlyArray<string> =>
  open.map(({ probeAt, target }) => {
    // From `probeAt` on a probe is admitted, and the circuit stays open until its outcome.
    const left = probeAt - now
    const subject = targets === 1 ? "provider" : target
    return left > 0 ? `${subject} down, next try in ${Words.time(left)}` : `${subject} down, trying`
  })

const costTexts = ({ cost }: View): ReadonlyArray<string> =>
  cost === undefined
    ? []
    : [`${Prices.shown(cost.spent)}${cost.expected === undefined ? "" : ` of about ${Prices.shown(cost.expected)}`}`]

const timeLeft = (total: number | undefined, done: number, rate: number): ReadonlyArray<string> =>
  total === undefined || rate <= 0 || done >= total ? [] : [`${Words.time((total - done) / rate * 1000)} left`]

const windowMillis = 10_000

/** Measures the rate over the last ten seconds. The average since the start would hide an outage. */
export class Pace {
  private readonly samples: Array<{ readonly at: number; readonly done: number }>

  constructor(startedAt: number) {
    this.samples = [{ at: startedAt, done: 0 }]
  }

  /** Adds a sample and returns the prompts done per second. */
  rate(at: number, done: number): number {
    this.samples.push({ at, done })
    while ((this.samples[1]?.at ?? at) <= at - windowMillis) this.samples.shift()
    const first = this.samples[0] ?? { at, done }
    return at > first.at ? (done - first.done) * 1000 / (at - first.at) : 0
  }
}
