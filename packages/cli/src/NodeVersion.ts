/** The version of Node. */

/** Why a version cannot run the command: it is older than `oldest`. `undefined` if it can. */
export const problemOf = (running: string, oldest: string): string | undefined =>
  isOlder(numbersOf(running), numbersOf(oldest))
    ? `Node ${oldest} or later is needed, and this is Node ${running}`
    : undefined

const isOlder = ([first = 0, ...others]: ReadonlyArray<number>, [than, ...rest]: ReadonlyArray<number>): boolean =>
  than !== undefined && (first < than || (first === than && isOlder(others, rest)))

const numbersOf = (version: string): ReadonlyArray<number> =>
  version.split(".").map((part) => Number.parseInt(part, 10))
