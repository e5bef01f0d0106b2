/** The short form of `npm run soak`. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { soak } from "./soak/fleet.ts"
import * as Servers from "./soak/servers.ts"

// The packages' own suites say that a server is missing. In CI it must be there.
const isThere = process.env["CI"] === "true" || (await Servers.areInstalled())

describe.skipIf(!isThere)("processes that share a store", () => {
  for (
    const [name, start] of [["Redis", Servers.redis], ["Postgres", Servers.postgres], [
      "SQLite",
      Servers.sqlite
    ]] as const
  ) {
    it.live(
      `kills, freezes and outages of ${name} exceed no limit and fail no call, and all circuits recover`,
      () =>
        Effect.gen(function*() {
          const server = yield* Effect.acquireRelease(Effect.promise(start), ({ stop }) => Effect.promise(stop))
          const counts = yield* soak({ server, processes: 3, seconds: 1, budget: 10 })
          assert.deepStrictEqual(counts.wrong, [])
          const { answers, asked, freezes, kills, okWithoutStore, openings, paid, probes, restarts, serverFreezes } =
            counts
          assert.isAbove(answers, asked, "answers that were shared")
          const happened = { asked, freezes, kills, okWithoutStore, openings, paid, probes, restarts, serverFreezes }
          for (const [what, count] of Object.entries(happened)) assert.isAbove(count, 0, what)
        }),
      120_000
    )
  }
})
