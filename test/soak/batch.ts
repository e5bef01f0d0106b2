/** The kill matrix of batches. Each line is a scenario: what was hit, on which database, and what the tables and the ledger say. */
import type { Counts } from "../../packages/batch/test/support/deployment.ts"
import * as Places from "../../packages/batch/test/support/places.ts"
import * as Scenarios from "../../packages/batch/test/support/scenarios.ts"

const requests = Number(process.env["SLUICE_ITEMS"] ?? 100_000)
if (!Number.isInteger(requests) || requests < 1_000) {
  throw new Error("SLUICE_ITEMS must be a whole number, at least 1000")
}

// A few minutes of answers for two processes, or as much as they manage.
const size = { requests, inFlight: 500, millis: 75 }

const print = (text: string) => process.stdout.write(`${text}\n`)

const columns = [34, 9, 9, 7, 8, 6, 9, 8]
const row = (...cells: ReadonlyArray<string | number>) =>
  print(
    cells.map((cell, n) => n === 0 ? String(cell).padEnd(columns[n] ?? 0) : String(cell).padStart(columns[n] ?? 0))
      .join("")
  )

let wrong = 0
const scenario = async (title: string, run: () => Promise<Counts>) => {
  try {
    const { again, attempts, failed, marked, ok, requests, seconds } = await run()
    row(title, requests, ok, failed, marked, again, attempts, seconds.toFixed(1))
  } catch (error) {
    wrong += 1
    print(`${title}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

const databases = {
  SQLite: Places.sqlite,
  Postgres: async () => Places.postgres(await Places.server())
}
const roles = ["worker", "feeder", "both", "submitter", "exporter"] as const
const signals = ["SIGKILL", "SIGSTOP", "SIGTERM"] as const

row("event", "requests", "ok", "failed", "marked", "again", "attempts", "seconds")
for (const [name, place] of Object.entries(databases)) {
  const on = (title: string, run: (url: string) => Promise<Counts>) =>
    scenario(`${title}, ${name}`, async () => {
      await using database = await place()
      return await run(database.url)
    })
  for (const role of roles) {
    for (const signal of signals) await on(`${signal} ${role}`, (url) => Scenarios.cell(url, role, signal, size))
  }
  await on("poison", (url) => Scenarios.poison(url, { ...size, requests: Math.ceil(requests / 10) }))
  for (const onLost of ["ask-again", "fail"] as const) {
    await on(`outage 10 s, onLost ${onLost}`, (url) => Scenarios.outage(url, size, { onLost, downMillis: 10_000 }))
  }
}
await scenario("3 restarts, Postgres", async () => {
  const server = await Places.ownServer()
  try {
    return await Scenarios.restarts(server, size, 10)
  } finally {
    server.stop()
  }
})
print(wrong === 0 ? "Every request has one result, and the ledger agrees." : `${wrong} scenarios are wrong.`)
process.exitCode = wrong === 0 ? 0 : 1
