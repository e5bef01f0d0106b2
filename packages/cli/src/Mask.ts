const placeholder = "[masked]"

/** Shorter keys occur in ordinary text by chance. */
const minKeyLength = 8

// A part of a human-readable name: letters of one case or with a capital, and perhaps a short number.
const word = /^(?:[a-z]{1,16}|[A-Z][a-z]{0,15}|[A-Z]{1,16})?\d{0,4}$|^\d{1,12}$/

/** Whether a key could be ordinary text, such as `ollama`, `lm-studio` or `llama3.2`. */
const isOrdinary = (key: string): boolean =>
  key.length < minKeyLength || key.split(/[-_.:/ ]/).every((part) => word.test(part))

/**
 * Returns a function that replaces these keys with a placeholder, also in their URL encoding. Keys that could be ordinary
 * text stay.
 *
 * Apply it to messages of errors. Never apply it to prompts or answers.
 */
export const make = (keys: ReadonlyArray<string>) => {
  const known = new Set(keys.flatMap((key) => isOrdinary(key) ? [] : [key, encodeURIComponent(key)]))
  return (text: string): string => {
    let masked = text
    for (const key of known) masked = masked.replaceAll(key, placeholder)
    return masked
  }
}
