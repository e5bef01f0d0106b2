import model from "wink-eng-lite-web-model"
import type { ItemToken, PartOfSpeech } from "wink-nlp"
import winkNlp from "wink-nlp"

/** A word or a mark of a sentence, and the part of speech it is there. */
export interface Tagged {
  readonly word: string
  readonly pos: PartOfSpeech
}

/** What wink-nlp says of one sentence. */
export interface Reading {
  readonly words: ReadonlyArray<Tagged>
  /** How much it says beside the others, from 0 to 1. */
  readonly importance: number
}

const nlp = winkNlp(model, ["sbd", "pos"])
const { its } = nlp
const vocabulary = nlp.readDoc("")

/**
 * Reads sentences with wink-nlp.
 *
 * Wink only ever sees words of its own vocabulary, one to a token; any other is replaced by one of its kind. So it
 * never runs its expressions for addresses, which a link of 90 letters keeps busy for 10 seconds, never splits a word,
 * whose cost is the square of its length, and never learns one: it would keep it for ever, and read the next text
 * differently.
 */
export const read = (sentences: ReadonlyArray<string>): ReadonlyArray<Reading> => {
  const words = sentences.map((sentence) => wordsAndMarks(sentence).slice(0, maxWords))
  const document = nlp.readDoc(words.map((sentence) => [...sentence.map(known), end].join(" ")).join(" "))

  // A contraction ("don't") is one word here and two tokens there, the second with no space before it. The cast is for
  // the declared type of `out`, which adds the plain string that it returns when it is asked for nothing.
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

/** The most words of one sentence that are read: what a longer one says, it says in those. */
const maxWords = 80

/** The mark after which wink always begins a sentence; a full stop may belong to an abbreviation. */
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
