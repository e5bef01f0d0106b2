import * as Redacted from "effect/Redacted"

/** Puts a placeholder where a known secret stands. */
export type Mask = (text: string) => string

const placeholder = "[masked]"

// Shorter strings are no secrets, and masking them would riddle every message.
const shortestSecret = 6

// What a key of the large providers looks like. Providers like to quote the key that they refuse, and it may be another
// one than ours: that of a proxy in between.
const looksLikeKey = /\bsk-[A-Za-z0-9_-]{8,}/g

/** A mask for these secrets, also as they look in a URL, and for whatever looks like a provider's key. */
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
