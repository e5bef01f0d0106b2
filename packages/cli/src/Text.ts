import * as Terminal from "./Terminal.ts"

/** Wraps a text between words. A word longer than a line is clipped. */
export const wrap = (text: string, columns: number): ReadonlyArray<string> =>
  wrapWhole(text, columns).map((line) => Terminal.clip(line, columns))

/** Wraps a text between words. A word longer than a line, such as a URL, stays whole. */
export const wrapWhole = (text: string, columns: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    if (word === "") continue
    if (line !== "" && Terminal.width(line) + 1 + Terminal.width(word) > columns) {
      lines.push(line)
      line = word
    } else line = line === "" ? word : `${line} ${word}`
  }
  if (line !== "") lines.push(line)
  return lines
}
