/** The process that measures a row, and sends the result to its parent. */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Contenders, Effort, full, measure, quick } from "./measure.ts"
import type { MeasuredRow } from "./report.ts"
import { type Group, isRowId, type RowId, rowOf } from "./rows.ts"

interface Builders {
  readonly [row: string]: Effect.Effect<Contenders, InvalidOptions, Scope.Scope>
}

// Only the row's group is loaded, so that imports of others are not in the heap.
const groups: { readonly [_ in Group]: () => Promise<{ readonly builders: Builders }> } = {
  breaker: () => import("./groups/breaker.ts"),
  retry: () => import("./groups/retry.ts"),
  permit: () => import("./groups/permit.ts"),
  dedupe: () => import("./groups/dedupe.ts"),
  pipeline: () => import("./groups/pipeline.ts"),
  timeout: () => import("./groups/timeout.ts"),
  streams: () => import("./groups/streams.ts"),
  resilientModel: () => import("./groups/resilientModel.ts"),
  admission: () => import("./groups/admission.ts"),
  policy: () => import("./groups/policy.ts"),
  quota: () => import("./groups/quota.ts"),
  memory: () => import("./groups/memory.ts"),
  run: () => import("./groups/run.ts"),
  front: () => import("./groups/front.ts"),
  portkey: () => import("./groups/portkey.ts"),
  batch: () => import("./groups/batch.ts")
}

const measureRow = Effect.fnUntraced(function*(id: RowId) {
  const { group, quickTitle, title, unit } = rowOf(id)
  const effort = yield* Effort
  const { builders } = yield* Effect.promise(groups[group])
  const build = builders[id]
  if (build === undefined) return yield* Effect.die(new Error(`no group builds the contenders of row ${id}`))
  const contenders = yield* build
  const measurements = yield* Effect.promise(() => measure(contenders, effort))
  return { id, title: effort === quick ? quickTitle ?? title : title, unit, measurements }
})

// The parent has exited.
process.once("disconnect", () => process.exit(1))

const [id = "", effort] = process.argv.slice(2)
if (!isRowId(id)) throw new Error(`there is no row ${id}`)
const measured: MeasuredRow = await Effect.runPromise(
  measureRow(id).pipe(Effect.scoped, Effect.provideService(Effort, effort === "quick" ? quick : full))
)
// Exits although a contender may have left a timer or a listener.
process.send?.(measured, () => process.exit())
