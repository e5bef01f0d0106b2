/** The hash of a request, which tells on `--resume` whether a line of the input is still the one that was answered. */
import { hash } from "node:crypto"
import type { Prompt } from "./Prompt.ts"
import type { Settings } from "./Settings.ts"

/** What a run adds to the requests of all lines. */
export type Common = Pick<Settings, "temperature" | "maxTokens" | "targets">

/**
 * Returns the function that hashes a prompt: 16 hexadecimal digits over its model, messages, limits and other request fields,
 * after the flags. The URL, the key and all targets but the first are left out, so that a run can go on at another provider.
 */
export const hasher = (common: Common): (prompt: Pick<Prompt, "body" | "messages" | "model">) => string => {
  const { maxTokens = null, targets: [{ model: defaultModel = null }], temperature = null } = common
  return ({ body, messages, model }) =>
    hash(
      "sha256",
      // An array has a fixed order. The order of the line's own fields has no meaning.
      JSON.stringify([
        model ?? defaultModel,
        messages,
        temperature,
        maxTokens,
        body === undefined ? null : ordered(body)
      ]),
      "hex"
    ).slice(0, 16)
}

/** The same value with the fields of all objects in one order. */
const ordered = (value: unknown): unknown => {
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map(ordered)
  return Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([name, field]) => [name, ordered(field)])
}
