import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
import { Effect } from "effect"
import { circuits, describeForms } from "./support/subjects.ts"

await describeForms("contract of the circuit store", (functions) => (it) => {
  for (const { name, run } of CircuitBreakerStoreContract.checks) {
    it.effect(name, () => Effect.flatMap(circuits(functions), run))
  }
  it.effect(
    "the store answers random commands like the reference store",
    () => Effect.flatMap(circuits(functions), CircuitBreakerStoreContract.compare),
    { timeout: 60_000 }
  )
})
