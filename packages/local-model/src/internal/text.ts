/** The longest run of characters without a space that the rules read. The longest English words have 45 letters. */
export const maxRun = 256

/**
 * Truncates runs without a space to `maxRun` characters, which bounds the time of rules for single words. Replaces lone
 * surrogates by U+FFFD, since UTF-8 cannot encode them in an answer.
 */
export const shorten = (text: string): string =>
  text.replace(/\S+/g, (run) => run.length > maxRun ? run.slice(0, maxRun) : run).toWellFormed()

/** The words of a text: letters and digits, with single apostrophes and hyphens inside. */
export const wordsOf = (text: string): ReadonlyArray<string> =>
  text.match(/[\p{L}\p{M}\p{N}]+(?:['’-][\p{L}\p{M}\p{N}]+)*/gu) ?? []

/** The sentences of a line or paragraph, with single spaces. The rest after the last full stop is a sentence too. */
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

/** Splits a text at spaces and control characters. */
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

// Never end a sentence: "Mr. Hill".
const abbreviation = /^\(?(?:mr|mrs|ms|dr|prof|approx|incl|excl|e\.g|i\.e|vs|cf|ca)\.$/i

// End a sentence if the next word starts with a capital.
const abbreviationInside = /^(?:etc|st|a\.m|p\.m|inc|ltd|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.$/i
