import model from "wink-eng-lite-web-model"
import type { ItemToken, PartOfSpeech } from "wink-nlp"
import winkNlp from "wink-nlp"

/** A word or punctuation mark of a sentence, with its part of speech. */
export interface Tagged {
  readonly word: string
  readonly pos: PartOfSpeech
}

/** The analysis of a sentence. */
export interface Reading {
  readonly words: ReadonlyArray<Tagged>
  /** Its weight among the sentences of the text, from 0 to 1. */
  readonly importance: number
}

const nlp = winkNlp(model, ["sbd", "pos"])
const { its } = nlp
const vocabulary = nlp.readDoc("")

/**
 * Analyses sentences with wink-nlp.
 *
 * Unknown words are replaced by known ones of the same kind, so that wink-nlp gets one known word for each token. It has problems
 * with others: its expressions for addresses take 10 seconds for a link of 90 letters, splitting a word takes quadratic time, and
 * it keeps new words for ever, which changes the analysis of later texts.
 */
export const read = (sentences: ReadonlyArray<string>): ReadonlyArray<Reading> => {
  const words = sentences.map((sentence) => wordsAndMarks(sentence).slice(0, maxWords))
  const document = nlp.readDoc(words.map((sentence) => [...sentence.map(known), end].join(" ")).join(" "))

  // wink-nlp splits a contraction ("don't") into two tokens, the second without a space before it. The cast is needed since the
  // declared result of `out` includes the string that it returns without arguments.
  const pos: Array<PartOfSpeech> = []
  document.tokens().each((token: ItemToken) => {
    if (pos.length === 0 || token.out(its.precedingSpaces) !== "") pos.push(token.out(its.pos) as PartOfSpeech)
  })
  const importance = document.out(its.sentenceWiseImportance)

  let next = 0
  return words.map((sentence, i) => {
    const tagged = sentence.map((word, k): Tagged => ({ word, pos: pos[next + k] ?? "X" }))
    next += sentence.length + 1
    return { words: tagged, importance: typeof importance === "string" ? 0 : importance[i]?.importance ?? 0 }
  })
}

/** How many words of a sentence are read. */
const maxWords = 80

/** Always ends a sentence in wink-nlp. A full stop may belong to an abbreviation. */
const end = "!"

const wordsAndMarks = (sentence: string): ReadonlyArray<string> =>
  sentence.split(" ").flatMap((token) => /@|:\/\//.test(token) ? [","] : token.match(wordOrMark) ?? [])

const wordOrMark = /[\p{L}\p{M}\p{N}]+(?:['’-][\p{L}\p{M}\p{N}]+)*|[.,;:!?…()[\]"“”–—]/gu

const known = (word: string, index: number): string => {
  if (/^[^\p{L}\p{M}\p{N}]/u.test(word)) return ","
  const stem = vocabulary.isOOV(word) ? word.replace(/['’]\p{L}{1,2}$/u, "") : word
  if (!vocabulary.isOOV(stem)) return stem
  const lower = stem.toLowerCase()
  const capital = lower !== stem
  if ((!capital || index === 0 || stem === stem.toUpperCase()) && !vocabulary.isOOV(lower)) return lower
  return /^\p{N}/u.test(stem) ? "12" : capital ? "monday" : "thing"
}
