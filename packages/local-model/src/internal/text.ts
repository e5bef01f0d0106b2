/** The longest run of characters without a space that the rules look at. The longest English words have 45 letters. */
export const maxRun = 256

/**
 * Makes a prompt safe to read: runs without a space are cut to `maxRun` characters, which bounds every rule that looks
 * at one word, and lone halves of surrogate pairs become U+FFFD, since no answer could carry them in UTF-8.
 */
export const shorten = (text: string): string =>
  text.replace(/\S+/g, (run) => run.length > maxRun ? run.slice(0, maxRun) : run).toWellFormed()

/** The words of a text: letters and digits, joined inside by an apostrophe or a hyphen. */
export const wordsOf = (text: string): ReadonlyArray<string> =>
  text.match(/[\p{L}\p{M}\p{N}]+(?:['’-][\p{L}\p{M}\p{N}]+)*/gu) ?? []

/**
 * The sentences of one line or paragraph, each with single spaces. What stands behind the last full stop is one too.
 */
export const sentencesOf = (line: string): ReadonlyArray<string> => {
  const tokens = tokensOf(line)
  const sentences: Array<string> = []
  let start = 0
  for (let i = 0; i < tokens.length; i++) {
    if (i === tokens.length - 1 || endsSentence(tokens, i, start)) {
      sentences.push(tokens.slice(start, i + 1).join(" "))
      start = i + 1
    }
  }
  return sentences
}

/** The runs of a text between its spaces and control characters. */
export const tokensOf = (text: string): ReadonlyArray<string> =>
  text.split(/[\s\p{Cc}]+/u).filter((token) => token !== "")

const endsSentence = (tokens: ReadonlyArray<string>, at: number, start: number): boolean => {
  const token = tokens[at] ?? ""
  if (!/[.!?…。！？]["'”’»)\]]*$/u.test(token)) return false
  if (/^(?:\d{1,3}|\p{L})[.)]$/u.test(token) && at === start) return false
  if (abbreviation.test(token) || /^\p{Lu}\.$/u.test(token)) return false
  const next = tokens[at + 1] ?? ""
  if (/^\(?(?:no|nr)\.$/i.test(token)) return !/^\d/.test(next)
  return !(abbreviationInside.test(token) && /^[^\p{Lu}]/u.test(next))
}

// Always followed by what they belong to, as in "Mr. Hill".
const abbreviation = /^\(?(?:mr|mrs|ms|dr|prof|approx|incl|excl|e\.g|i\.e|vs|cf|ca)\.$/i

// May also stand at the end of a sentence; the next word tells.
const abbreviationInside = /^(?:etc|st|a\.m|p\.m|inc|ltd|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.$/i
