import * as Result from "effect/Result"

/**
 * Parses JSON that a stranger sent, unless it nests deeper than `maxDepth`: `JSON.parse` would take it, and whatever walks
 * the value after it would run out of stack.
 */
export const parse = (text: string, maxDepth: number): Result.Result<unknown, "Malformed" | "TooDeep"> => {
  if (isDeeperThan(text, maxDepth)) return Result.fail("TooDeep")
  try {
    return Result.succeed(JSON.parse(text))
  } catch {
    return Result.fail("Malformed")
  }
}

const quote = 0x22
const backslash = 0x5c
const openBracket = 0x5b
const closeBracket = 0x5d
const openBrace = 0x7b
const closeBrace = 0x7d

const isDeeperThan = (text: string, maxDepth: number): boolean => {
  let depth = 0
  let inString = false
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (inString) {
      if (code === backslash) i++
      else if (code === quote) inString = false
    } else if (code === quote) inString = true
    else if (code === openBracket || code === openBrace) {
      if (++depth > maxDepth) return true
    } else if (code === closeBracket || code === closeBrace) depth--
  }
  return false
}
