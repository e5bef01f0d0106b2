/**
 * Encodes a circuit's key for use in a Redis key.
 *
 * - Without braces: Redis Cluster hashes the text between the first braces to find the slot.
 * - In ASCII: a lone surrogate does not survive UTF-8, so two keys would become one.
 * - In the same order by bytes as the key by code units: the index is paged in that order.
 *
 * Characters from `"` to `z`, which is nearly all that keys are made of, stay as they are. A lower code unit becomes `!` and four
 * hexadecimal digits, a higher one `~` and four. The empty key is a lone `!`, since Redis ignores empty braces.
 */
export const encodeKey = (key: string): string => {
  if (plain.test(key)) return key
  if (key === "") return emptyKey
  return key.replaceAll(special, (unit) => {
    const code = unit.charCodeAt(0)
    return `${code < 0x22 ? "!" : "~"}${code.toString(16).padStart(4, "0")}`
  })
}

/** Decodes a key. `undefined` if `encodeKey` does not produce this text. */
export const decodeKey = (encoded: string): string | undefined => {
  const key = encoded === emptyKey
    ? ""
    : encoded.replaceAll(escape, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))
  return encodeKey(key) === encoded ? key : undefined
}

const emptyKey = "!"
const plain = /^["-z]+$/
const special = /[^"-z]/g
const escape = /[!~]([0-9a-f]{4})/g
