/** The process that measures one row, and sends what it has found to the process that started it. */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Contenders, Effort, full, measure, quick } from "./measure.ts"
import type { MeasuredRow } from "./report.ts"
import { type Group, isRowId, type RowId, rowOf } from "./rows.ts"

interface Builders {
  readonly [row: string]: Effect.Effect<Contenders, InvalidOptions, Scope.Scope>
}

// A row loads its own group only: what the others import would lie in its heap.
const groups: { readonly [_ in Group]: () => Promise<{ readonly builders: Builders }> } = {
  breaker: () => import("./groups/breaker.ts"),
  retry: () => import("./groups/retry.ts"),
  permit: () => import("./groups/permit.ts"),
  dedupe: () => import("./groups/dedupe.ts"),
  pipeline: () => import("./groups/pipeline.ts"),
  timeout: () => import("./groups/timeout.ts"),
  streams: () => import("./groups/streams.ts"),
  resilientModel: () => import("./groups/resilientModel.ts"),
  policy: () => import("./groups/policy.ts"),
  memory: () => import("./groups/memory.ts")
}

const measureRow = Effect.fnUntraced(function*(id: RowId) {
  const { group, quickTitle, title, unit } = rowOf(id)
  const effort = yield* Effort
  const { builders } = yield* Effect.promise(groups[group])
  const build = builders[id]
  if (build === undefined) return yield* Effect.die(new Error(`nothing builds the contenders of row ${id}`))
  const contenders = yield* build
  const measurements = yield* Effect.promise(() => measure(contenders, effort))
  return { id, title: effort === quick ? quickTitle ?? title : title, unit, measurements }
})

// Nobody is left to send anything to.
process.once("disconnect", () => process.exit(1))

const [id = "", effort] = process.argv.slice(2)
if (!isRowId(id)) throw new Error(`there is no row ${id}`)
const measured: MeasuredRow = await Effect.runPromise(
  measureRow(id).pipe(Effect.scoped, Effect.provideService(Effort, effort === "quick" ? quick : full))
)
// Whatever a rival has left running, a timer or a listener, ends here.
process.send?.(measured, () => process.exit())
