import * as Result from "effect/Result"

/** Parses a stranger's JSON, unless it nests so deeply that whatever walks it would run out of stack. */
export const parse = (text: string, maxDepth: number): Result.Result<unknown, "Malformed" | "TooDeep"> => {
  if (depth(text) > maxDepth) return Result.fail("TooDeep")
  try {
    return Result.succeed(JSON.parse(text))
  } catch {
    return Result.fail("Malformed")
  }
}

/** The deepest nesting of brackets that stand outside of strings. */
const depth = (text: string): number => {
  let deepest = 0
  let depth = 0
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"?|[[\]{}]/gs)) {
    if (token === "[" || token === "{") deepest = Math.max(deepest, ++depth)
    else if (token === "]" || token === "}") depth--
  }
  return deepest
}
