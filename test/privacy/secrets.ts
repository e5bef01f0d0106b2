/** The secrets of a test file, and the texts that its code showed. No text may contain a secret. */
import { inspect } from "node:util"

/** A unique key and prompt. A text that contains it leaks a secret. */
export const canary = "canary-5f1c"

const secrets = new Set<string>([canary])
const publicNames = new Set<string>()
let ordinary: ReadonlySet<string> = new Set()
const shown = new Map<string, string>()

// Bounds the memory of property tests. Code that leaks one key leaks others too.
const maxSecrets = 20_000

/** Remembers a string that must not be shown. Returns the value unchanged. */
export const secret = <A>(value: A): A => {
  if (typeof value === "string" && value.trim() !== "" && secrets.size < maxSecrets) secrets.add(value)
  return value
}

/** `secret`, or for a function that makes a key: its inputs are secret. */
export const secretOrKeyOf = <A>(value: A): A =>
  typeof value === "function"
    ? new Proxy(value, { apply: (target, self, inputs) => Reflect.apply(target, self, secretsIn(inputs)) })
    : secret(value)

/** Remembers a name that can be shown, even if a key is the same text. */
export const publicName = <A>(value: A): A => {
  if (typeof value === "string") publicNames.add(value)
  return value
}

/** Sets the words that messages contain anyway. A key or prompt that is such a word ("flight") is not searched for. */
export const setOrdinary = (words: ReadonlyArray<string>): void => {
  ordinary = new Set(words)
}

const secretsIn = <A>(value: A, depth = 0): A => {
  if (typeof value === "object" && value !== null && depth < 4) {
    for (const inner of Object.values(value)) secretsIn(inner, depth + 1)
  }
  return secret(value)
}

/** Records a text that was shown in a log, a span or a metric. */
export const show = (where: string, value: unknown): void => {
  const text = typeof value === "string" ? value : inspect(value, { depth: 8 })
  if (!shown.has(text)) shown.set(text, where)
}

/** The secrets that were shown since the last call, and where. */
export const leaks = (): ReadonlyArray<string> => {
  const found = [...shown].flatMap(([text, where]) =>
    secretsOf(text).map((secret) => `${where} shows ${secret}: ${text}`)
  )
  shown.clear()
  return found
}

const secretsOf = (text: string): ReadonlyArray<string> => {
  const found = [...secrets].filter((secret) => contains(text, secret)).map((secret) => `"${secret}"`)
  return requestKey.test(text) ? [...found, "the hash of a request"] : found
}

/** The number of texts since the last call of `leaks`, and of secrets. */
export const counts = () => ({ shown: shown.size, secrets: secrets.size })

const requestKey = /\b[0-9a-f]{64}\b/

// A secret of one or two characters counts only as the whole text, since "a" is in nearly every sentence.
const contains = (text: string, secret: string): boolean => {
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
