/** Bounds the memory that V8 takes beyond what a run keeps. */
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8"

/**
 * Bytes of the space for new objects from which on it does not grow. V8 lets it grow to 128 MiB or more. A run keeps little for
 * long, so a larger space saves no time.
 */
const enoughBytes = 8 * 2 ** 20

/**
 * Collects old objects when their space has doubled since the last collection. V8 lets it grow to four times of that. A run
 * keeps so little that the more frequent collections take no measurable time.
 */
const oldSpaceFlag = "--heap-growing-percent=100"

/**
 * Stops the growth of the space for new objects once it is large enough, and limits that of the old ones. Flags of `node` would
 * set their sizes, but the command's first line cannot pass any on every system.
 */
export const keepSmall = (): void => {
  setFlagsFromString(oldSpaceFlag)
  const stopGrowth = (): void => {
    const space = getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space")
    if (space !== undefined && space.space_size < enoughBytes) return
    setFlagsFromString("--semi-space-growth-factor=1")
    clearInterval(timer)
  }
  const timer = setInterval(stopGrowth, 20)
  timer.unref()
}
