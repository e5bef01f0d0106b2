/**
 * Parses JSON from an untrusted source, with a bound on its nesting.
 *
 * `JSON.parse` accepts a million nested arrays. Every recursive function that walks the value afterwards, `JSON.stringify`
 * included, then runs out of stack. Thirty million of them also block the process for seconds, so the nesting of a long text is
 * checked before it is parsed.
 *
 * **When to use**
 *
 * For a response of a provider, the arguments of a tool call, or a line of a file. It bounds the nesting, not the size: bound
 * the size of the text before.
 *
 * **Example** (An attack, and a response)
 *
 * ```ts
 * import * as BoundedJson from "@sluice/core/BoundedJson"
 *
 * console.log(BoundedJson.parse("[".repeat(100_000), 64)._tag) // => Failure
 * console.log(BoundedJson.parse(`{"text":"[[["}`, 64)._tag) // => Success
 * ```
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"

/**
 * Parses JSON. Fails with `TooDeep` if brackets nest deeper than `maxDepth`, and with `Malformed` if the text is not JSON.
 *
 * @since 0.1.0
 * @category decoding
 */
export const parse = (text: string, maxDepth: number): Result.Result<unknown, "Malformed" | "TooDeep"> => {
  const isLong = text.length > longText
  if (isLong && isTextDeeperThan(text, maxDepth)) return Result.fail("TooDeep")
  let value: unknown
  try {
    // Does not recurse, so any depth is safe here.
    value = JSON.parse(text)
  } catch {
    return Result.fail(!isLong && isTextDeeperThan(text, maxDepth) ? "TooDeep" : "Malformed")
  }
  return !isLong && isDeeperThan(value, maxDepth) ? Result.fail("TooDeep") : Result.succeed(value)
}

/** The nesting of a shorter text is cheaper to check once it is parsed. */
const longText = 65_536

/** Recurses at most `maxDepth` times. Looks at each value, not at each character: most text is in long strings. */
const isDeeperThan = (value: unknown, maxDepth: number): boolean => {
  if (typeof value !== "object" || value === null) return false
  if (maxDepth === 0) return true
  if (Array.isArray(value)) {
    for (const item of value) if (typeof item === "object" && isDeeperThan(item, maxDepth - 1)) return true
    return false
  }
  // An object of `JSON.parse` has no inherited fields but those of `Object.prototype`, which are not enumerable.
  const fields = value as { readonly [name: string]: unknown }
  for (const name in fields) {
    const field = fields[name]
    if (typeof field === "object" && isDeeperThan(field, maxDepth - 1)) return true
  }
  return false
}

const quote = 0x22
const backslash = 0x5c
const openBracket = 0x5b
const closeBracket = 0x5d
const openBrace = 0x7b
const closeBrace = 0x7d

const isTextDeeperThan = (text: string, maxDepth: number): boolean => {
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === quote) {
      at = stringEnd(text, at)
      if (at === -1) return false
    } else if (code === openBracket || code === openBrace) {
      if (++depth > maxDepth) return true
    } else if (code === closeBracket || code === closeBrace) depth--
  }
  return false
}

/** Where the quote is that ends a string. -1: it does not end. A search is faster than reading each character. */
const stringEnd = (text: string, from: number): number => {
  let at = text.indexOf("\"", from + 1)
  while (at !== -1) {
    let before = at
    while (text.charCodeAt(before - 1) === backslash) before--
    if ((at - before) % 2 === 0) return at
    at = text.indexOf("\"", at + 1)
  }
  return -1
}
