import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { execFile } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { Times } from "../../../batch/src/internal/queue.ts"
import { type Contenders, Effort } from "../measure.ts"
import { type Latency, latencyOf } from "./batchLatency.ts"
import type { MachineFigures, MachineOptions } from "./batchMachine.ts"
import { progressReader } from "./batchProgress.ts"
import type { Builders } from "./builders.ts"

const machine = fileURLToPath(new URL("batchMachine.ts", import.meta.url))

const run = promisify(execFile)

const inFlight = 1_000

/** Answers a batch in a process of its own. */
const answered = async (
  options: Partial<MachineOptions> & { readonly requests: number }
): Promise<MachineFigures> => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-bench-"))
  try {
    const url = `sqlite:${join(folder, "batches.db")}`
    const all: MachineOptions = { url, inFlight, millis: 75, sigma: 0, isAlone: false, ahead: 0, ...options }
    const { stdout } = await run(process.execPath, [...process.execArgv, machine, JSON.stringify(all)])
    const figures: MachineFigures = JSON.parse(stdout)
    if (figures.ok !== options.requests) throw new Error(`${figures.ok} answers of ${options.requests}`)
    return figures
  } finally {
    rmSync(folder, { recursive: true })
  }
}

type Runs<Name extends string> = { readonly [_ in Name]: () => Promise<number> }

/** `--quick` answers a tenth. */
const ofRequests = <Name extends string>(
  make: (requests: number) => Runs<Name>
): Effect.Effect<Contenders<Name>, never, Scope.Scope> =>
  Effect.map(Effort, ({ prompts }) => ({ _tag: "Process", runs: make(prompts * 5) }))

const cpu = (requests: number, isAlone: boolean) => answered({ requests, isAlone }).then(({ cpu }) => cpu)
/** With calls of 10 ms the slots do not limit the rate: a million take a minute. */
const memory = (requests: number) => answered({ requests, millis: 10 }).then(({ memory }) => memory)

/** The time of a request, as the ceiling counts it: that of the batch, through the number of requests. */
const rate = (requests: number, options: Partial<MachineOptions>) =>
  answered({ ...options, requests }).then(({ seconds }) => seconds * 1e9 / requests)

const ceiling = (millis: number) => Promise.resolve(millis * 1e6 / inFlight)

/** A worker that takes the next ticket of 100 when all of one are answered, without any other cost. */
const wholeTickets = (requests: number, latency: Latency): number => {
  const size = 100
  const ends = Array.from({ length: inFlight / size }, () => 0)
  for (let from = 0; from < requests; from += size) {
    const slot = ends.indexOf(Math.min(...ends))
    const longest = Math.max(
      ...Array.from({ length: Math.min(size, requests - from) }, (_, n) => latencyOf(latency, from + n))
    )
    ends[slot] = (ends[slot] ?? 0) + longest
  }
  return Math.max(...ends) * 1e6 / requests
}

const recovery = fileURLToPath(new URL("../../../batch/test/fixtures/recovery.ts", import.meta.url))

/** Two processes with this many slots each. One is killed when half of the requests are answered. */
const killed = { requests: 1_500, inFlight: 50, millis: 200, times: Times.defaultValue() }

const allowed = {
  feederMillis: killed.times.lease + 2_000,
  doneMillis: killed.times.lease + killed.requests / 2 * killed.millis / killed.inFlight + 2_000
}

/** From the kill until requests are handed out again, or until the last result. */
const recovered = async (until: "feederMillis" | "doneMillis"): Promise<number> => {
  const { stdout } = await run(process.execPath, [...process.execArgv, recovery, JSON.stringify(killed)])
  const figures: typeof allowed = JSON.parse(stdout)
  return figures[until] * 1e6
}

/** Most of a round is the wait for the lease. */
const ofKills = <Name extends string>(runs: Runs<Name>): Effect.Effect<Contenders<Name>, never, Scope.Scope> =>
  Effect.map(Effort, ({ heldRounds }) => ({ _tag: "Process", rounds: heldRounds, runs }))

const small = { requests: 500, millis: 1_000 }
/** Four requests a slot wait in the queue, so a batch behind them waits for four calls. */
const windowPerSlot = 4

export const builders: Builders<"batch"> = {
  "batch-request": ofRequests((requests) => ({
    "the calls alone": () => cpu(requests, true),
    "Sluice": () => cpu(requests, false)
  })),
  "batch-rate": ofRequests((requests) => ({
    "the ceiling": () => ceiling(75),
    "Sluice": () => rate(requests, {})
  })),
  "batch-slow": ofRequests((requests) => ({
    "the ceiling": () => ceiling(2_000),
    "Sluice": () => rate(requests / 5, { millis: 2_000 })
  })),
  "batch-uneven": ofRequests((requests) => {
    const latency = { millis: 500, sigma: 0.8 }
    return {
      "whole tickets": () => Promise.resolve(wholeTickets(requests / 5, latency)),
      "Sluice": () => rate(requests / 5, latency)
    }
  }),
  "batch-small": ofRequests(() => ({
    "alone, and window": () =>
      rate(small.requests, small).then((nanos) =>
        nanos + (windowPerSlot * small.millis + 1_000) * 1e6 / small.requests
      ),
    "Sluice": () => rate(small.requests, { ...small, ahead: 30_000 })
  })),
  // Fewer requests end before the heap has its full size. One round takes a minute.
  "batch-memory": Effect.map(Effort, ({ prompts }) => ({
    _tag: "Process",
    rounds: 1,
    runs: {
      "a tenth of it": () => memory(prompts * 10),
      "Sluice": () => memory(prompts * 100)
    }
  })),
  "batch-stored": ofRequests((requests) => ({
    "Sluice": () => answered({ requests }).then(({ stored }) => stored)
  })),
  "batch-progress": Effect.gen(function*() {
    const { prompts } = yield* Effort
    const reading = yield* progressReader
    return {
      _tag: "Served",
      operations: 20,
      runs: {
        "1,000 requests": yield* reading(1_000),
        "Sluice": yield* reading(prompts * 100)
      }
    }
  }),
  "batch-feeder": ofKills({
    "lease and 2 s": () => Promise.resolve(allowed.feederMillis * 1e6),
    "Sluice": () => recovered("feederMillis")
  }),
  "batch-kill": ofKills({
    "lease, work and 2 s": () => Promise.resolve(allowed.doneMillis * 1e6),
    "Sluice": () => recovered("doneMillis")
  })
}
