import * as Redacted from "effect/Redacted"

export type Mask = (text: string) => string

const placeholder = "[masked]"

// Masking a shorter string would hit ordinary words of a message.
const shortestSecret = 6

// A word with perhaps a short number, such as `ollama` or `password123`, which local servers take as a key.
const word = /^(?:[a-z]{1,16}|[A-Z][a-z]{0,15}|[A-Z]{1,16})\d{0,4}$/

/** Whether masking a secret would hit ordinary words of a message. */
const isOrdinary = (secret: string): boolean => secret.length < shortestSecret || word.test(secret)

// The keys of the large providers. A provider may quote the key that it refuses, and a proxy may have replaced ours.
const looksLikeKey = /\bsk-[A-Za-z0-9_-]{8,}/g

/** Masks these secrets, also in their URL encoding, and every string that looks like a provider's key. */
export const make = (secrets: ReadonlyArray<Redacted.Redacted>): Mask => {
  const known = new Set<string>()
  for (const secret of secrets) {
    const value = Redacted.value(secret)
    if (isOrdinary(value)) continue
    known.add(value)
    known.add(encodeURIComponent(value))
  }
  return (text) => {
    let masked = text
    for (const value of known) masked = masked.replaceAll(value, placeholder)
    return masked.replace(looksLikeKey, placeholder)
  }
}
