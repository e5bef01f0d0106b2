import * as Terminal from "./Terminal.ts"

/** Breaks a text into lines of at most so many columns, between words; a word that is longer is clipped. */
export const wrap = (text: string, columns: number): ReadonlyArray<string> => {
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
  return lines.map((line) => Terminal.clip(line, columns))
}
