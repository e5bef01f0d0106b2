/**
 * Writes what the process used to descriptor 3 when it ends. `?of=cpu`: CPU time in nanoseconds. `?of=memory`: the most bytes that
 * were resident. `?of=garbage`: the bytes that collections freed.
 */
import { writeSync } from "node:fs"
import { GCProfiler } from "node:v8"

const of = new URL(import.meta.url).searchParams.get("of")
const profiler = of === "garbage" ? new GCProfiler() : undefined
profiler?.start()

const used = (): number => {
  if (profiler !== undefined) {
    const freed = profiler.stop().statistics.map(({ afterGC, beforeGC }) =>
      beforeGC.heapStatistics.usedHeapSize - afterGC.heapStatistics.usedHeapSize
    )
    return freed.reduce((sum, bytes) => sum + bytes, 0)
  }
  if (of === "memory") return process.resourceUsage().maxRSS * 1_024
  const { system, user } = process.cpuUsage()
  return (user + system) * 1_000
}

process.once("exit", () => writeSync(3, String(used())))
