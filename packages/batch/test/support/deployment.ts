import { isEnded, type State, type Status } from "@sluice/batch/Batch"
import * as Batches from "@sluice/batch/Batches"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { Effect, Layer, ManagedRuntime, Schedule, Stream } from "effect"
import { SqlClient } from "effect/sql"
import assert from "node:assert/strict"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { requests } from "./machine.ts"
import { Processes, type Role, type Running, type Start } from "./processes.ts"
import { Provider } from "./provider.ts"

export interface Options {
  readonly database: string
  /** How long an answer takes. */
  readonly millis: number
  readonly inFlight: number
  readonly onLost?: "ask-again" | "fail"
  readonly times?: Start["times"]
}

export interface Counts {
  readonly requests: number
  readonly ok: number
  readonly failed: number
  readonly marked: number
  /** Calls beyond one for each request that was asked. */
  readonly again: number
  readonly attempts: number
  readonly seconds: number
}

/** How long a test waits for anything. */
const patience = 240_000

/** Short enough for tests, and long enough for a busy machine. SQLite counts whole seconds. */
const shortTimes = { lease: 3_000, refresh: 750, poll: 100 }

/** Processes, a provider and a database, and what the tables and the ledger say about them. */
export class Deployment implements AsyncDisposable {
  readonly provider: Provider
  private readonly options: Options
  private readonly processes = new Processes()
  private readonly folder = mkdtempSync(join(tmpdir(), "sluice-batch-"))
  private readonly runtime
  private started = 0
  /** How many processes were started that make calls. */
  private asking = 0
  private readonly startedAt = performance.now()
  /** What signals may cost: calls that are made again. */
  mayAskAgain = 0
  isOver = false

  private constructor(options: Options, provider: Provider) {
    this.options = options
    this.provider = provider
    const Database = SqlDatabase.layer({ url: options.database })
    this.runtime = ManagedRuntime.make(
      Batches.layer.pipe(Layer.provide(Batches.migrations.layer), Layer.provideMerge(Database))
    )
  }

  static async start(options: Options): Promise<Deployment> {
    const deployment = new Deployment(options, await Provider.start({ millis: options.millis }))
    await deployment.runtime.context()
    return deployment
  }

  /** Starts a process. `batch` is that of a submitter or an exporter. */
  start(role: Role, batch = "", count = 0): Promise<Running> {
    const { database, inFlight, onLost = "ask-again", times = shortTimes } = this.options
    this.started += 1
    if (role === "worker" || role === "both") this.asking += 1
    return this.processes.start(role, {
      name: `${role}-${this.started}`,
      database,
      provider: this.provider.url,
      inFlight,
      onLost,
      times,
      batch,
      requests: count,
      file: this.fileOf(batch)
    })
  }

  private fileOf(batch: string): string {
    return join(this.folder, `${batch}.txt`)
  }

  /** Kills a process that makes calls, which may be made again. */
  async kill(running: Running, isAsking = true): Promise<void> {
    if (isAsking) this.mayAskAgain += this.options.inFlight
    running.signal("SIGKILL")
    await running.ended
  }

  /** Freezes a process for longer than its lease. */
  async freeze(running: Running, isAsking = true): Promise<void> {
    // The leases of the tests are short. A process that is frozen in a transaction can hold up the others, whose leases lapse too.
    const lapsed = Math.max(this.asking, isAsking ? 1 : 0)
    this.mayAskAgain += lapsed * this.options.inFlight
    running.signal("SIGSTOP")
    await sleep((this.options.times ?? shortTimes).lease + 1_500)
    running.signal("SIGCONT")
    // It finds out that it was frozen.
    await sleep(500)
  }

  async stop(running: Running): Promise<void> {
    running.signal("SIGTERM")
    await running.ended
  }

  /** Runs an effect, again while the database is away. */
  run<A, E extends { readonly _tag: string }>(
    effect: Effect.Effect<A, E, Batches.Batches | SqlClient.SqlClient>
  ): Promise<A> {
    return this.runtime.runPromise(Effect.retry(effect, {
      schedule: Schedule.spaced(200),
      times: 300,
      while: ({ _tag }) => _tag === "BatchStoreError" || _tag === "SqlError"
    }))
  }

  /** Submits a batch. The request at `poison` kills its process. */
  submit(options: Batches.SubmitOptions, count: number, poison = -1): Promise<string> {
    const all = Stream.map(requests(count), (request, n) => n === poison ? { ...request, body: "poison" } : request)
    return this.run(Batches.Batches.use((batches) => batches.submit(options, all)))
  }

  status(batch: string): Promise<Status> {
    return this.run(Batches.Batches.use((batches) => batches.status(batch)))
  }

  /** Waits until the ledger has calls for this many requests. */
  asked(batch: string, keys: number): Promise<void> {
    return until(async () => this.provider.keysOf(batch) >= keys, `${keys} requests of ${batch} are asked`)
  }

  /** Waits until a submitter has stored this many requests. */
  stored(batch: string, count: number): Promise<void> {
    return until(async () => {
      const [row] = await this.run(
        SqlClient.SqlClient.use((sql) =>
          sql<{ readonly last: unknown }>`select max(i.seq) as last from sluice_batch_item i
          join sluice_batch b on b.batch = i.batch where b.id = ${batch}`
        )
      )
      return Number(row?.last ?? -1) + 1 >= count
    }, `${count} requests of ${batch} are stored`)
  }

  exported(batch: string, count: number): Promise<void> {
    return until(async () => this.linesOf(batch).length >= count, `${count} results of ${batch} are exported`)
  }

  private linesOf(batch: string): ReadonlyArray<string> {
    const file = this.fileOf(batch)
    return existsSync(file) ? readFileSync(file, "utf8").split("\n").slice(0, -1) : []
  }

  /** An export has every result once, in one order. */
  checkExport(batch: string, count: number): void {
    const keys = this.linesOf(batch).map((line) => line.split(" ")[1])
    assert.equal(keys.length, count, "the export has every result")
    assert.equal(new Set(keys).size, count, "the export has every result once")
  }

  ended(batch: string): Promise<void> {
    return until(async () => isEnded((await this.status(batch)).state), `${batch} has ended`)
  }

  /** Waits until the batch has ended, and compares its tables with each other and with the ledger. */
  async check(batch: string, count: number, state: State = "completed"): Promise<Counts> {
    await this.ended(batch)
    const status = await this.status(batch)
    assert.equal(status.state, state)
    assert.equal(status.total, count)
    const rows = await this.run(
      SqlClient.SqlClient.use((sql) =>
        sql<
          { readonly kind: string; readonly n: unknown }
        >`select s.kind as kind, count(*) as n from sluice_batch_result s
        join sluice_batch b on b.batch = s.batch where b.id = ${batch} group by s.kind`
      )
    )
    const sum = (...kinds: ReadonlyArray<string>) =>
      rows.reduce((sum, { kind, n }) => kinds.includes(kind) ? sum + Number(n) : sum, 0)
    const ok = sum("ok")
    const failed = sum("failed", "worker_lost", "rounds_exhausted")
    const marked = sum("cancelled", "expired", "capped")
    assert.equal(ok + failed + marked, count, "every request has one result")
    assert.deepEqual(
      [status.ok, status.failed, status.marked],
      [ok, failed, marked],
      "the progress is that of the results"
    )
    assert.equal(status.micros, ok * 100, "every answer was paid once")
    const again = this.provider.callsOf(batch) - this.provider.keysOf(batch)
    assert.ok(again <= this.mayAskAgain, `${again} requests were asked again, at most ${this.mayAskAgain} may be`)
    const [queue] = await this.run(
      SqlClient.SqlClient.use((sql) =>
        sql<{ readonly failed: unknown; readonly attempts: unknown }>`
        select sum(case when state = 'failed' then 1 else 0 end) as failed, max(attempts) as attempts from sluice_batch_queue`
      )
    )
    assert.equal(Number(queue?.failed), 0, "the queue gave up no ticket")
    const seconds = (performance.now() - this.startedAt) / 1_000
    return { requests: count, ok, failed, marked, again, attempts: Number(queue?.attempts), seconds }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.isOver = true
    await this.processes[Symbol.asyncDispose]()
    await this.runtime.dispose()
    await this.provider[Symbol.asyncDispose]()
    rmSync(this.folder, { recursive: true })
  }
}

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

const until = async (condition: () => Promise<boolean>, what: string): Promise<void> => {
  const end = performance.now() + patience
  while (!await condition()) {
    if (performance.now() > end) throw new Error(`not in ${patience / 1_000} s: ${what}`)
    await sleep(30)
  }
}
