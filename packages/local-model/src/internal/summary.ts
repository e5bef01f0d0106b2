import { wordsOf } from "./text.ts"
import type { Reading } from "./wink.ts"

/**
 * The sentence with the problem and the one with the request, unchanged and in the order of the text. One of them if the other is
 * missing. Empty for a text of courtesies.
 */
export const summaryOf = (sentences: ReadonlyArray<string>, readings: ReadonlyArray<Reading>): string => {
  const candidates = sentences
    .map((sentence, at) => candidateOf(sentence, at / sentences.length, readings[at]?.importance ?? 0))
    .filter(({ sentence }) => !courtesy.test(sentence))
  const request = best(candidates.filter(({ request }) => request > 0), "request")
  const problem = best(
    candidates.filter((candidate) => candidate !== request && candidate.request < certain),
    "problem"
  )
  return candidates
    .filter((candidate) => candidate === problem || candidate === request)
    .map(({ sentence }) => clipped(sentence))
    .join(" ")
}

interface Candidate {
  readonly sentence: string
  readonly problem: number
  readonly request: number
}

const candidateOf = (sentence: string, place: number, importance: number): Candidate => {
  const words = wordsOf(sentence).length
  const fullness = (importance + Math.min(words, 12) / 12) / 2
  const troubles = Math.min(new Set(sentence.toLowerCase().match(trouble)).size, 3)
  const request = requestStrength(sentence)
  return {
    sentence,
    // The problem mostly comes early. A short sentence with a reference ("Order 12345, $20.") is rarely the problem.
    problem: troubles / 2 + 0.75 * (1 - place) + 0.75 * fullness - (words < 9 && reference.test(sentence) ? 1 : 0),
    request: request === 0 ? 0 : request + fullness / 2
  }
}

const best = (candidates: ReadonlyArray<Candidate>, by: "problem" | "request"): Candidate | undefined =>
  candidates.reduce<Candidate | undefined>(
    (top, next) => top === undefined || next[by] > top[by] ? next : top,
    undefined
  )

/** From this strength on a sentence is a request, and never the problem. */
const certain = 1

const requestStrength = (sentence: string): number => {
  if (reply.test(sentence)) return 0.25
  if (appeal.test(sentence)) return 2
  if (wish.test(sentence) || sentence.endsWith("?")) return 1.5
  return command.test(sentence) ? 1 : 0
}

const clipped = (sentence: string): string => {
  if (sentence.length <= maxSentence) return sentence
  const space = sentence.lastIndexOf(" ", maxSentence)
  return `${sentence.slice(0, space > 0 ? space : maxSentence).toWellFormed()}…`
}

/** Longest sentence in a summary, in characters: three times the longest in ordinary letters. */
const maxSentence = 600

// Matching takes linear time: the lists below are alternatives of fixed words.

const any = (flags: string, ...alternatives: ReadonlyArray<string>): RegExp =>
  new RegExp(String.raw`\b(?:${alternatives.join("|")})\b`, flags)

const start = (...alternatives: ReadonlyArray<string>): RegExp => new RegExp(`^(?:${alternatives.join("|")})\\b`, "i")

const courtesy = start(
  "(?:many |best |kind |warm )?(?:thanks?|thx|regards|wishes|cheers)",
  "sorry",
  "i(?:'m|’m| am) sorry",
  "(?:i |i am |i'm |i’m |we )?look(?:ing)? forward",
  "i hope",
  "my name is"
)

const reference = start(
  "(?:(?:the|my|your|our|her|his) )?" +
    "(?:order|booking|reservation|reference|ref|invoice|ticket|account|login|number|customer)"
)

const reply = any(
  "i",
  "let me know",
  "(?:please|kindly) (?:help|confirm|reply|answer|respond|advise|acknowledge|call|phone|ring)",
  "written confirmation",
  "(?:call|reach) me",
  "write to me",
  "get back to",
  "hear from you"
)

const appeal = any(
  "i",
  "please|kindly|asking you",
  "(?:can|could|would|will|may) (?:you|i|we|somebody|someone|anyone)",
  "(?:i|we|and)(?: would| should|'d|’d)(?: also| really| just)? like",
  "(?:i|we) (?:hereby |must |have to )?(?:ask|request|demand|insist|dispute)"
)

const wish = any(
  "i",
  "(?<!than )(?:i|we)(?: would|'d|’d)?(?: only| just| really| also)? (?:want|need|expect|prefer)",
  String.raw`(?:should|must|ought to) be \w+(?:ed|en|t)`
)

const command = start(
  "(?:(?:so|and|just|then) )?" +
    "(?:cancel|refund|send|change|take|block|delete|move|stop|fix|replace|return|give|remove|make|put|tell|book|" +
    "close|update|correct|exchange|repair|check|deliver|reset|unlock|restore|issue|pay|credit|reverse)"
)

const trouble = any(
  "giu",
  "not|never|no|nobody|nothing|neither|none|without|cannot|wrong(?:ly)?|incorrect|mistake|error|stuck|locked|stolen",
  "broken?|missing|lost|damaged|torn|crushed|cracked|defective|faulty|fail(?:s|ed|ing)?|crash(?:es|ed|ing)?",
  "leak(?:s|ing|ed)?|late|delayed|overdue|expired|refuse[sd]?|reject(?:s|ed)|declined?|charge[ds]?|billed",
  "twice|instead|fraud|empty|dead|smells?|dirty|cold|mou?ld|stop(?:s|ped)|still|but|however|although|only|too",
  String.raw`\p{L}{2,6}n['’]t`
)
