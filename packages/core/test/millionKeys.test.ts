import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import type { Findings } from "./support/millionKeys.ts"

const script = fileURLToPath(new URL("support/millionKeys.ts", import.meta.url))

const measure = async (subject: string): Promise<Findings> => {
  const args = ["--expose-gc", "--conditions=@sluice/source", script, subject]
  return JSON.parse((await promisify(execFile)(process.execPath, args)).stdout) as Findings
}

// A map without eviction would keep 800,000 more entries of at least a hundred bytes.
const mostGrowthBytes = 16 * 1024 * 1024

describe.concurrent("a million random keys", () => {
  for (const subject of ["breaker", "deduplicator"]) {
    it(
      `the ${subject} needs bounded memory, time per call and metric series for a million keys`,
      async ({ expect }) => {
        const { batchMicros, heapBytes, series } = await measure(subject)
        expect(heapBytes.after1M - heapBytes.after200k).toBeLessThan(mostGrowthBytes)
        expect(batchMicros.lastTenth).toBeLessThan(2 * batchMicros.firstTenth)
        assert.isAbove(series.after10, 0)
        assert.deepStrictEqual(series, { after10: series.after10, after10k: series.after10, after1M: series.after10 })
      },
      320_000
    )
  }
})
