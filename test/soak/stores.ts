/** The soak of the stores: eight processes on Redis, on Postgres and on a file of SQLite, SLUICE_SECONDS of trouble each (default 60). */
import { Effect } from "effect"
import { soak } from "./fleet.ts"
import * as Servers from "./servers.ts"
import { probes, rate } from "./worker.ts"

const seconds = Number(process.env["SLUICE_SECONDS"] ?? 60)
if (!(seconds >= 1)) throw new Error("SLUICE_SECONDS must be a number, at least 1")

const processes = 8
/** Used up before the end, also on a busy machine. */
const budget = 2 * seconds

const print = (label: string, value: number | string) => process.stdout.write(`  ${label.padEnd(46)} ${value}\n`)

const stores = [["Redis", Servers.redis], ["Postgres", Servers.postgres], ["SQLite", Servers.sqlite]] as const

for (const [name, start] of stores) {
  const server = await start()
  try {
    process.stdout.write(`${processes} processes on ${name}, ${seconds} s\n`)
    const counts = await Effect.runPromise(soak({ server, processes, seconds, budget }))
    print("processes killed", counts.kills)
    print("processes stopped for a while", counts.freezes)
    print(server.labels.restart, counts.restarts)
    print(server.labels.freeze, counts.serverFreezes)
    print("calls at the provider", counts.calls)
    print("calls answered", counts.ok)
    print("  of them without a store", counts.okWithoutStore)
    print("calls that the provider failed", counts.failed)
    print("calls refused by circuits and rates", counts.refused)
    print("calls refused for a budget without a store", counts.storeDown)
    print("circuits opened", counts.openings)
    print("probes", counts.probes)
    print(`most probes of a circuit at once, of ${probes}`, counts.mostProbes)
    print(`most calls in a window, of ${rate.limit}`, counts.mostOfRate)
    print(`calls on the budget, of ${budget}`, counts.paid)
    print("answers to questions", counts.answers)
    print("  calls made for them", counts.asked)
    print("  answers shared", counts.answers - counts.asked)
    print("  taken over from killed processes", counts.takeovers)
    print("  made twice at once with a store", counts.twice)
    print("recovery of all circuits", `${counts.recoveryMillis} ms`)
    print("wrong", counts.wrong.length)
    for (const why of new Set(counts.wrong)) process.stdout.write(`    ${why}\n`)
    if (counts.wrong.length > 0) process.exitCode = 1
  } finally {
    await server.stop()
  }
}
