const placeholder = "[masked]"

// Shorter strings are no keys, and masking them would damage answers.
const minKeyLength = 6

/** Returns a function that replaces these keys with a placeholder. Apply it to everything that is printed or written. */
export const make = (keys: ReadonlyArray<string>) => {
  const known = keys.filter((key) => key.length >= minKeyLength)
  return (text: string): string => known.reduce((masked, key) => masked.replaceAll(key, placeholder), text)
}
