/**
 * Escapes characters that could move the cursor, change colours, ring the bell or reorder text. Apply it to every text
 * that comes from outside of this program.
 */
export const escape = (text: string): string =>
  text.replace(dangerous, (character) => {
    const named = names.get(character)
    if (named !== undefined) return named
    const code = character.codePointAt(0) ?? 0
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`
  })

/**
 * Escapes the same characters in a line of JSON, so that it stays the same JSON. All of them are within strings, apart from the line
 * end.
 */
export const escapeJson = (line: string): string =>
  line.replace(dangerous, (character) => {
    if (character === "\n") return character
    const units = Array.from({ length: character.length }, (_, index) => character.charCodeAt(index))
    return units.map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join("")
  })

// Cc: control characters. Cf: formats, such as those that reorder text or are invisible; the joiner of emoji is allowed.
// Zl and Zp: line and paragraph separators. Cs: lone surrogates, which no terminal can show.
const dangerous = /(?!\u200D)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

const names = new Map([["\n", "\\n"], ["\r", "\\r"], ["\t", "\\t"]])

const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" })

/** Returns the columns that a text takes on a terminal. */
export const width = (text: string): number => {
  let columns = 0
  for (const { segment } of graphemes.segment(text)) columns += graphemeWidth(segment)
  return columns
}

/** Cuts a text to a width and ends it with an ellipsis if it was longer. */
export const clip = (text: string, columns: number): string => {
  if (width(text) <= columns) return text
  let clipped = ""
  let left = columns - 1
  for (const { segment } of graphemes.segment(text)) {
    left -= graphemeWidth(segment)
    if (left < 0) break
    clipped += segment
  }
  return columns < 1 ? "" : `${clipped}…`
}

const graphemeWidth = (grapheme: string): number => {
  if (invisible.test(grapheme)) return 0
  if (emoji.test(grapheme)) return 2
  const code = grapheme.codePointAt(0) ?? 0
  return wide.some(([first, last]) => code >= first && code <= last) ? 2 : 1
}

const invisible = /^[\p{Mn}\p{Me}\p{Cc}\p{Cf}]+$/u
const emoji = /\p{Emoji_Presentation}|\uFE0F/u

// East Asian Wide and Fullwidth of Unicode's annex 11, in blocks.
const wide: ReadonlyArray<readonly [number, number]> = [
  [0x1100, 0x115f],
  [0x2e80, 0x303e],
  [0x3041, 0xa4cf],
  [0xa960, 0xa97f],
  [0xac00, 0xd7a3],
  [0xf900, 0xfaff],
  [0xfe30, 0xfe6f],
  [0xff00, 0xff60],
  [0xffe0, 0xffe6],
  [0x17000, 0x18cff],
  [0x1b000, 0x1b2ff],
  [0x20000, 0x3fffd]
]
