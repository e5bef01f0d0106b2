/**
 * What a test file hands to the code as a key or as a prompt, and what the code shows of itself meanwhile. Nothing of the one
 * may be in the other.
 */
import { inspect } from "node:util"

/** A prompt and a key like no other: what holds it in any place holds a secret. */
export const canary = "canary-5f1c"

const secrets = new Set<string>([canary])
const publicNames = new Set<string>()
let ordinary: ReadonlySet<string> = new Set()
const shown = new Map<string, string>()

// What leaks one key leaks them all, and a property test may make very many.
const mostSecrets = 20_000

/** Remembers a string that must not be shown. Hands on whatever it is given. */
export const secret = <A>(value: A): A => {
  if (typeof value === "string" && value.trim() !== "" && secrets.size < mostSecrets) secrets.add(value)
  return value
}

/** As `secret`, for what may also be the function that makes a key of an input: then the input is secret. */
export const secretOrKeyOf = <A>(value: A): A =>
  typeof value === "function"
    ? new Proxy(value, { apply: (target, self, inputs) => Reflect.apply(target, self, secretsIn(inputs)) })
    : secret(value)

/** Remembers a name that may be shown, also where a key happens to be the same. */
export const publicName = <A>(value: A): A => {
  if (typeof value === "string") publicNames.add(value)
  return value
}

/** Says which words are in messages anyway. A test may well ask about a "flight"; that tells nothing from anything. */
export const setOrdinary = (words: ReadonlyArray<string>): void => {
  ordinary = new Set(words)
}

const secretsIn = <A>(value: A, depth = 0): A => {
  if (typeof value === "object" && value !== null && depth < 4) {
    for (const inner of Object.values(value)) secretsIn(inner, depth + 1)
  }
  return secret(value)
}

/** Something came to where others read: a log, a span, a metric. */
export const show = (where: string, value: unknown): void => {
  const text = typeof value === "string" ? value : inspect(value, { depth: 8 })
  if (!shown.has(text)) shown.set(text, where)
}

/** Every secret that was shown since the last look, and where. */
export const leaks = (): ReadonlyArray<string> => {
  const found = [...shown].flatMap(([text, where]) =>
    secretsOf(text).map((secret) => `${where} shows ${secret}: ${text}`)
  )
  shown.clear()
  return found
}

const secretsOf = (text: string): ReadonlyArray<string> => {
  const found = [...secrets].filter((secret) => holds(text, secret)).map((secret) => `"${secret}"`)
  return requestKey.test(text) ? [...found, "the hash of a request"] : found
}

/** How much there was to see since the last look, and to find. */
export const counts = () => ({ shown: shown.size, secrets: secrets.size })

const requestKey = /\b[0-9a-f]{64}\b/

// A key called "a" is in every sentence: what is shorter than three letters is looked for where it stands by itself.
const holds = (text: string, secret: string): boolean => {
  if (secret === canary) return text.includes(canary)
  if (publicNames.has(secret)) return false
  if (secret.length < 3) return text === secret
  if (ordinary.has(secret)) return false
  for (let at = text.indexOf(secret); at >= 0; at = text.indexOf(secret, at + 1)) {
    if (!isWord(text[at - 1]) && !isWord(text[at + secret.length])) return true
  }
  return false
}

const isWord = (character: string | undefined): boolean => character !== undefined && /[\p{L}\p{N}_]/u.test(character)
