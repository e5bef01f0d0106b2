import * as Redacted from "effect/Redacted"

export type Mask = (text: string) => string

const placeholder = "[masked]"

// Masking a shorter string would hit ordinary words of a message.
const shortestSecret = 6

// The keys of the large providers. A provider may quote the key that it refuses, and a proxy may have replaced ours.
const looksLikeKey = /\bsk-[A-Za-z0-9_-]{8,}/g

/** Masks these secrets, also in their URL encoding, and every string that looks like a provider's key. */
export const make = (secrets: ReadonlyArray<Redacted.Redacted>): Mask => {
  const known = new Set<string>()
  for (const secret of secrets) {
    const value = Redacted.value(secret)
    if (value.length < shortestSecret) continue
    known.add(value)
    known.add(encodeURIComponent(value))
  }
  return (text) => {
    let masked = text
    for (const value of known) masked = masked.replaceAll(value, placeholder)
    return masked.replace(looksLikeKey, placeholder)
  }
}
