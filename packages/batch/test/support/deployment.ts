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
import { type Order, Processes, type Role, type Running, type Start } from "./processes.ts"
import { Provider } from "./provider.ts"

/** How large a deployment is, and how long its events take. */
export interface Size {
  readonly requests: number
  /** Of each process. */
  readonly inFlight: number
  /** How long an answer takes. */
  readonly millis: number
  readonly times?: Start["times"]
  /** How long a process is frozen: longer than its lease. */
  readonly frozenMillis?: number
  /** How long to wait for anything. */
  readonly patienceMillis?: number
}

export interface Options extends Size {
  readonly database: string
  readonly onLost?: Start["onLost"]
  readonly answerBytes?: number
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

/** Short enough for tests, and long enough for a busy machine. SQLite counts whole seconds. */
const shortTimes = { lease: 3_000, refresh: 750, poll: 100 }

/** Of the cluster's 16 shards, the one whose owner feeds. */
const feederShard = "default:10"

/** Processes, a provider and a database, and what the tables and the ledger say about them. */
export class Deployment implements AsyncDisposable {
  readonly provider: Provider
  readonly lease: number
  private readonly options: Options
  private readonly processes = new Processes()
  private readonly folder = mkdtempSync(join(tmpdir(), "sluice-batch-"))
  private readonly runtime
  private started = 0
  /** How many processes run that make calls. */
  private asking = 0
  private readonly startedAt = performance.now()
  /** The number of calls that events may repeat. */
  mayAskAgain = 0
  /** Whether events may have let the lease of a ticket lapse, so that it is delivered again. */
  mayDeliverAgain = false
  isOver = false

  private constructor(options: Options, provider: Provider) {
    this.options = options
    this.provider = provider
    this.lease = (options.times ?? shortTimes).lease
    const Database = SqlDatabase.layer({ url: options.database })
    this.runtime = ManagedRuntime.make(
      Batches.layer.pipe(Layer.provide(Batches.migrations.layer), Layer.provideMerge(Database))
    )
  }

  static async start(options: Options): Promise<Deployment> {
    const deployment = new Deployment(options, await Provider.start(options))
    await deployment.runtime.context()
    return deployment
  }

  /** Starts a process of the engine. */
  start(role: "worker" | "feeder" | "both"): Promise<Running> {
    if (role !== "feeder") this.asking += 1
    return this.startProcess(role, {})
  }

  startSubmitter(batch: string, count: number): Promise<Running> {
    return this.startProcess("submitter", { batch, requests: count })
  }

  /** It ends after the last result of a batch that has ended. Started again, it continues. */
  startExporter(batch: string, order: Order): Promise<Running> {
    return this.startProcess("exporter", { batch, order, file: this.fileOf(batch, order) })
  }

  private startProcess(role: Role, own: Partial<Start>): Promise<Running> {
    const { database, inFlight, onLost = "ask-again", times = shortTimes } = this.options
    this.started += 1
    return this.processes.start(role, {
      name: `${role}-${this.started}`,
      database,
      provider: this.provider.url,
      inFlight,
      onLost,
      times,
      batch: "",
      requests: 0,
      file: "",
      order: "completion",
      ...own
    })
  }

  fileOf(batch: string, order: Order): string {
    return join(this.folder, `${batch}-${order}.txt`)
  }

  /** Waits until a signal meets calls in flight, if the process makes calls. */
  private async busy(running: Running): Promise<void> {
    if (!isAsking(running)) return
    const end = performance.now() + 30_000
    while (this.provider.inFlightOf(running.name) === 0) {
      if (performance.now() > end) {
        throw new Error(`${running.name} makes no calls. The provider has had ${this.provider.calls}`)
      }
      await sleep(5)
    }
  }

  /** Kills a process. Calls that it makes may be made again. */
  async kill(running: Running): Promise<void> {
    await this.busy(running)
    running.signal("SIGKILL")
    await running.ended
    if (!isAsking(running)) return
    this.lapses(1)
    this.asking -= 1
  }

  /** Freezes a process for longer than its lease, and does `meanwhile` at its beginning. */
  async freeze(running: Running, meanwhile: () => void = () => {}): Promise<void> {
    await this.busy(running)
    running.signal("SIGSTOP")
    meanwhile()
    const frozen = sleep(this.options.frozenMillis ?? this.lease + 1_500)
    if (await this.isLocked()) this.lapses(this.asking)
    else if (isAsking(running)) this.lapses(1)
    await frozen
    running.signal("SIGCONT")
    // It finds out that it was frozen.
    await sleep(500)
  }

  /** A process that is frozen in a transaction locks a file of SQLite, so that the leases of all processes lapse. */
  private isLocked(): Promise<boolean> {
    if (!this.options.database.startsWith("sqlite:")) return Promise.resolve(false)
    return this.run(SqlClient.SqlClient.use((sql) =>
      sql.withTransaction(Effect.void).pipe(
        Effect.timeoutOption(1_500),
        Effect.map((begun) => begun._tag === "None")
      )
    ))
  }

  /** Stops a process, which costs nothing: it waits for its calls. */
  async stop(running: Running): Promise<void> {
    await this.busy(running)
    if (isAsking(running)) this.provider.release()
    running.signal("SIGTERM")
    await running.ended
    if (isAsking(running)) this.asking -= 1
  }

  /** The leases of these many processes lapse, and others ask what they have in flight. */
  lapses(processes: number): void {
    if (processes > 0) this.mayDeliverAgain = true
    this.mayAskAgain += processes * this.options.inFlight
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

  /** The message of a submitter that cannot. */
  refusal(options: Batches.SubmitOptions, count: number): Promise<string> {
    return this.runtime.runPromise(
      Batches.Batches.use((batches) => Effect.flip(batches.submit(options, requests(count)))).pipe(
        Effect.map(({ message }) => message)
      )
    )
  }

  status(batch: string): Promise<Status> {
    return this.run(Batches.Batches.use((batches) => batches.status(batch)))
  }

  /** Waits until the ledger has calls for this many requests. */
  asked(batch: string, keys: number): Promise<void> {
    return this.until(async () => this.provider.keysOf(batch) >= keys, `${keys} requests of ${batch} are asked`)
  }

  /** Waits until this many requests have a result. */
  answered(batch: string, count: number): Promise<void> {
    return this.until(async () => (await this.status(batch)).ok >= count, `${count} requests of ${batch} are answered`)
  }

  /** Waits until more than this many requests of a batch were handed out. */
  fedBeyond(batch: string, fed: number): Promise<void> {
    return this.until(async () => await this.fed(batch) > fed, `more than ${fed} requests of ${batch} are handed out`)
  }

  /** How many requests of a batch were handed out. */
  async fed(batch: string): Promise<number> {
    const [row] = await this.run(
      SqlClient.SqlClient.use((sql) => sql<{ readonly fed: unknown }>`select fed from sluice_batch where id = ${batch}`)
    )
    return Number(row?.fed)
  }

  /** The process that feeds, on Postgres, after all processes that can have joined. */
  async feederOf(processes: ReadonlyArray<Running>): Promise<Running> {
    let feeder: Running | undefined
    await this.until(async () => {
      const locks = await this.run(
        SqlClient.SqlClient.use((sql) =>
          sql<{ readonly shard_id: string; readonly address: string }>`select shard_id, address from sluice_batch_locks`
        )
      )
      const owner = locks.find(({ shard_id }) => shard_id === feederShard)?.address
      feeder = processes.find(({ child }) => owner?.includes(`/${child.pid}/`))
      return feeder !== undefined && new Set(locks.map(({ address }) => address)).size === processes.length
    }, "each process has a part of the shards")
    if (feeder === undefined) throw new Error("no process feeds")
    return feeder
  }

  /** Waits until a submitter has stored this many requests. */
  stored(batch: string, count: number): Promise<void> {
    return this.until(async () => {
      const [row] = await this.run(
        SqlClient.SqlClient.use((sql) =>
          sql<{ readonly last: unknown }>`select max(i.seq) as last from sluice_batch_item i
          join sluice_batch b on b.batch = i.batch where b.id = ${batch}`
        )
      )
      return Number(row?.last ?? -1) + 1 >= count
    }, `${count} requests of ${batch} are stored`)
  }

  /** The export of a batch that has ended has every result once, in its order. */
  checkExport(batch: string, count: number, order: Order): void {
    const file = this.fileOf(batch, order)
    const lines = existsSync(file) ? readFileSync(file, "utf8").split("\n").slice(0, -1) : []
    const keys = lines.map((line) => line.split(" ")[1])
    assert.equal(keys.length, count, `the export in order of ${order} has as many lines as the batch requests`)
    if (order === "input") assert.ok(keys.every((key, n) => key === `k${n}`), "the export is in order of input")
    else assert.equal(new Set(keys).size, count, "the export has every result once")
  }

  ended(batch: string): Promise<void> {
    return this.until(async () => isEnded((await this.status(batch)).state), `${batch} has ended`)
  }

  private async until(condition: () => Promise<boolean>, what: string): Promise<void> {
    const { patienceMillis = 240_000 } = this.options
    const end = performance.now() + patienceMillis
    while (!await condition()) {
      if (performance.now() > end) throw new Error(`not in ${patienceMillis / 1_000} s: ${what}`)
      await sleep(50)
    }
  }

  /** Waits until the batch has ended, and compares its tables, its results and the ledger. */
  async check(batch: string, count: number, state: State = "completed"): Promise<Counts> {
    await this.ended(batch)
    const status = await this.status(batch)
    assert.equal(status.state, state)
    assert.equal(status.total, count)
    const { failed, marked, ok } = await this.rowsOf(batch)
    assert.equal(ok + failed + marked, count, "every request has one row")
    assert.deepEqual(
      [status.ok, status.failed, status.marked],
      [ok, failed, marked],
      "the progress is that of the results"
    )
    const lines = await this.lines(batch)
    assert.deepEqual(lines, { output: ok, error: failed + marked }, "the output and the errors are all requests")
    assert.equal(status.micros, ok * 100, "every answer was counted as paid once")
    const again = this.provider.callsOf(batch) - this.provider.keysOf(batch)
    assert.ok(again <= this.mayAskAgain, `${again} requests were asked again, at most ${this.mayAskAgain} may be`)
    const attempts = await this.checkQueue()
    const seconds = (performance.now() - this.startedAt) / 1_000
    return { requests: count, ok, failed, marked, again, attempts, seconds }
  }

  /** Rows of results, by what they are. */
  private async rowsOf(batch: string) {
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
    return {
      ok: sum("ok"),
      failed: sum("failed", "worker_lost", "rounds_exhausted"),
      marked: sum("cancelled", "expired", "capped")
    }
  }

  /** Reads the results as a user does, and compares each with the ledger. */
  private async lines(batch: string): Promise<{ readonly output: number; readonly error: number }> {
    const { provider } = this
    let output = 0
    let error = 0
    await this.run(Batches.Batches.use((batches) => {
      output = 0
      error = 0
      return Stream.runForEach(
        batches.results(batch, { order: "input" }),
        ({ body, key, kind, seq }) =>
          Effect.sync(() => {
            assert.deepEqual([seq, key], [output + error, `k${output + error}`], "every request has one line")
            const wasAsked = provider.wasAsked(batch, seq)
            if (kind === "ok") {
              output += 1
              assert.ok(wasAsked, `request ${seq} has an answer, and was asked`)
              assert.ok(body === provider.answerTo(`${batch}/${seq}`), `request ${seq} has its own answer`)
              return
            }
            error += 1
            // A process that dies may take answers with it that were paid.
            if (kind !== "worker_lost") assert.ok(!wasAsked, `request ${seq} was paid, and has the result ${kind}`)
          })
      )
    }))
    return { output, error }
  }

  private async checkQueue(): Promise<number> {
    const [queue] = await this.run(
      SqlClient.SqlClient.use((sql) =>
        sql<{ readonly tickets: unknown; readonly failed: unknown; readonly attempts: unknown }>`
        select count(*) as tickets, count(case when state = 'failed' then 1 end) as failed, max(attempts) as attempts
        from sluice_batch_queue`
      )
    )
    assert.ok(Number(queue?.tickets) > 0, "the queue has had tickets")
    assert.equal(Number(queue?.failed), 0, "the queue gave up no ticket")
    const attempts = Number(queue?.attempts)
    if (!this.mayDeliverAgain) assert.equal(attempts, 1, "without a lapse each ticket is delivered once")
    return attempts
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.isOver = true
    await this.processes[Symbol.asyncDispose]()
    await this.runtime.dispose()
    await this.provider[Symbol.asyncDispose]()
    rmSync(this.folder, { recursive: true })
  }
}

const isAsking = ({ role }: Running): boolean => role === "worker" || role === "both"

export const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))
