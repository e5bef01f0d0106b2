/**
 * Runs a soak: `npm run soak -- NAME`. It prints what it counts, and exits with 1 if something is wrong.
 *
 * `stores` (default): processes that share circuits, quotas and flights, on Redis, Postgres and SQLite, for SLUICE_SECONDS each (default
 * 60).
 * `batch`: every signal to every part of a batch, on SQLite and Postgres, with SLUICE_MATRIX requests each (default 20,000), and then all
 * of them to one batch of SLUICE_ITEMS requests (default 1,000,000). 0 leaves a part out. SLUICE_ONLY is a part of a scenario's title.
 */
const soaks: Readonly<Record<string, () => Promise<unknown>>> = {
  stores: () => import("./stores.ts"),
  batch: () => import("./batch.ts")
}

const name = process.argv[2] ?? "stores"
const soak = soaks[name]
if (soak === undefined) {
  process.stderr.write(`npm run soak -- NAME, where NAME is one of: ${Object.keys(soaks).join(", ")}\n`)
  process.exitCode = 2
} else await soak()
