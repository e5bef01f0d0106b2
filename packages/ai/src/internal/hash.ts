import { createHash } from "node:crypto"

/** A short name of a text: 64 bits, in hexadecimal. */
export const digest = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 16)

/** A number from 0 to less than 1 that depends on the parts and nothing else, and is uniform over them. */
export const uniform = (...parts: ReadonlyArray<string | number>): number => {
  const hash = createHash("sha256").update(JSON.stringify(parts)).digest()
  return hash.readUIntBE(0, 6) / 2 ** 48
}

/** 32 bytes that stand for a text. */
export const digestBytes = (text: string): Uint8Array => createHash("sha256").update(text).digest()
