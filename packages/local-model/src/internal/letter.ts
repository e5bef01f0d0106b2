import { sentencesOf, tokensOf, wordsOf } from "./text.ts"

/** The sentences of a letter in order, without greeting, farewell, signature, and quotes of earlier messages. */
export const contentOf = (text: string): ReadonlyArray<string> =>
  paragraphsOf(bodyOf(linesOf(text)))
    .flatMap(sentencesOf)
    .map((sentence) => sentence.replace(salutation, ""))
    .filter((sentence) => wordsOf(sentence).length > 0 && !isGreeting(sentence) && !isFarewell(sentence))

const linesOf = (text: string): ReadonlyArray<string> =>
  text.split(/\r\n|[\n\r\u2028\u2029]/).map((line) => tokensOf(line).join(" ")).filter((line) => !isQuoted(line))

const isQuoted = (line: string): boolean => line.startsWith(">") || /^On .{1,120} wrote:$/.test(line)

const bodyOf = (lines: ReadonlyArray<string>): ReadonlyArray<string> => {
  let start = 0
  while (start < lines.length && isOpening(lines[start] ?? "")) start++
  let end = lines.length
  while (end > start && isClosing(lines[end - 1] ?? "", end - 1)) end--
  return withoutSignatures(lines.slice(start, end))
}

/** Removes signatures in the middle, which a postscript follows. */
const withoutSignatures = (lines: ReadonlyArray<string>): ReadonlyArray<string> => {
  let signing = false
  return lines.filter((line) => {
    signing = isFarewell(line) || (signing && (line === "" || isSignature(line)))
    return !signing
  })
}

const isOpening = (line: string): boolean =>
  line === "" || header.test(line) || isGreeting(line) || /^\p{Lu}+!*$/u.test(line) ||
  (isShort(line) && /^[\p{L} ]+[,:]$/u.test(line))

const header = /^(?:subject|from|to|cc|date|sent|re|fwd?)\s?:/i

const isClosing = (line: string, at: number): boolean =>
  line === "" || isFarewell(line) || (at > 0 && (isSignature(line) || (isShort(line) && line.endsWith(","))))

const isShort = (line: string): boolean => line.length <= 120 && tokensOf(line).length <= 8

const isGreeting = (line: string): boolean =>
  isShort(line) && greeting.test(line) &&
  (/[,:!]$/.test(line) || /^(?:dear|to) /i.test(line) || tokensOf(line).length <= 3)

const hello = "hi|hello|hey|hiya|good (?:morning|afternoon|evening|day)"

const greeting = new RegExp(
  String.raw`^(?:${hello}|dear|greetings|to (?:whom|the|all))\b[\p{L}\p{M}\p{N} .'’/&-]*[,:!]*$`,
  "iu"
)

/** A greeting at the start of a line that continues. */
const salutation = new RegExp(
  String.raw`^(?:${hello}|dear \p{L}+)(?: \p{L}+\.?){0,3}(?:[,!:.]| [-–—]) (?=\S)`,
  "iu"
)

const isFarewell = (line: string): boolean => {
  if (!isShort(line)) return false
  const rest = line.replace(farewell, "")
  return rest !== line && (rest === "" || isName(rest))
}

const farewellForms = [
  "(?:with |many |my |our )?(?:(?:very |kind|kindest|best|warm|warmest|friendly) ){0,2}(?:regards|wishes|greetings)",
  String.raw`(?:with |many |best )?(?:thanks|thank you|thx)\b[^,.?!]{0,80}`,
  "(?:yours|very truly yours|sincerely|respectfully|cordially|faithfully)(?: yours| truly| sincerely| faithfully)?",
  "(?:i |we )?look(?:ing)? forward to [^,.?!]{0,80}",
  "all the best|best|cheers|ta|love|bye|take care"
]

const farewell = new RegExp(String.raw`^(?:${farewellForms.join("|")})\b[ ,.!–—-]*`, "i")

const isSignature = (line: string): boolean => isContact(line) || isName(line) || /^sent (?:from|with|via) /i.test(line)

const isContact = (line: string): boolean =>
  isShort(line) && (/^\S+@\S+$/.test(line) || /^[+()\d\s./-]+$/.test(line) ||
    /^(?:https?:|www\.|(?:tel|phone|mobile|fax|e-?mail|web)\b)/i.test(line))

/** Names, offices and addresses. Every word before the first comma starts with a capital or a digit, or is a particle. */
const isName = (line: string): boolean => {
  const [first = ""] = line.split(", ")
  const words = wordsOf(first)
  return isShort(line) && words.length > 0 && (words.length > 1 || first === line) &&
    !/[!?:;]|\p{Ll}{2}\.$/u.test(line) &&
    words.every((word) => /^[\p{Lu}\p{Lt}\p{N}]/u.test(word) || particle.test(word))
}

const particle = /^(?:and|of|the|de|del|della|der|den|di|da|van|von|bin|ter|la|le)$/

/**
 * Joins lines that an e-mail program has wrapped. Such a text has no long line, and at least two lines that are nearly full and
 * continue in the next. In other texts every line ends a sentence.
 */
const paragraphsOf = (lines: ReadonlyArray<string>): ReadonlyArray<string> => {
  const wrapped = lines.every((line) => line.length <= 100) && lines.filter(continues).length >= 2
  return wrapped ? lines.map((line) => line === "" ? "\n" : line).join(" ").split("\n") : lines
}

const continues = (line: string, at: number, lines: ReadonlyArray<string>): boolean =>
  line.length >= 45 && /[\p{L}\p{N},;]$/u.test(line) && (lines[at + 1] ?? "") !== ""
