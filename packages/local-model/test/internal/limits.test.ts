import { assert, describe, it } from "@effect/vitest"
import { maxInputBytes } from "@sluice/local-model/LocalModel"
import { answerTo } from "../../src/internal/answer.ts"

// What costs the square of its length, or more, in wink-nlp, in a careless expression or in a careless loop.
const traps = {
  "one word": "a",
  "short words": "a ",
  "a line without an end": "refund the order now ",
  "sentences": "It is broken. ",
  "the shortest sentences": "a b. ",
  "new lines": "\n",
  "blank lines with spaces": " \n",
  "lines of one letter": "a\n",
  "lines that go on": `${"word ".repeat(12)}and\n`,
  "names": "John Smith\n",
  "thanks": "thanks\n",
  "greetings": "Hi a b c d ",
  "spaces": " ",
  "tabs": "\t",
  "no-break spaces": "\u00a0",
  "parts of addresses": "a@a@a@",
  "dots before an at": "a.a.a.a@",
  "addresses": "a@a.b.c.d.e ",
  "links that wink never finishes": `http://${"aa.".repeat(28)}aa! `,
  "version numbers": "1.1.1.",
  "figures": "1 234 567 ",
  "figures with commas": "1,234,",
  "signs of money": "$",
  "codes of money": "EUR ",
  "figures in words": "one hundred ",
  "days": "1 May ",
  "months": "January ",
  "years": "2024-",
  "days with slashes": "1/2/",
  "words before order numbers": "order no. id code is ",
  "order numbers": "ORD-1A-1A-1A-",
  "number signs": "#123-",
  "codes": "A1",
  "requests": "could you please and we would also ",
  "contractions": "don't ",
  "hyphens": "a-",
  "apostrophes": "a'",
  "brackets": "(",
  "brackets with spaces": "( ",
  "marks that end a sentence": ".'\")]!?",
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
  "right to left": "שלום עולם. ",
  "marks on a letter": "\u0301",
  "ideographs": "漢字。",
  "NUL": "\0",
  "NUL between letters": "a\0",
  "JSON": "{\"a\":[1,2,"
}

const filled = (unit: string): string => unit.repeat(Math.floor(maxInputBytes / Buffer.byteLength(unit)))

describe("limits", () => {
  it.each(Object.entries(traps))("answers the largest input of %s within a second", (_name, unit) => {
    const prompt = filled(unit)
    const before = performance.now()
    answerTo(prompt)
    assert.isBelow(performance.now() - before, 1_000)
  })
})
