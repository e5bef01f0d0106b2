import * as Terminal from "../Terminal.ts"
import * as Words from "./Words.ts"

/** A run at one moment. */
export interface View {
  /** Epoch milliseconds. */
  readonly now: number
  readonly done: number
  readonly failed: number
  /** How many lines there are; `undefined` while nobody knows. */
  readonly total: number | undefined
  readonly running: number
  /** Tries that failed. */
  readonly retried: number
  /** Lines that needed no call of their own. */
  readonly shared: number
  /** Lines done per second, lately. */
  readonly rate: number
  /** Every target's circuit that is open. */
  readonly open: ReadonlyArray<{ readonly target: string; readonly probeAt: number }>
  /** How many targets there are. */
  readonly targets: number
}

/** The live line, cut to the width. */
export const render = (view: View, columns: number): string => {
  const { done, failed, rate, retried, running, shared, total } = view
  const all = total === undefined ? Words.count(done) : `${Words.count(done)}/${Words.count(total)}`
  const parts = [
    `${all} done`,
    ...(failed === 0 ? [] : [`${Words.count(failed)} failed`]),
    // Before what a narrow terminal may cut off.
    ...openWords(view),
    `${rate < 10 ? rate.toFixed(1) : Words.count(rate)}/s`,
    `${Words.count(running)} running`,
    ...(retried === 0 ? [] : [`${Words.count(retried)} retried`]),
    ...(shared === 0 ? [] : [`${Words.count(shared)} shared`]),
    ...(view.open.length < view.targets ? leftWords(total, done, rate) : [])
  ]
  return Terminal.clip(parts.join(" · "), columns)
}

const openWords = ({ now, open, targets }: View): ReadonlyArray<string> =>
  open.map(({ probeAt, target }) => {
    // From then on one call is let through, and the circuit moves when it has told.
    const left = probeAt - now
    const who = targets === 1 ? "provider" : target
    return left > 0 ? `${who} down, probe in ${Words.time(left)}` : `${who} down, probing`
  })

const leftWords = (total: number | undefined, done: number, rate: number): ReadonlyArray<string> =>
  total === undefined || rate <= 0 || done >= total ? [] : [`${Words.time((total - done) / rate * 1000)} left`]

const windowMillis = 10_000

/** How fast it goes, over the last ten seconds: the average since the start would hide an outage. */
export class Pace {
  private readonly samples: Array<{ readonly at: number; readonly done: number }>

  constructor(startedAt: number) {
    this.samples = [{ at: startedAt, done: 0 }]
  }

  /** Lines done per second, with this as the latest that is known. */
  rate(at: number, done: number): number {
    this.samples.push({ at, done })
    while ((this.samples[1]?.at ?? at) <= at - windowMillis) this.samples.shift()
    const first = this.samples[0] ?? { at, done }
    return at > first.at ? (done - first.done) * 1000 / (at - first.at) : 0
  }
}
