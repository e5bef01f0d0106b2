import * as QuotaStoreContract from "@sluice/testing/QuotaStoreContract"
import { Effect } from "effect"
import { describeForms, quotas } from "./support/subjects.ts"

await describeForms("contract of the quota store", (functions) => (it) => {
  for (const { name, run } of QuotaStoreContract.checks) {
    it.effect(name, () => Effect.flatMap(quotas(functions), run))
  }
  it.effect("the store answers random requests like the reference store", () =>
    Effect.flatMap(quotas(functions), QuotaStoreContract.compare))
})
