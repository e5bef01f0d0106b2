/** What happens to a deployment, and what has to be true afterwards. The short forms run as tests, the long ones as `npm run soak`. */
import * as Batches from "@sluice/batch/Batches"
import assert from "node:assert/strict"
import type { OwnServer } from "../../../sql/test/support/server.ts"
import { type Counts, Deployment } from "./deployment.ts"
import type { Role } from "./processes.ts"

/** How large a scenario is. */
export interface Size {
  readonly requests: number
  readonly inFlight: number
  readonly millis: number
}

export type Signal = "SIGKILL" | "SIGSTOP" | "SIGTERM"

/** One signal to one role: the others finish, or it is started again and does. */
export const cell = async (database: string, role: Role, signal: Signal, size: Size): Promise<Counts> => {
  await using deployment = await Deployment.start({ database, ...size })
  const { provider } = deployment
  const count = size.requests
  const isWork = role === "worker" || role === "feeder" || role === "both"
  const hit = async (running: Awaited<ReturnType<Deployment["start"]>>) => {
    const isAsking = role === "worker" || role === "both"
    if (signal === "SIGKILL") await deployment.kill(running, isAsking)
    else if (signal === "SIGSTOP") await deployment.freeze(running, isAsking)
    else await deployment.stop(running)
  }
  const victim = isWork ? await deployment.start(role) : undefined
  await deployment.start("both")
  if (role === "submitter") {
    const submitter = await deployment.start("submitter", "file", count)
    await deployment.stored("file", count / 3)
    await hit(submitter)
    await (await deployment.start("submitter", "file", count)).ended
    return await deployment.check("file", count)
  }
  provider.holdAfter(Math.ceil(count * 0.9))
  await deployment.submit({ id: "file" }, count)
  const exporter = role === "exporter" ? await deployment.start("exporter", "file") : undefined
  await deployment.asked("file", Math.ceil(count * 0.4))
  if (victim !== undefined) await hit(victim)
  if (exporter !== undefined) {
    await hit(exporter)
    // It has what it wrote, and continues after it.
    if (signal !== "SIGSTOP") void deployment.start("exporter", "file")
  }
  provider.release()
  const counts = await deployment.check("file", count)
  if (exporter !== undefined) {
    await deployment.exported("file", count)
    deployment.checkExport("file", count)
  }
  return counts
}

/** Every signal to every role, one after the other, on one batch; then a cancel and a budget. */
export const storm = async (database: string, size: Size): Promise<Counts> => {
  await using deployment = await Deployment.start({ database, ...size })
  const { provider } = deployment
  const count = size.requests
  const submitter = await deployment.start("submitter", "file", count)
  await deployment.stored("file", count / 4)
  submitter.signal("SIGKILL")
  await submitter.ended
  const [second, ...others] = await Promise.all([
    deployment.start("submitter", "file", count),
    ...(["worker", "worker", "feeder", "feeder", "both", "both"] as const).map((role) => deployment.start(role))
  ])
  const [worker, worker2, feeder, feeder2, both, both2] = others
  assert.ok(worker && worker2 && feeder && feeder2 && both && both2)
  second.signal("SIGSTOP")
  provider.holdAfter(Math.ceil(count * 0.9))
  second.signal("SIGCONT")
  await second.ended
  const exporter = await deployment.start("exporter", "file")
  await deployment.asked("file", count * 0.2)
  await Promise.all([deployment.kill(worker), deployment.kill(feeder, false), deployment.kill(both)])
  exporter.signal("SIGKILL")
  await deployment.asked("file", count * 0.3)
  const exporter2 = await deployment.start("exporter", "file")
  await Promise.all([
    deployment.freeze(worker2),
    deployment.freeze(feeder2, false),
    deployment.freeze(exporter2, false)
  ])
  await deployment.freeze(both2)
  const last = await deployment.start("both")
  await Promise.all([
    deployment.stop(worker2),
    deployment.stop(feeder2),
    deployment.stop(both2),
    deployment.stop(exporter2)
  ])
  provider.release()
  const counts = await deployment.check("file", count)
  const exporter3 = await deployment.start("exporter", "file")
  await exporter3.ended
  deployment.checkExport("file", count)
  await deployment.submit({ id: "cancelled" }, count)
  await deployment.asked("cancelled", count * 0.1)
  const cancelledAt = performance.now()
  await deployment.run(Batches.Batches.use((batches) => batches.cancel("cancelled")))
  await deployment.submit({ id: "capped", maxCost: { micros: 10_050 } }, count)
  const cancelled = await deployment.check("cancelled", count, "cancelled")
  assert.ok(
    (provider.askedAt.get("cancelled") ?? Infinity) - cancelledAt < 1_500,
    "no call begins 1.5 s after a cancel"
  )
  assert.equal(cancelled.ok, provider.keysOf("cancelled"), "answers in flight at a cancel are kept")
  const capped = await deployment.check("capped", count, "capped")
  assert.equal(capped.ok, 100, "a budget is spent and not exceeded")
  await deployment.stop(last)
  return counts
}

const restart = async (server: OwnServer, how: "shutDown" | "crash", awaySeconds: number) => {
  server[how]()
  await new Promise((resolve) => setTimeout(resolve, awaySeconds * 1_000))
  server.start()
}

/** The database restarts under two workers. */
export const restarts = async (server: OwnServer, size: Size, awaySeconds: number): Promise<Counts> => {
  await using deployment = await Deployment.start({ database: server.url, ...size })
  const count = size.requests
  await Promise.all([deployment.start("both"), deployment.start("both")])
  deployment.provider.holdAfter(Math.ceil(count * 0.9))
  await deployment.submit({ id: "file" }, count)
  await deployment.asked("file", count * 0.2)
  await restart(server, "shutDown", 0)
  await deployment.asked("file", count * 0.4)
  await restart(server, "crash", 0)
  await deployment.asked("file", count * 0.6)
  // Longer than the lease, so other workers may take what is held.
  deployment.mayAskAgain += 2 * size.inFlight
  await restart(server, "shutDown", awaySeconds)
  deployment.provider.release()
  return await deployment.check("file", count)
}

/** One request kills every process that asks it. */
export const poison = async (database: string, size: Size): Promise<Counts> => {
  await using deployment = await Deployment.start({ database, ...size })
  const life = async (): Promise<void> => {
    deployment.mayAskAgain += size.inFlight
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

/** The provider is down, and a worker dies. */
export const outage = async (
  database: string,
  size: Size,
  options: { readonly onLost: "ask-again" | "fail"; readonly downMillis: number }
): Promise<Counts> => {
  await using deployment = await Deployment.start({ database, ...size, onLost: options.onLost })
  const { provider } = deployment
  const count = size.requests
  const [first] = await Promise.all([deployment.start("both"), deployment.start("both")])
  provider.holdAfter(Math.ceil(count * 0.9))
  await deployment.submit({ id: "file" }, count)
  await deployment.asked("file", count * 0.2)
  provider.isDown = true
  const before = provider.calls
  await new Promise((resolve) => setTimeout(resolve, options.downMillis))
  provider.isDown = false
  // What was in flight, what was asked before it failed, and two probes a second for each process.
  const calls = provider.calls - before
  assert.ok(calls <= 4 * size.inFlight + options.downMillis / 200, `an outage is not a mill of calls: ${calls}`)
  await deployment.asked("file", count * 0.5)
  await deployment.kill(first)
  provider.release()
  const counts = await deployment.check("file", count)
  if (options.onLost === "fail") {
    assert.equal(counts.again, 0, "no request is asked twice")
    assert.ok(counts.failed <= size.inFlight, "only what was in flight is lost")
  } else assert.equal(counts.failed, 0)
  return counts
}
