/**
 * The kill matrix of batches, and then one large batch that everything happens to. Each line is a scenario: what was hit, on which database,
 * and what the tables and the ledger say.
 */
import type { Counts } from "../../packages/batch/test/support/deployment.ts"
import * as Places from "../../packages/batch/test/support/places.ts"
import * as Scenarios from "../../packages/batch/test/support/scenarios.ts"

const numberIn = (name: string, otherwise: number): number => {
  const number = Number(process.env[name] ?? otherwise)
  if (Number.isInteger(number) && (number === 0 || number >= 1_000)) return number
  throw new Error(`${name} must be 0 or a whole number, at least 1000`)
}

/** Of each scenario of the matrix. */
const matrixRequests = numberIn("SLUICE_MATRIX", 20_000)
/** Of the storm. */
const stormRequests = numberIn("SLUICE_ITEMS", 1_000_000)
/** Only scenarios whose title contains it. */
const only = process.env["SLUICE_ONLY"] ?? ""

// The times of the product, and a freeze well above them.
const real = { times: { lease: 6_000, refresh: 2_000, poll: 200 }, frozenMillis: 20_000 }
const matrix = { requests: matrixRequests, inFlight: 500, millis: 75, patienceMillis: 600_000, ...real }
// Four processes ask at once.
const large = { requests: stormRequests, inFlight: 250, millis: 75, patienceMillis: 7_200_000, ...real }

const print = (text: string): void => void process.stdout.write(`${text}\n`)

const columns = [44, 9, 9, 7, 8, 7, 9, 9]
const row = (...cells: ReadonlyArray<string | number>) =>
  print(
    cells.map((cell, n) => n === 0 ? String(cell).padEnd(columns[n] ?? 0) : String(cell).padStart(columns[n] ?? 0))
      .join("")
  )

let scenarios = 0
let wrong = 0
const scenario = async (title: string, run: () => Promise<Counts | string>) => {
  if (!title.includes(only)) return
  scenarios += 1
  try {
    const counts = await run()
    if (typeof counts === "string") {
      print(`${title}: not run, ${counts}`)
      return
    }
    const { again, attempts, failed, marked, ok, requests, seconds } = counts
    row(title, requests, ok, failed, marked, again, attempts, seconds.toFixed(1))
  } catch (error) {
    wrong += 1
    print(`${title}: WRONG, ${error instanceof Error ? error.message : String(error)}`)
  }
}

const signals = ["SIGKILL", "SIGSTOP", "SIGTERM"] as const

row("event", "requests", "ok", "failed", "marked", "again", "attempts", "seconds")
if (matrixRequests > 0) {
  for (const [name, place] of Object.entries(Places.all)) {
    const on = (title: string, run: (url: string) => Promise<Counts>) =>
      scenario(`${title}, ${name}`, async () => {
        await using database = await place()
        return await run(database.url)
      })
    for (const signal of signals) {
      for (const role of ["worker", "feeder", "both"] as const) {
        await on(`${signal} ${role}`, (url) => Scenarios.engine(url, role, signal, matrix))
      }
      await on(`${signal} submitter`, (url) => Scenarios.submitter(url, signal, matrix))
      await on(`${signal} exporter`, (url) => Scenarios.exporter(url, signal, matrix))
      await on(`provider ignores keys, ${signal} worker`, (url) => Scenarios.ignoredKeys(url, signal, 2_000, matrix))
    }
    await on("poison", (url) => Scenarios.poison(url, { ...matrix, requests: Math.ceil(matrixRequests / 10) }))
    await on("provider down 10 s", (url) => Scenarios.outage(url, 10_000, matrix))
  }
  const restarts = {
    "fast restart": ["shutDown", 0],
    "immediate restart": ["crash", 0],
    "10 s away": ["shutDown", 10]
  } as const
  for (const [title, [how, seconds]] of Object.entries(restarts)) {
    await scenario(`${title}, Postgres`, async () => {
      await using server = await Places.ownServer()
      return await Scenarios.restart(server, how, seconds, matrix)
    })
  }
  for (const [name, place] of Object.entries(Places.onSmallDisk)) {
    await scenario(`full disk for 10 s under ${name}`, async () => {
      const database = await place(matrixRequests)
      if (typeof database === "string") return database
      await using _ = database
      return await Scenarios.fullDisk(database, 10, matrix)
    })
  }
}
if (stormRequests > 0) {
  const startedAt = performance.now()
  const report = (text: string) => print(`  ${Math.round((performance.now() - startedAt) / 1_000)} s: ${text}`)
  for (const [name, place] of Object.entries(Places.all)) {
    await scenario(`storm, ${name}`, async () => {
      await using database = await place()
      return await Scenarios.storm(database.url, large, report)
    })
  }
}
print(
  scenarios === 0
    ? "No scenario has this title."
    : wrong === 0
    ? `${scenarios} scenarios: every request has one result, and the ledger agrees.`
    : `${wrong} of ${scenarios} scenarios are wrong.`
)
process.exitCode = scenarios > 0 && wrong === 0 ? 0 : 1
