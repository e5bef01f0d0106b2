import type * as Prompt from "effect/ai/Prompt"
import * as Base64 from "effect/encoding/Base64"

/** The bytes of a file, or a URL from which the provider fetches them. */
export type Source = { readonly base64: string } | { readonly url: string }

const dataUrl = /^data:[^,]*;base64,/i
const webUrl = /^https?:\/\//i

/** Reads a file of a prompt: bytes, base64, a `data:` URL, or a URL. */
export const source = ({ data }: Prompt.FilePart): Source => {
  if (data instanceof Uint8Array) return { base64: Base64.encode(data) }
  const text = typeof data === "string" ? data : data.href
  const prefix = dataUrl.exec(text)
  if (prefix !== null) return { base64: text.slice(prefix[0].length) }
  return typeof data === "string" && !webUrl.test(text) ? { base64: text } : { url: text }
}
