import type * as Redis from "effect/persistence/Redis"

/**
 * What went wrong, in words that are safe in a log: a code or the kind of error, never what was said about it, since that may
 * name a key, a host, or what stands in an address before the host.
 */
export const describe = ({ cause: outer }: Redis.RedisError): string => {
  // node-redis gives up a connection with an error that stands around what was the matter.
  const cause = outer instanceof Error && "socketError" in outer ? outer.socketError : outer
  if (!(cause instanceof Error)) return "Redis could not be asked"
  // What the server says begins with a code in capitals, as in `WRONGTYPE Operation against a key ...`.
  const said = /^[A-Z]{2,32}(?= |$)/.exec(cause.message)?.[0]
  if (said !== undefined) return `Redis answered ${said}`
  const code = "code" in cause && typeof cause.code === "string" && /^[A-Z][A-Z0-9_]{1,63}$/.test(cause.code)
    ? cause.code
    : cause.constructor.name
  return `Redis could not be asked (${code})`
}
