/** Bounds the memory that V8 takes for new objects. */
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8"

/**
 * Bytes of the space for new objects from which on it does not grow. V8 lets it grow to 128 MiB or more. A run keeps little for
 * long, so a larger space saves no time.
 */
const enoughBytes = 8 * 2 ** 20

/**
 * Stops the growth of the space for new objects once it is large enough. A flag of `node` would set its size, but the command's
 * first line cannot pass one on every system.
 */
export const keepSmall = (): void => {
  const stopGrowth = (): void => {
    const space = getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space")
    if (space !== undefined && space.space_size < enoughBytes) return
    setFlagsFromString("--semi-space-growth-factor=1")
    clearInterval(timer)
  }
  const timer = setInterval(stopGrowth, 20)
  timer.unref()
}
