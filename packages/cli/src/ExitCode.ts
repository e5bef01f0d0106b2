/** Everything was done. */
export const ok = 0
/** Some prompts have no answer. */
export const someFailed = 1
/** Nothing could be done: flags, files, URL, key or model. */
export const unusable = 2
/** The provider was down for too long. */
export const outage = 3
/** Ctrl-C, as shells count it: 128 and the signal's number. */
export const interrupted = 130
/** The reader of our output went away: what a shell says of a program that SIGPIPE ended. */
export const readerGone = 141
/** SIGTERM. */
export const terminated = 143
