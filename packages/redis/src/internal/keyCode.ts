/**
 * A key as it stands in Redis, where three things are asked of it. It must hold no brace, since what stands between the first
 * braces decides about the cluster's slot. It must be in ASCII, since half a surrogate pair does not survive UTF-8 and two
 * keys would become one. And sorted by bytes it must stand where the key stands by code units, since the index is paged in
 * that order.
 *
 * So what lies from `"` to `z` stands for itself, which is nearly all of what people name a dependency. Anything below is `!` and four
 * hexadecimal digits, anything above `~` and four. The empty key is a lone `!`: empty braces would be none to Redis.
 */
export const encodeKey = (key: string): string => {
  if (plain.test(key)) return key
  if (key === "") return emptyKey
  return key.replaceAll(odd, (unit) => {
    const code = unit.charCodeAt(0)
    return `${code < 0x22 ? "!" : "~"}${code.toString(16).padStart(4, "0")}`
  })
}

/** The key again, or undefined if `encodeKey` never gave this. */
export const decodeKey = (encoded: string): string | undefined => {
  const key = encoded === emptyKey
    ? ""
    : encoded.replaceAll(escape, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))
  return encodeKey(key) === encoded ? key : undefined
}

const emptyKey = "!"
const plain = /^["-z]+$/
const odd = /[^"-z]/g
const escape = /[!~]([0-9a-f]{4})/g
