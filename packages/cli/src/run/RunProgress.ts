import type { Change } from "./Circuits.ts"
import type { Ledger } from "./Ledger.ts"
import * as Progress from "./Progress.ts"
import type { Tally } from "./Tally.ts"

/** The state of the progress line. */
export class RunProgress {
  total: number | undefined = undefined
  private readonly open = new Map<string, number>()
  private readonly pace: Progress.Pace
  private readonly tally: Tally
  private readonly targets: number
  private readonly ledger: Ledger

  constructor(tally: Tally, startedAt: number, targets: number, ledger: Ledger) {
    this.ledger = ledger
    this.tally = tally
    this.pace = new Progress.Pace(startedAt)
    this.targets = targets
  }

  circuitChanged({ circuit, target }: Change): void {
    if (circuit.state === "open") this.open.set(target, circuit.probeAt)
    else this.open.delete(target)
  }

  view(now: number): Progress.View {
    const { done, failed, failures, joined, cached, running } = this.tally
    return {
      now,
      done,
      failed,
      running,
      total: this.total,
      failedAttempts: failures.reduce((sum, [, times]) => sum + times, 0),
      shared: joined + cached,
      rate: this.pace.rate(now, done),
      open: [...this.open].map(([target, probeAt]) => ({ target, probeAt })),
      targets: this.targets,
      cost: this.ledger.hasPriced ? { spent: this.ledger.spentNow, expected: this.expectedCost } : undefined
    }
  }

  /** What this run is expected to cost in all, by the lines that are done. `undefined` if it is not known. */
  get expectedCost(): number | undefined {
    const { done, stopped } = this.tally
    // Lines that were not sent say nothing about the cost.
    const finished = done - stopped
    return this.total === undefined || finished === 0
      ? undefined
      : this.ledger.spentNow * Math.max(1, this.total / finished)
  }
}
