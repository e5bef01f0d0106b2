/** Real processes are killed, frozen and stopped. The ledger of the provider and the tables have to agree afterwards. */
import { describe, it } from "vitest"
import * as Places from "./support/places.ts"
import { outage, poison, restarts, storm } from "./support/scenarios.ts"

const size = { requests: 1_500, inFlight: 20, millis: 200 }

const timeout = 300_000

describe.concurrent("batches of processes that die", { timeout }, () => {
  const databases = {
    "SQLite": Places.sqlite,
    "Postgres": async () => Places.postgres(await Places.server())
  }

  for (const [name, place] of Object.entries(databases)) {
    it(`kill -9, a freeze and a stop of every part lose no request, on ${name}`, async () => {
      await using database = await place()
      await storm(database.url, size)
    })

    it(`a request that kills its workers is lost, and takes no other with it, on ${name}`, async () => {
      await using database = await place()
      await poison(database.url, { requests: 120, inFlight: 20, millis: 20 })
    })

    it(`an outage of the provider and a kill lose no request, on ${name}`, async () => {
      await using database = await place()
      await outage(database.url, { ...size, requests: 600 }, { onLost: "ask-again", downMillis: 2_000 })
    })

    it(`with onLost "fail" no request is asked twice, on ${name}`, async () => {
      await using database = await place()
      await outage(database.url, { ...size, requests: 600 }, { onLost: "fail", downMillis: 0 })
    })
  }

  it("restarts of Postgres lose no request, and none is asked twice", async () => {
    const server = await Places.ownServer()
    try {
      await restarts(server, { ...size, requests: 1_000 }, 4)
    } finally {
      server.stop()
    }
  })
})
