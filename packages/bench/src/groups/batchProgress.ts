import * as Batches from "@sluice/batch/Batches"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { SqlClient } from "effect/sql/SqlClient"
import * as Stream from "effect/Stream"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const workers = Array.from({ length: 10 }, (_, n) => `worker-${n}`)

/**
 * Adds a batch. Ten workers have answered all its requests but the last. To answer a million takes a minute, so statements write the
 * results.
 */
const answered = Effect.fnUntraced(function*(requests: number) {
  const [batches, sql] = [yield* Batches.Batches, yield* SqlClient]
  const id = yield* batches.submit(
    {},
    Stream.map(Stream.range(0, requests - 1), (n) => ({ key: `k${n}`, body: `request ${n}` }))
  )
  const ofAnswered =
    sql`from sluice_batch b join sluice_batch_item i on i.batch = b.batch where b.id = ${id} and i.seq < b.total - 1`
  yield* sql`insert into sluice_batch_result (batch, seq, input_tokens, output_tokens, micros, at, xid, kind, body)
    select i.batch, i.seq, 90, 90, 10, 0, i.seq, 'ok', i.request ${ofAnswered}`
  for (const [n, worker] of workers.entries()) {
    yield* sql`insert into sluice_batch_progress (batch, worker, ok)
      select i.batch, ${worker}, count(*) ${ofAnswered} and i.seq % ${workers.length} = ${n}`
  }
  const { ok } = yield* batches.status(id)
  if (ok !== requests - 1) return yield* Effect.die(new Error(`the progress is ${ok} answers of ${requests}`))
  return id
})

/** Makes functions that read the progress of a batch of this many requests, and return the nanoseconds of wall time of one read. */
export const progressReader: Effect.Effect<
  (requests: number) => Effect.Effect<(operations: number) => Promise<number>>,
  never,
  Scope.Scope
> = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "sluice-bench-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  )
  const services = yield* Layer.build(Batches.layer.pipe(
    Layer.provide(Batches.migrations.layer),
    Layer.provideMerge(SqlDatabase.layer({ url: `sqlite:${join(folder, "batches.db")}` }))
  ))
  const read = Effect.fnUntraced(function*(id: string, operations: number) {
    const batches = yield* Batches.Batches
    const at = performance.now()
    for (let left = operations; left > 0; left--) yield* batches.status(id)
    return (performance.now() - at) * 1e6 / operations
  })
  return (requests: number) =>
    answered(requests).pipe(
      Effect.map((id) => (operations: number) => Effect.runPromise(Effect.provide(read(id, operations), services))),
      Effect.provide(services),
      Effect.orDie
    )
}).pipe(Effect.orDie)
