/** Success. */
export const ok = 0
export const someFailed = 1
/** Unusable flags, files, URL, key or model, or a key that stopped working. */
export const unusable = 2
/** The provider was down longer than `--max-outage`. */
export const outage = 3
/** The budget of `--max-cost` has no room for another prompt. */
export const budget = 4
/** The terminal was closed (SIGHUP): 128 plus the signal's number, as in shells. */
export const hungUp = 129
/** Ctrl-C. */
export const interrupted = 130
/** The reader closed the output pipe: 128 plus SIGPIPE. */
export const readerGone = 141
export const terminated = 143
