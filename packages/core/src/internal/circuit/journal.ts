import * as Duration from "effect/Duration"
import type { Decision, State, Stats, Transition } from "../../CircuitBreaker.ts"
import type { Control, Tally, Target } from "../../CircuitBreakerStore.ts"
import { Hub } from "../../Hub.ts"
import type { Outcome } from "../../Outcome.ts"
import { type Source, sourcesOf } from "../kit/metrics.ts"

/** The events and counters of a breaker. */
export class CircuitJournal {
  readonly transitions = new Hub<Transition>()
  readonly decisions = new Hub<Decision>()
  refused = 0
  storeFailures = 0
  readonly outcomes: Record<Outcome["_tag"], number> = { Success: 0, Failure: 0, Throttled: 0, Ignored: 0 }
  readonly moves: Record<Transition["to"], number> = {
    Closed: 0,
    Open: 0,
    HalfOpen: 0,
    ForcedOpen: 0,
    ForcedClosed: 0,
    Disabled: 0,
    ObserveOnly: 0
  }

  /** An admitted call ended. A classifier in plain JavaScript can return a tag that does not exist. */
  ended({ _tag }: Outcome): void {
    if (Object.hasOwn(this.outcomes, _tag)) this.outcomes[_tag]++
    else this.outcomes.Ignored++
  }

  /** A circuit was moved. `from` and `evidence` describe it before the move. */
  moved(key: string, from: State["_tag"], evidence: Tally, to: Target, at: number): void {
    if (from === "Closed" && to._tag === "Closed") return
    const isOpening = to._tag === "Open"
    this.publish({
      key,
      from,
      to: to._tag === "Forced" ? to.mode : to._tag,
      evidence: isOpening ? to.because : evidence,
      openings: to._tag === "Forced" ? 0 : to.openings,
      openFor: isOpening ? Duration.millis(to.forMillis) : undefined,
      reason: isOpening ? "" : to.reason,
      at
    })
  }

  /** The first probe of an opening was let through. */
  probed(key: string, control: Control, at: number): void {
    if (control._tag !== "Open") return
    const { because: evidence, openings } = control
    this.publish({ key, from: "Open", to: "HalfOpen", evidence, openings, openFor: undefined, reason: "", at })
  }

  private publish(transition: Transition): void {
    this.moves[transition.to]++
    this.transitions.publish(transition)
  }

  get stats(): Stats {
    const { decisions, moves, outcomes, refused, storeFailures, transitions } = this
    return {
      outcomes: { ...outcomes },
      refused,
      moves: { ...moves },
      storeFailures,
      dropped: transitions.dropped + decisions.dropped
    }
  }

  metrics(policy: string): ReadonlyArray<Source> {
    const { counter } = sourcesOf(policy)
    return [
      ...(["Success", "Failure", "Throttled", "Ignored"] as const).map((outcome) =>
        counter("sluice_circuit_calls_total", "Admitted calls, by outcome", () => this.outcomes[outcome], { outcome })
      ),
      ...(["Closed", "Open", "HalfOpen", "ForcedOpen", "ForcedClosed", "Disabled", "ObserveOnly"] as const).map((to) =>
        counter("sluice_circuit_transitions_total", "Transitions of circuits", () => this.moves[to], { to })
      ),
      counter("sluice_circuit_refused_total", "Calls that a circuit refused", () => this.refused),
      counter(
        "sluice_circuit_store_failures_total",
        "Requests to the circuits' store that failed",
        () => this.storeFailures
      )
    ]
  }
}
