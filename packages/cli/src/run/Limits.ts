/** The rate limits of the flags, as the limits of each target's quota. */
import type { Dimension, Level } from "@sluice/core/Quota"
import * as Quota from "@sluice/core/Quota"
import type { Limit } from "../Flag.ts"
import type { RunFlags } from "../options.ts"
import * as Words from "./Words.ts"

type Flags = Pick<RunFlags, "itpm" | "otpm" | "rpm" | "tpm">

const names = ["rpm", "tpm", "itpm", "otpm"] as const

/** Names of targets that limits are for, and which do not exist. */
export const problems = (flags: Flags, targets: ReadonlyArray<string>): ReadonlyArray<string> =>
  names.flatMap((name) =>
    flags[name].flatMap(({ target }) =>
      target === undefined || targets.includes(target) ? [] : [`--${name} names ${target}, which is no target`]
    )
  )

/** The limits of a target. A limit with its name comes before one for all. */
export const of = (
  flags: Flags,
  { name, url }: { readonly name: string; readonly url: string }
): ReadonlyArray<Dimension> => {
  const limitOf = (limits: ReadonlyArray<Limit>): number | undefined =>
    (limits.findLast(({ target }) => target === name) ?? limits.findLast(({ target }) => target === undefined))?.limit
  const make = (limits: ReadonlyArray<Limit>, dimension: (limit: number) => Dimension): ReadonlyArray<Dimension> => {
    const limit = limitOf(limits)
    return limit === undefined ? [] : [dimension(limit)]
  }
  return [
    ...make(flags.rpm, Quota.requestsPerMinute),
    ...make(flags.tpm, (limit) => Quota.tokensPerMinute(limit, countsReserved(url) ? "reserved" : "learned")),
    ...make(flags.itpm, Quota.inputTokensPerMinute),
    ...make(flags.otpm, Quota.outputTokensPerMinute)
  ]
}

/** A limit of calls at once that is found: from 4 up to the most. */
export const found = (most: number): Dimension => Quota.atOnce(most, { start: Math.min(4, most) })

/** Whether the provider counts the most that an answer may have, as docs/choosing-limits.md says. */
const countsReserved = (url: string): boolean =>
  /(?:^|\.)(?:openai\.com|openai\.azure\.com|cognitiveservices\.azure\.com)$/
    .test(new URL(url).hostname)

const nouns: { readonly [dimension: string]: string } = {
  requests: "request",
  tokens: "token",
  inputTokens: "input token",
  outputTokens: "output token",
  atOnce: "call"
}

type Limited = Pick<Dimension, "limit" | "name" | "windowMillis">

/** `500 requests a minute`, or `12 calls at once`. */
export const shown = ({ limit, name, windowMillis }: Limited): string =>
  `${Words.plural(limit, nouns[name] ?? name)} ${windowMillis === 0 ? "at once" : "a minute"}`

/** The name of a limit in a message: `the limit of tokens`, or `the limit of calls at once`. */
export const nameOf = (dimension: string): string =>
  `the limit of ${nouns[dimension] ?? dimension}s${dimension === "atOnce" ? " at once" : ""}`

/** Limits that were learned from rejected calls and headers, by target. */
export class Learned {
  private readonly levels = new Map<string, ReadonlyArray<Level>>()

  /** The levels of a target's quota at this moment. */
  add(target: string, levels: ReadonlyArray<Level>): void {
    this.levels.set(target, levels)
  }

  /**
   * `main: 412 of 500 requests a minute`, for each limit that is below the stated one. Calls at once begin below it, so their limit
   * was learned only if a call was rejected.
   */
  texts(wasRejected: boolean): ReadonlyArray<string> {
    return [...this.levels].flatMap(([target, levels]) =>
      levels.filter(({ limit, stated, windowMillis }) => limit < stated && (windowMillis > 0 || wasRejected)).map(
        ({ dimension, limit, stated, windowMillis }) => {
          const of = shown({ limit: stated, name: dimension, windowMillis })
          return `${target}: ${Words.count(Math.floor(limit))} of ${of}`
        }
      )
    )
  }
}
