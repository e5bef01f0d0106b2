/** For tests that start processes. Ten times what the slowest of them needs on a busy two-core machine. */
export const processTimeout = 800_000
