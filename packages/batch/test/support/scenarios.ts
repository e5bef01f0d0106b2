/** What happens to a deployment, and what has to be true afterwards. The short forms run as tests, the long ones as `npm run soak`. */
import * as Batches from "@sluice/batch/Batches"
import assert from "node:assert/strict"
import type { OwnServer } from "../../../sql/test/support/server.ts"
import { type Counts, Deployment, type Size, sleep } from "./deployment.ts"
import type { PlaceOnDisk } from "./places.ts"
import type { Order, Running } from "./processes.ts"

export type { Size } from "./deployment.ts"

export type Signal = "SIGKILL" | "SIGSTOP" | "SIGTERM"

/** How much the provider answers before an event is over: what is left is more than the other processes hold, so each has calls in flight. */
const answered = 0.6

const orders: ReadonlyArray<Order> = ["input", "completion"]

const send = (deployment: Deployment, running: Running, signal: Signal): Promise<void> =>
  signal === "SIGKILL"
    ? deployment.kill(running)
    : signal === "SIGSTOP"
    // The others need slots for what the frozen process holds.
    ? deployment.freeze(running, () => deployment.provider.release())
    : deployment.stop(running)

/** A worker and a process that works and feeds, with a batch of which they have asked some. The provider holds back the last answers. */
const workers = async (deployment: Deployment, count: number): Promise<readonly [Running, Running]> => {
  const both = [await deployment.start("both"), await deployment.start("both")] as const
  deployment.provider.holdAfter(Math.ceil(count * answered))
  await deployment.submit({ id: "file" }, count)
  await deployment.asked("file", Math.ceil(count * 0.3))
  return both
}

/** One signal to one process that works or feeds: another one finishes. */
export const engine = async (
  database: string,
  role: "worker" | "feeder" | "both",
  signal: Signal,
  size: Size
): Promise<Counts> => {
  await using deployment = await Deployment.start({ database, ...size })
  const { provider } = deployment
  const count = size.requests
  const victim = await deployment.start(role)
  await deployment.start("both")
  provider.holdAfter(Math.ceil(count * answered))
  await deployment.submit({ id: "file" }, count)
  await deployment.asked("file", Math.ceil(count * 0.4))
  await send(deployment, victim, signal)
  provider.release()
  return await deployment.check("file", count)
}

/** A submitter stores 2,000 requests at once, and is hit before the last ones. */
const leastToSubmit = 10_000

const inFile = async (deployment: Deployment): Promise<void> =>
  assert.equal((await deployment.status("file")).state, "validating", "the signal hits the submitter in its file")

/** One signal to a submitter: it continues, or does when it is started again. */
export const submitter = async (database: string, signal: Signal, size: Size): Promise<Counts> => {
  await using deployment = await Deployment.start({ database, ...size })
  const count = Math.max(size.requests, leastToSubmit)
  await deployment.start("both")
  const victim = await deployment.startSubmitter("file", count)
  await deployment.stored("file", count / 3)
  const sent = send(deployment, victim, signal)
  await sleep(200)
  await inFile(deployment)
  await sent
  await (signal === "SIGSTOP" ? victim : await deployment.startSubmitter("file", count)).ended
  return await deployment.check("file", count)
}

/** One signal to an exporter in each order: it continues, or does when it is started again. */
export const exporter = async (database: string, signal: Signal, size: Size): Promise<Counts> => {
  await using deployment = await Deployment.start({ database, ...size })
  const { provider } = deployment
  const count = size.requests
  await deployment.start("both")
  provider.holdAfter(Math.ceil(count * answered))
  await deployment.submit({ id: "file" }, count)
  const victims = await Promise.all(orders.map((order) => deployment.startExporter("file", order)))
  await deployment.asked("file", Math.ceil(count * 0.4))
  await Promise.all(victims.map((victim) => send(deployment, victim, signal)))
  // It has what it wrote, and continues after it.
  const exporters = signal === "SIGSTOP"
    ? victims
    : await Promise.all(orders.map((order) => deployment.startExporter("file", order)))
  provider.release()
  const counts = await deployment.check("file", count)
  await Promise.all(exporters.map(({ ended }) => ended))
  for (const order of orders) deployment.checkExport("file", count, order)
  return counts
}

/** Every signal to every role, one after the other, on one batch; then a cancel and a budget. */
export const storm = async (
  database: string,
  size: Size,
  report: (what: string) => void = () => {}
): Promise<Counts> => {
  await using deployment = await Deployment.start({ database, ...size })
  const { provider } = deployment
  const count = Math.max(size.requests, leastToSubmit)
  const stage = async <A>(what: string, run: () => Promise<A>): Promise<A> => {
    report(what)
    return await run()
  }
  const clock = setInterval(() =>
    void deployment.status("file").then(
      ({ failed, ok, state }) =>
        report(
          `${state}: ${provider.keysOf("file")} asked, ${ok} ok, ${failed} failed, ${
            provider.callsOf("file") - provider.keysOf("file")
          } again`
        ),
      () => report("the status cannot be read")
    ), 30_000)
  using _ = { [Symbol.dispose]: () => clearInterval(clock) }
  // Before any worker starts: those that start first could ask the whole batch while a busy machine starts the others.
  provider.holdAfter(Math.ceil(count * answered))
  const first = await deployment.startSubmitter("file", count)
  await stage("submitting", () => deployment.stored("file", count / 4))
  await deployment.kill(first)
  await inFile(deployment)
  const second = await deployment.startSubmitter("file", count)
  second.signal("SIGSTOP")
  const [worker, worker2, feeder, feeder2, both, both2] = [
    await deployment.start("worker"),
    await deployment.start("worker"),
    await deployment.start("feeder"),
    await deployment.start("feeder"),
    await deployment.start("both"),
    await deployment.start("both")
  ]
  await inFile(deployment)
  second.signal("SIGCONT")
  await stage("the submitter was killed and frozen, and submits the rest", () => second.ended)
  const exporter = await deployment.startExporter("file", "completion")
  await stage("asking", () => deployment.asked("file", count * 0.2))
  await stage(
    "kill -9 of a worker, a feeder, both and an exporter",
    () => Promise.all([worker, feeder, both, exporter].map((running) => deployment.kill(running)))
  )
  await deployment.asked("file", count * 0.3)
  const exporter2 = await deployment.startExporter("file", "completion")
  await stage(
    "freeze of a worker, a feeder and an exporter",
    () => Promise.all([worker2, feeder2, exporter2].map((running) => deployment.freeze(running)))
  )
  await stage("freeze of both", () => deployment.freeze(both2))
  const last = await deployment.start("both")
  await deployment.asked("file", count * 0.5)
  await stage(
    "stop of a worker, a feeder, both and an exporter",
    () => Promise.all([worker2, feeder2, both2, exporter2].map((running) => deployment.stop(running)))
  )
  provider.release()
  const counts = await stage("one process finishes", () => deployment.check("file", count))
  const exporter3 = await deployment.startExporter("file", "completion")
  await stage("exporting", () => exporter3.ended)
  deployment.checkExport("file", count, "completion")
  await stage("a cancel and a budget", () => ends(deployment, Math.min(count, 20_000)))
  last.signal("SIGTERM")
  await last.ended
  return counts
}

/** A batch that is cancelled, and one whose budget is spent. */
const ends = async (deployment: Deployment, count: number): Promise<void> => {
  const { provider } = deployment
  await deployment.submit({ id: "cancelled" }, count)
  await deployment.asked("cancelled", count * 0.1)
  const cancelledAt = performance.now()
  await deployment.run(Batches.Batches.use((batches) => batches.cancel("cancelled")))
  await deployment.submit({ id: "capped", maxCost: { micros: 10_050 } }, count)
  const cancelled = await deployment.check("cancelled", count, "cancelled")
  assert.ok(provider.askedAt("cancelled") - cancelledAt < 1_500, "no call begins 1.5 s after a cancel")
  assert.equal(cancelled.ok, provider.keysOf("cancelled"), "answers in flight at a cancel are kept")
  const capped = await deployment.check("capped", count, "capped")
  assert.equal(capped.ok, 100, "a budget is spent and not exceeded")
}

/** The database restarts under two workers. */
export const restart = async (
  server: OwnServer,
  how: "shutDown" | "crash",
  awaySeconds: number,
  size: Size
): Promise<Counts> => {
  await using deployment = await Deployment.start({ database: server.url, ...size })
  await workers(deployment, size.requests)
  const startedAt = performance.now()
  server[how]()
  await sleep(awaySeconds * 1_000)
  server.start()
  // Away for as long as the lease, other workers may take what is held.
  if (performance.now() - startedAt > deployment.lease / 2) deployment.lapses(2)
  deployment.provider.release()
  return await deployment.check("file", size.requests)
}

/** The disk of the database is full for a while. */
export const fullDisk = async (
  { disk, mend, url }: PlaceOnDisk,
  fullSeconds: number,
  size: Size
): Promise<Counts> => {
  await using deployment = await Deployment.start({ database: url, ...size, answerBytes: 4_000 })
  const { provider } = deployment
  const count = size.requests
  await Promise.all([deployment.start("both"), deployment.start("both")])
  await deployment.submit({ id: "file" }, count)
  await deployment.asked("file", Math.ceil(count * 0.2))
  disk.fill()
  deployment.lapses(2)
  const calls = await untilQuiet(() => provider.calls)
  await sleep(fullSeconds * 1_000)
  assert.equal(provider.calls, calls, "no call is made while the disk is full and no answer can be stored")
  assert.ok(provider.keysOf("file") < count, "the disk is full before the batch has ended")
  if (mend === undefined) {
    const unstored = provider.keysOf("file") - (await deployment.status("file")).ok
    assert.ok(unstored <= 2 * size.inFlight, `${unstored} answers are not stored, at most one for each slot`)
    assert.match(await deployment.refusal({ id: "other" }, 10_000), /\(DiskFull\)\. Free space/)
  }
  disk.free()
  mend?.()
  return await deployment.check("file", count)
}

/** Waits until a count has not changed for two seconds. */
const untilQuiet = async (count: () => number): Promise<number> => {
  for (let tries = 0; tries < 120; tries++) {
    const before = count()
    await sleep(2_000)
    if (count() === before) return before
  }
  throw new Error("calls do not end")
}

/** One request kills every process that asks it. */
export const poison = async (database: string, size: Size): Promise<Counts> => {
  await using deployment = await Deployment.start({ database, ...size })
  const life = async (): Promise<void> => {
    deployment.lapses(1)
    await (await deployment.start("both")).ended
    return deployment.isOver ? undefined : life()
  }
  await deployment.submit({ id: "file" }, size.requests, Math.floor(size.requests / 2))
  void life()
  const counts = await deployment.check("file", size.requests)
  assert.equal(counts.failed, 1, "only the poisonous request is lost")
  assert.equal(deployment.provider.keysOf("file"), size.requests - 1)
  return counts
}

/** The provider is down. */
export const outage = async (database: string, downMillis: number, size: Size): Promise<Counts> => {
  await using deployment = await Deployment.start({ database, ...size })
  await workers(deployment, size.requests)
  await down(deployment, downMillis, size)
  deployment.provider.release()
  const counts = await deployment.check("file", size.requests)
  assert.equal(counts.failed, 0, "every request is answered")
  return counts
}

const down = async ({ provider }: Deployment, downMillis: number, size: Size): Promise<void> => {
  provider.isDown = true
  const before = provider.calls
  await sleep(downMillis)
  provider.isDown = false
  // What was in flight, what was asked before it failed, and two probes a second for each process.
  const calls = provider.calls - before
  assert.ok(calls <= 4 * size.inFlight + downMillis / 200, `an outage is not a mill of calls: ${calls}`)
}

/** The provider ignores keys, so no request is asked twice, and a worker gets a signal after an outage. */
export const ignoredKeys = async (
  database: string,
  signal: Signal,
  downMillis: number,
  size: Size
): Promise<Counts> => {
  await using deployment = await Deployment.start({ database, ...size, onLost: "fail" })
  const { provider } = deployment
  const [victim] = await workers(deployment, size.requests)
  await down(deployment, downMillis, size)
  await deployment.asked("file", Math.ceil(size.requests * 0.5))
  await send(deployment, victim, signal)
  const mayLose = deployment.mayAskAgain
  deployment.mayAskAgain = 0
  provider.release()
  const counts = await deployment.check("file", size.requests)
  assert.ok(counts.failed <= mayLose, `${counts.failed} requests are lost, at most ${mayLose} were in flight`)
  return counts
}
