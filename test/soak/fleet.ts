/**
 * Processes that share circuits, quotas and flights while they are killed and frozen, and the server of their store is restarted, or its
 * file locked. A provider that they call is the witness: it counts calls where they arrive.
 */
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { QuotaStore } from "@sluice/core/QuotaStore"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Clock, Effect, Layer, Logger, Random } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:net"
import type { AddressInfo, Socket } from "node:net"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import type { Server } from "./servers.ts"
import {
  account,
  type Answered,
  keys,
  leaseMillis,
  type Leases,
  type Line,
  probes,
  questions,
  rate,
  storesOf
} from "./worker.ts"

export interface Options {
  readonly server: Server
  readonly processes: number
  readonly seconds: number
  /** The calls that a budget allows in all. */
  readonly budget: number
}

export interface Counts {
  calls: number
  ok: number
  failed: number
  refused: number
  /** Calls that succeeded while the server was stopped or frozen. */
  okWithoutStore: number
  /** Calls with a budget that were refused while the store was down. */
  storeDown: number
  paid: number
  kills: number
  freezes: number
  serverFreezes: number
  restarts: number
  openings: number
  probes: number
  mostProbes: number
  mostOfRate: number
  recoveryMillis: number
  /** Answers to questions, and the calls that were made for them. */
  answers: number
  asked: number
  /** Calls whose process was killed, so that another process made them again. */
  takeovers: number
  /** Calls for a question that was being answered, while the store worked. */
  twice: number
  /** What must not happen. */
  readonly wrong: Array<string>
}

/** Fails calls of a key for some time, at other times than those of the other keys. */
const downMillis = 1_500

/** How long its sums cannot be checked after an outage: a window, and the time in which a process may notice that it is over. */
const troubledMillis = rate.windowMillis + 3_000

/** How long the store is left alone after its sums can be checked again. */
const calmMillis = 5_000

/** A call for a question. */
interface AskedCall {
  readonly question: string
  readonly isSober: boolean
  /** `undefined` while it is in flight. */
  endedAt: number | undefined
  wasAborted: boolean
}

interface Seen {
  calls: number
  paid: number
  isHealed: boolean
  /** Whether the store works, and has done so for a while. */
  isSober: () => boolean
  twice: number
  readonly asked: Array<AskedCall>
}

interface Provider {
  readonly port: number
  readonly seen: Seen
}

/** Long enough that many processes are killed while they lead. */
const answerMillis = 500

/** Answers a question with its text and the number of the call. */
const answerTo = (seen: Seen, question: string, socket: Socket) => {
  const call: AskedCall = { question, isSober: seen.isSober(), endedAt: undefined, wasAborted: false }
  const others = seen.asked.slice(-100).filter((one) => one.question === question && one.endedAt === undefined)
  if (call.isSober && others.some(({ isSober }) => isSober)) seen.twice++
  const nth = seen.asked.push(call) - 1
  const answered = setTimeout(() => {
    call.endedAt = Date.now()
    socket.end(`${question} ${nth}`)
  }, answerMillis)
  socket.once("close", () => {
    if (call.endedAt !== undefined) return
    clearTimeout(answered)
    call.endedAt = Date.now()
    call.wasAborted = true
  })
}

const startProvider = Effect.acquireRelease(
  Effect.promise(async () => {
    const seen: Seen = { calls: 0, paid: 0, isHealed: false, isSober: () => true, twice: 0, asked: [] }
    const server = createServer((socket) => {
      socket.setEncoding("utf8").on("error", () => {}).once("data", (line: string) => {
        const key = line.trim()
        if (key.startsWith("ask ")) return answerTo(seen, key.slice(4), socket)
        const nth = ++seen.calls
        if (key === "money") seen.paid++
        const phase = Math.floor(performance.now() / downMillis) + keys.findIndex((one) => one === key)
        const isDown = key !== "money" && !seen.isHealed && phase % 2 === 0
        setTimeout(() => socket.end(isDown ? "0" : "1"), nth % 20 === 0 ? 300 : 5)
      })
    })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    return { server, provider: { seen, port: (server.address() as AddressInfo).port } satisfies Provider }
  }),
  ({ server }) => Effect.sync(() => server.close())
)

const script = fileURLToPath(new URL("worker.ts", import.meta.url))

export const soak = (options: Options): Effect.Effect<Counts, unknown> => {
  const { server: { url } } = options
  const tables = url.startsWith("unix:")
    ? Effect.void
    : Effect.provide(SqlStores.migrate(), SqlDatabase.layer({ url }))
  return Effect.andThen(
    tables,
    run(options).pipe(Effect.provide(Layer.provideMerge(storesOf(url), Logger.layer([]))))
  )
}

const run = (options: Options) =>
  Effect.gen(function*() {
    const { budget, processes, seconds, server } = options
    const counts: Counts = {
      calls: 0,
      ok: 0,
      failed: 0,
      refused: 0,
      okWithoutStore: 0,
      storeDown: 0,
      paid: 0,
      kills: 0,
      freezes: 0,
      serverFreezes: 0,
      restarts: 0,
      openings: 0,
      probes: 0,
      mostProbes: 0,
      mostOfRate: 0,
      recoveryMillis: 0,
      answers: 0,
      asked: 0,
      takeovers: 0,
      twice: 0,
      wrong: []
    }
    const { provider: { port, seen } } = yield* startProvider
    const leases: Array<Leases> = []
    let hasStore = true
    const read = (line: string): void => {
      // The last line of a killed process may be incomplete.
      if (!line.endsWith("}")) return
      const said = JSON.parse(line) as Line
      if (said.is !== "ends") return void leases.push(said)
      const { answers, broken, failed, ok, refused, storeDown } = said
      counts.answers += answers.length
      for (const answered of answers) {
        const why = whyWrong(answered, seen.asked)
        if (why !== undefined) counts.wrong.push(why)
      }
      counts.ok += ok
      counts.failed += failed
      counts.refused += refused
      counts.storeDown += storeDown
      if (!hasStore) counts.okWithoutStore += ok
      for (const why of broken) counts.wrong.push(`a call failed because of the store: ${why}`)
    }
    const children = new Set<ChildProcess>()
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const child of children) child.kill("SIGKILL")
      })
    )
    const start = Effect.callback<void>((resume) => {
      const args = [server.url, port, processes, budget].map(String)
      const child = spawn(process.execPath, ["--conditions=@sluice/source", script, ...args], {
        stdio: ["ignore", "pipe", "inherit"]
      })
      children.add(child)
      createInterface({ input: child.stdout }).on("line", (line) => {
        read(line)
        resume(Effect.void)
      })
      child.once("exit", (code, signal) => {
        children.delete(child)
        if (signal !== "SIGKILL") counts.wrong.push(`a process ended by itself: ${code ?? signal}`)
        resume(Effect.void)
      })
    })
    yield* Effect.all(Array.from({ length: processes }, () => start), { concurrency: "unbounded" })

    // ---------- watching the store

    const circuits = yield* CircuitBreakerStore
    const quotas = yield* QuotaStore
    const window = { calls: 0, bucketMillis: 0, buckets: 0 }
    const generations = new Map<string, number>()
    // While the store is down each process uses its part of a rate, which is added to the sums afterwards.
    let soberUntil = 0
    seen.isSober = () => hasStore && Date.now() >= soberUntil
    const look = Effect.gen(function*() {
      for (const key of keys) {
        const { control, generation, probing } = yield* circuits.read({ key, window })
        counts.mostProbes = Math.max(counts.mostProbes, probing)
        if (control._tag === "Open" && generations.get(key) !== generation) counts.openings++
        generations.set(key, generation)
      }
      // Also a busy machine stops a process that holds the lock on a file.
      if (yield* Effect.promise(server.isHeld)) soberUntil = (yield* Clock.currentTimeMillis) + troubledMillis
      const levels = yield* quotas.read({ target: account, scopes: ["all"] })
      const used = Math.max(0, ...levels.map(({ used }) => used))
      if (!hasStore || (yield* Clock.currentTimeMillis) < soberUntil) return
      counts.mostOfRate = Math.max(counts.mostOfRate, used)
      if (used > rate.limit) counts.wrong.push(`${used} of ${rate.limit} in a window`)
    }).pipe(Effect.timeoutOption(500), Effect.ignore)
    yield* Effect.forkScoped(Effect.forever(Effect.delay(look, 50)))

    // ---------- trouble

    const outage = (run: Effect.Effect<void>) =>
      Effect.gen(function*() {
        hasStore = false
        yield* run
        hasStore = true
        soberUntil = (yield* Clock.currentTimeMillis) + troubledMillis
      })
    const victim = Effect.map(
      Random.nextIntBetween(0, children.size, { halfOpen: true }),
      (nth) => [...children][nth]
    )
    const kill = Effect.gen(function*() {
      counts.kills++
      ;(yield* victim)?.kill("SIGKILL")
      yield* Effect.forkScoped(start)
    })
    const freeze = Effect.gen(function*() {
      counts.freezes++
      const child = yield* victim
      child?.kill("SIGSTOP")
      const stopped = Effect.sleep(yield* Random.nextIntBetween(200, 1_500))
      yield* (yield* Effect.promise(server.isHeld)) ? outage(stopped) : stopped
      child?.kill("SIGCONT")
    })
    const freezeServer = Effect.gen(function*() {
      const millis = yield* Random.nextIntBetween(300, 1_200)
      counts.serverFreezes++
      yield* outage(Effect.promise(() => server.freeze(millis)))
    })
    const restart = Effect.gen(function*() {
      const millis = yield* Random.nextIntBetween(500, 1_500)
      counts.restarts++
      yield* outage(Effect.promise(() => server.restart(millis)))
    })
    const pause = Effect.flatMap(Random.nextIntBetween(50, 400), (millis) => Effect.sleep(millis))
    // For most of the time the store is there, so that its sums can be checked.
    const calm = Effect.forEach([kill, freeze, kill, kill, freeze, kill], (trouble) => Effect.andThen(trouble, pause))
    const round = [kill, restart, freeze, kill, freezeServer]
    const endsAt = (yield* Clock.currentTimeMillis) + seconds * 1_000
    const isOver = Effect.map(Clock.currentTimeMillis, (now) => now >= endsAt)
    yield* Effect.sleep(500)
    // A short soak has each kind once.
    do {
      for (const trouble of round) yield* Effect.andThen(trouble, pause)
      while (!(yield* isOver) && (yield* Clock.currentTimeMillis) < soberUntil + calmMillis) yield* calm
      // A busy machine may have made no call meanwhile.
    } while (!(yield* isOver) || counts.openings === 0 || counts.okWithoutStore === 0)

    // ---------- recovery

    seen.isHealed = true
    const healedAt = yield* Clock.currentTimeMillis
    const before = counts.ok
    const closed = Effect.forEach(keys, (key) => circuits.read({ key, window })).pipe(
      Effect.map((snapshots) => snapshots.every(({ control }) => control._tag === "Closed")),
      Effect.orElseSucceed(() => false)
    )
    const recovered = yield* closed.pipe(
      Effect.delay(50),
      Effect.repeat({ until: (isClosed) => isClosed && counts.ok > before + processes * keys.length }),
      Effect.timeoutOption("60 seconds")
    )
    if (recovered._tag === "None") counts.wrong.push("a circuit did not recover within 60 s")
    counts.recoveryMillis = (yield* Clock.currentTimeMillis) - healedAt
    for (const child of children) child.kill("SIGKILL")
    counts.calls = seen.calls
    counts.paid = seen.paid
    counts.asked = seen.asked.length
    counts.takeovers = takeoversOf(seen.asked)
    counts.twice = seen.twice
    // A process that was stopped for longer than its lease, or is as slow, goes on with its call.
    const spare = (counts.freezes + counts.kills) * questions.length
    if (seen.twice > spare) counts.wrong.push(`${seen.twice} calls for questions that were being answered`)
    const aborted = seen.asked.filter(({ wasAborted }) => wasAborted).length
    // The last processes are killed at the end.
    const mayAbort = (counts.kills + processes) * questions.length
    if (aborted > mayAbort) counts.wrong.push(`${aborted} calls of ${counts.kills} killed processes were made again`)
    if (seen.paid > budget) counts.wrong.push(`${seen.paid} calls on a budget of ${budget}`)
    countProbes(leases, counts)
    return counts
  }).pipe(Effect.scoped)

/** The calls that were made again, for a question whose last call was of a killed process. */
const takeoversOf = (calls: ReadonlyArray<AskedCall>): number =>
  questions.reduce((sum, question) => {
    const own = calls.filter((call) => call.question === question)
    return sum + own.filter((_, nth) => own[nth - 1]?.wasAborted === true).length
  }, 0)

/** Why an answer is wrong: it answers another question, or is of a call that had ended before. */
const whyWrong = ({ answer, askedAt, question }: Answered, calls: ReadonlyArray<AskedCall>): string | undefined => {
  const [of, nth] = answer.split(" ")
  const call = calls[Number(nth)]
  if (of !== question || call?.question !== question) return `"${answer}" is no answer to ${question}`
  // Until the leader has stored its answer, a question waits for it: at most for a lease, and for what a busy machine adds.
  const lateMillis = askedAt - (call.endedAt ?? askedAt)
  return lateMillis > leaseMillis + 1_000
    ? `an answer that was ${lateMillis} ms old when ${question} was asked`
    : undefined
}

/** Counts the leases that were live at once, as the store reported them, and as it granted them. */
const countProbes = (leases: ReadonlyArray<Leases>, counts: Counts): void => {
  const freedAt = new Map<string, number>()
  for (const lease of leases) if (lease.is === "freed") freedAt.set(lease.id, lease.at)
  for (const key of keys) {
    // A lease is renewed under its id.
    const live = new Map<string, { from: number; until: number }>()
    for (const lease of leases) {
      if (lease.key !== key) continue
      if (lease.is === "seen") counts.mostProbes = Math.max(counts.mostProbes, lease.probing)
      if (lease.is !== "granted") continue
      const { at, expiresAt, id } = lease
      const known = live.get(id)
      const until = Math.min(freedAt.get(id) ?? expiresAt, expiresAt)
      live.set(id, { from: Math.min(known?.from ?? at, at), until: Math.max(known?.until ?? 0, until) })
    }
    counts.probes += live.size
    // A lease that is granted in the millisecond in which another ends does not count twice.
    const events = [...live.values()].flatMap(({ from, until }) =>
      until > from ? [{ at: from, by: 1 }, { at: until, by: -1 }] : []
    ).toSorted((a, b) => a.at - b.at || a.by - b.by)
    let atOnce = 0
    for (const { by } of events) {
      atOnce += by
      counts.mostProbes = Math.max(counts.mostProbes, atOnce)
    }
  }
  if (counts.mostProbes > probes) counts.wrong.push(`${counts.mostProbes} probes at once of ${probes}`)
}
