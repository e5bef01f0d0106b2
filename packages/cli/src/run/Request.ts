/** The hash of a request, by which `--resume` detects a changed line of the input. */
import { hash } from "node:crypto"
import type { Prompt } from "./Prompt.ts"
import type { Settings } from "./Settings.ts"

/** The settings of a run that shape the requests of all lines. */
export type Common = Pick<Settings, "temperature" | "maxTokens" | "omit" | "targets">

type Fields = Pick<Prompt, "body" | "messages" | "model" | "sample">

/**
 * Returns the function that hashes a prompt: 16 hexadecimal digits of its canonical form. The URL, the key, the headers and all
 * targets but the first are left out, so that a run can continue at another provider.
 */
export const hasher = (common: Common): (prompt: Fields) => string => {
  const text = canonical(common)
  return (prompt) => hash("sha256", text(prompt), "hex").slice(0, 16)
}

/** Returns the function that writes a prompt's model, messages, limits and other request fields, after the flags. */
export const canonical = (common: Common): (prompt: Fields) => string => {
  const { maxTokens = null, omit, targets: [{ model: defaultModel = null }], temperature = null } = common
  const omitted = omit.length === 0 ? [] : [[...new Set(omit)].sort()]
  return ({ body, messages, model, sample = 1 }) =>
    // An array has a fixed order. The order of the line's own fields has no meaning.
    JSON.stringify([
      model ?? defaultModel,
      messages,
      temperature,
      maxTokens,
      body === undefined ? null : ordered(body),
      ...omitted,
      // A first sample is the only request of a run without --samples, which can be resumed with it.
      ...(sample === 1 ? [] : [{ sample }])
    ])
}

/** Sorts the fields of all objects in a value. */
const ordered = (value: unknown): unknown => {
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map(ordered)
  return Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([name, field]) => [name, ordered(field)])
}
