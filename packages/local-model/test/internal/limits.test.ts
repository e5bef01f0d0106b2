import { assert, describe, it } from "@effect/vitest"
import { maxInputBytes } from "@sluice/local-model/LocalModel"
import { answerTo } from "../../src/internal/answer.ts"

// Inputs that could take quadratic time or more in wink-nlp, in a regular expression or in a loop.
const inputs = {
  "one word": "a",
  "short words": "a ",
  "a line without full stops": "refund the order now ",
  "sentences": "It is broken. ",
  "the shortest sentences": "a b. ",
  "new lines": "\n",
  "blank lines with spaces": " \n",
  "lines of one letter": "a\n",
  "wrapped lines": `${"word ".repeat(12)}and\n`,
  "names": "John Smith\n",
  "thanks": "thanks\n",
  "greetings": "Hi a b c d ",
  "spaces": " ",
  "tabs": "\t",
  "no-break spaces": "\u00a0",
  "parts of addresses": "a@a@a@",
  "dots before an at": "a.a.a.a@",
  "addresses": "a@a.b.c.d.e ",
  "links that stall wink-nlp": `http://${"aa.".repeat(28)}aa! `,
  "version numbers": "1.1.1.",
  "figures": "1 234 567 ",
  "figures with commas": "1,234,",
  "currency signs": "$",
  "currency codes": "EUR ",
  "amounts in words": "one hundred ",
  "days": "1 May ",
  "months": "January ",
  "years": "2024-",
  "days with slashes": "1/2/",
  "words that precede order numbers": "order no. id code is ",
  "order numbers": "ORD-1A-1A-1A-",
  "number signs": "#123-",
  "codes": "A1",
  "requests": "could you please and we would also ",
  "contractions": "don't ",
  "hyphens": "a-",
  "apostrophes": "a'",
  "brackets": "(",
  "brackets with spaces": "( ",
  "punctuation that ends a sentence": ".'\")]!?",
  "exclamation marks": "! ",
  "ellipses": "…",
  "quotes": "\"'",
  "quoted lines": "> > \n",
  "capitals": "REFUND ",
  "unknown words": "zorblax frobnix ",
  "emoji": "😀",
  "emoji with spaces": "😀 ",
  "families of emoji": "👩‍👩‍👧‍👦",
  "high surrogates": "\ud800",
  "low surrogates with spaces": "\udc00 ",
  "right-to-left text": "שלום עולם. ",
  "combining marks": "\u0301",
  "ideographs": "漢字。",
  "NUL": "\0",
  "NUL between letters": "a\0",
  "JSON": "{\"a\":[1,2,"
}

const filled = (unit: string): string => unit.repeat(Math.floor(maxInputBytes / Buffer.byteLength(unit)))

describe("answerTo with the largest input", () => {
  it.each(Object.entries(inputs))("64 KiB of %s are answered within 10 seconds of the processor", (_name, unit) => {
    const prompt = filled(unit)
    const before = process.cpuUsage()
    answerTo(prompt)
    assert.isBelow(process.cpuUsage(before).user / 1_000, 10_000)
  }, 60_000)
})
