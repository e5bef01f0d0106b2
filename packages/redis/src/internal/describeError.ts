import type * as Redis from "effect/persistence/Redis"

/**
 * Describes an error by its code or class. Never includes its message, which may name a key, a host or the credentials of a URL.
 */
export const describeError = ({ cause: outer }: Redis.RedisError): string => {
  // node-redis wraps the cause of a lost connection.
  const cause = outer instanceof Error && "socketError" in outer ? outer.socketError : outer
  if (!(cause instanceof Error)) return "Redis request failed"
  // An error reply begins with a code in capitals, as in `WRONGTYPE Operation against a key ...`.
  const replyCode = /^[A-Z]{2,32}(?= |$)/.exec(cause.message)?.[0]
  if (replyCode !== undefined) return `Redis answered ${replyCode}`
  const code = "code" in cause && typeof cause.code === "string" && /^[A-Z][A-Z0-9_]{1,63}$/.test(cause.code)
    ? cause.code
    : cause.constructor.name
  return `Redis request failed (${code})`
}
