/** Real processes are killed, frozen and stopped. The ledger of the provider and the tables have to agree afterwards. */
import { describe, it } from "vitest"
import * as Places from "./support/places.ts"
import { fullDisk, ignoredKeys, outage, poison, restart, storm, submitter } from "./support/scenarios.ts"

const size = { requests: 1_500, inFlight: 20, millis: 200 }

const timeout = 300_000

describe.concurrent("batches of processes that die", { timeout }, () => {
  for (const [name, place] of Object.entries(Places.all)) {
    it(`kill -9, a freeze and a stop of every part lose no request, on ${name}`, async () => {
      await using database = await place()
      await storm(database.url, { requests: 10_000, inFlight: 50, millis: 50 })
    })

    it(`a submitter that is killed in its file continues, on ${name}`, async () => {
      await using database = await place()
      await submitter(database.url, "SIGKILL", { requests: 10_000, inFlight: 200, millis: 20 })
    })

    it(`a request that kills its workers is lost, and takes no other with it, on ${name}`, async () => {
      await using database = await place()
      await poison(database.url, { requests: 120, inFlight: 20, millis: 20 })
    })

    it(`an outage of the provider loses no request, on ${name}`, async () => {
      await using database = await place()
      await outage(database.url, 2_000, { ...size, requests: 600 })
    })

    it(`with onLost "fail" no request is asked twice after a kill, on ${name}`, async () => {
      await using database = await place()
      await ignoredKeys(database.url, "SIGKILL", 1_000, { ...size, requests: 600 })
    })

    it(`with onLost "fail" a freeze loses at most what was in flight, on ${name}`, async () => {
      await using database = await place()
      await ignoredKeys(database.url, "SIGSTOP", 0, { ...size, requests: 600 })
    })
  }

  it("a restart of Postgres loses no request, and none is asked twice", async () => {
    await using server = await Places.ownServer()
    await restart(server, "shutDown", 0, { ...size, requests: 600 })
  })

  it("Postgres that is away for longer than the lease loses no request", async () => {
    await using server = await Places.ownServer()
    await restart(server, "crash", 4, { ...size, requests: 600 })
  })

  for (const [name, place] of Object.entries(Places.onSmallDisk)) {
    it(`a full disk loses no answer and stops calls, with ${name} on it`, async ({ skip }) => {
      const database = await place(size.requests)
      if (typeof database === "string") return skip(database)
      await using _ = database
      await fullDisk(database, 1, size)
    })
  }
})
