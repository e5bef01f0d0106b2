import type { Reading, Tagged } from "./wink.ts"

/** The key phrases of a text: runs of adjectives and nouns that end in a noun. Most frequent first, then in text order. */
export const phrasesOf = (readings: ReadonlyArray<Reading>): ReadonlyArray<string> => {
  const counted = new Map<string, { readonly phrase: string; count: number }>()
  for (const phrase of readings.flatMap((reading) => runsOf(reading.words))) {
    const key = phrase.toLowerCase()
    const seen = counted.get(key)
    if (seen === undefined) counted.set(key, { phrase, count: 1 })
    else seen.count++
  }
  return [...counted.values()].sort((a, b) => b.count - a.count).slice(0, maxPhrases).map(({ phrase }) => phrase)
}

const maxPhrases = 8
const maxWords = 4

const runsOf = (words: ReadonlyArray<Tagged>): ReadonlyArray<string> => {
  const phrases: Array<string> = []
  let run: Array<Tagged> = []
  const close = (): void => {
    while (run.length > 0 && !isNoun(run.at(-1))) run.pop()
    const phrase = run.slice(-maxWords).map(({ word }) => word).join(" ")
    if (phrase.length > 2 && !vague.test(phrase)) phrases.push(phrase)
    run = []
  }
  for (const tagged of words) {
    if ((isNoun(tagged) || tagged.pos === "ADJ") && !/\d{3}/.test(tagged.word)) run.push(tagged)
    else close()
  }
  close()
  return phrases
}

const isNoun = (tagged: Tagged | undefined): boolean => tagged?.pos === "NOUN" || tagged?.pos === "PROPN"

const vague = new RegExp(
  "^(?:(?:thing|something|everything|way|lot|bit|one|time|day|week|month|year|hour|minute|morning|evening|end)s?|" +
    "while|today|yesterday|tomorrow|(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|may|june|" +
    "july|august|september|october|november|december)$",
  "i"
)
