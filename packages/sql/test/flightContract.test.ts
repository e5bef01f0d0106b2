import * as FlightStoreContract from "@sluice/testing/FlightStoreContract"
import { Effect } from "effect"
import { describeWithBoth } from "./support/databases.ts"
import { flights } from "./support/subjects.ts"

await describeWithBoth("contract of the flight store", (it) => {
  for (const { name, run } of FlightStoreContract.checks) it.effect(name, () => Effect.flatMap(flights, run))
  it.effect("the store answers random commands like the reference store", () =>
    Effect.flatMap(flights, FlightStoreContract.compare))
})
