import * as Duration from "effect/Duration"
import type { Decision, State, Stats, Transition } from "../CircuitBreaker.ts"
import type { Control, Tally, Target } from "../CircuitBreakerStore.ts"
import type { Outcome } from "../Outcome.ts"
import { Hub } from "./hub.ts"
import type { Source } from "./metrics.ts"

/** What a breaker tells of itself: every move and decision as it happens, and how many there were. */
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

  /** A call that was let in ended. A classifier in plain JavaScript may say what is no outcome. */
  ended({ _tag }: Outcome): void {
    if (Object.hasOwn(this.outcomes, _tag)) this.outcomes[_tag]++
    else this.outcomes.Ignored++
  }

  /** A circuit was moved from how it was seen to stand. */
  moved(key: string, from: State["_tag"], evidence: Tally, to: Target, at: number): void {
    if (from === "Closed" && to._tag === "Closed") return
    const isOpening = to._tag === "Open"
    this.tell({
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
    this.tell({ key, from: "Open", to: "HalfOpen", evidence, openings, openFor: undefined, reason: "", at })
  }

  private tell(transition: Transition): void {
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
      missed: transitions.dropped + decisions.dropped
    }
  }

  /** Read by whoever exports metrics. Labels are the policy's name and words of ours, never a key. */
  sources(policy: string): ReadonlyArray<Source> {
    const counter = (id: string, description: string, words: Record<string, string>, read: () => number): Source => ({
      kind: "Counter",
      id,
      description,
      attributes: { policy, ...words },
      read
    })
    const outcomes = (["Success", "Failure", "Throttled", "Ignored"] as const).map((outcome) =>
      counter(
        "sluice_circuit_calls_total",
        "Calls that a circuit let through, by what they said",
        { outcome },
        () => this.outcomes[outcome]
      )
    )
    const moves = (["Closed", "Open", "HalfOpen", "ForcedOpen", "ForcedClosed", "Disabled", "ObserveOnly"] as const)
      .map((to) => counter("sluice_circuit_transitions_total", "Moves of circuits", { to }, () => this.moves[to]))
    return [
      ...outcomes,
      ...moves,
      counter("sluice_circuit_refused_total", "Calls that a circuit refused", {}, () => this.refused),
      counter(
        "sluice_circuit_store_failures_total",
        "Requests that the circuits' store did not answer",
        {},
        () => this.storeFailures
      )
    ]
  }
}
