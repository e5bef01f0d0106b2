/** A process that answers one batch, and prints what that took as JSON: `batchMachine.ts OPTIONS`, with `MachineOptions` as JSON. */
import * as Asker from "@sluice/batch/Asker"
import * as BatchMachine from "@sluice/batch/BatchMachine"
import * as Batches from "@sluice/batch/Batches"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { SqlClient } from "effect/sql/SqlClient"
import * as Stream from "effect/Stream"
import { type Latency, latencyOf } from "./batchLatency.ts"

export interface MachineOptions extends Latency {
  readonly url: string
  readonly requests: number
  readonly inFlight: number
  /** Only the calls, without a batch. */
  readonly isAlone: boolean
  /** Requests of a batch that is in progress when this one is submitted. */
  readonly ahead: number
}

export interface MachineFigures {
  /** From the end of the submission to the last result. */
  readonly seconds: number
  readonly submitSeconds: number
  /** CPU nanoseconds for each request, after they were submitted. */
  readonly cpu: number
  /** The highest resident size. */
  readonly memory: number
  /** The median time of reading the progress. */
  readonly progressMillis: number
  /** Bytes in the database for each request, beside the texts of the request and its answer. */
  readonly stored: number
  readonly ok: number
}

const requestBytes = 380
const answerBytes = 390
const filler = "x".repeat(400)

// Only `startMachine` starts it.
const options = JSON.parse(process.argv[2] ?? "") as MachineOptions

const textOf = (n: number, bytes: number): string => `${n} ${filler}`.slice(0, bytes)

const ask = (body: string): Effect.Effect<Asker.Answer> => {
  const n = Number.parseInt(body, 10)
  const answer = { kind: "ok", body: textOf(n, answerBytes), inputTokens: 90, outputTokens: 90, micros: 10 } as const
  return Effect.as(Effect.sleep(latencyOf(options, n)), answer)
}

const InProcess = Layer.succeed(Asker.Asker, { ask: ({ body }) => ask(body), waiting: Effect.undefined })

const cpuNanos = (): number => {
  const { system, user } = process.cpuUsage()
  return (user + system) * 1_000
}

const alone = Effect.gen(function*() {
  const [before, startedAt] = [cpuNanos(), performance.now()]
  yield* Effect.forEach(
    Array.from({ length: options.requests }, (_, n) => n),
    (n) => ask(textOf(n, requestBytes)),
    { concurrency: options.inFlight, discard: true }
  )
  return {
    seconds: (performance.now() - startedAt) / 1_000,
    submitSeconds: 0,
    cpu: (cpuNanos() - before) / options.requests,
    memory: process.resourceUsage().maxRSS * 1_024,
    progressMillis: 0,
    stored: 0,
    ok: options.requests
  }
})

const storedBytes = Effect.flatMap(SqlClient, (sql) =>
  sql.onDialectOrElse({
    sqlite: () =>
      sql<
        { readonly bytes: unknown }
      >`select page_count * page_size as bytes from pragma_page_count(), pragma_page_size()`,
    orElse: () =>
      sql<{ readonly bytes: unknown }>`select sum(pg_total_relation_size(c.oid)) as bytes
        from pg_class c where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'`
  }))

const batch = Effect.gen(function*() {
  const batches = yield* Batches.Batches
  const submit = (requests: number) =>
    batches.submit(
      {},
      Stream.map(Stream.range(0, requests - 1), (n) => ({ key: `k${n}`, body: textOf(n, requestBytes) }))
    )
  if (options.ahead > 0) {
    const ahead = yield* submit(options.ahead)
    yield* Stream.runDrain(Stream.takeUntil(batches.watch(ahead, "100 millis"), ({ ok }) => ok > 0))
  }
  const submittingAt = performance.now()
  const id = yield* submit(options.requests)
  const [before, startedAt] = [cpuNanos(), performance.now()]
  const [last] = yield* Stream.runCollect(Stream.takeRight(batches.watch(id, "100 millis"), 1))
  const seconds = (performance.now() - startedAt) / 1_000
  const cpu = (cpuNanos() - before) / options.requests
  const memory = process.resourceUsage().maxRSS * 1_024
  const reads: Array<number> = []
  for (let n = 0; n < 51; n++) {
    const at = performance.now()
    yield* batches.status(id)
    reads.push(performance.now() - at)
  }
  const [stored] = yield* storedBytes
  return {
    seconds,
    submitSeconds: (startedAt - submittingAt) / 1_000,
    cpu,
    memory,
    progressMillis: reads.toSorted((one, other) => one - other)[25] ?? NaN,
    stored: Number(stored?.bytes) / options.requests - requestBytes - answerBytes,
    ok: last?.ok ?? 0
  }
})

const Database = SqlDatabase.layer({ url: options.url })
const Machine = BatchMachine.layer({ inFlight: options.inFlight }).pipe(
  Layer.provide(InProcess),
  Layer.provide(Batches.migrations.layer),
  Layer.provideMerge(Database)
)

const figures: MachineFigures = await Effect.runPromise(options.isAlone ? alone : Effect.provide(batch, Machine))
process.stdout.write(`${JSON.stringify(figures)}\n`)
