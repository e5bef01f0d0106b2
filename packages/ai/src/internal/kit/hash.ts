import { createHash } from "node:crypto"

/** A 64-bit hash of a text, in hexadecimal. */
export const digest = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 16)

/** A number from 0 to below 1 that depends on the parts alone, and is uniformly distributed. */
export const uniform = (...parts: ReadonlyArray<string | number>): number => {
  const hash = createHash("sha256").update(JSON.stringify(parts)).digest()
  return hash.readUIntBE(0, 6) / 2 ** 48
}

/** A 256-bit hash of a text. */
export const digestBytes = (text: string): Uint8Array => createHash("sha256").update(text).digest()
