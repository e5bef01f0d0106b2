const placeholder = "[masked]"

// Shorter strings are no keys, and to mask them would riddle every answer.
const shortest = 6

/** Puts a placeholder wherever one of these keys stands. Everything that is printed or written goes through it. */
export const make = (keys: ReadonlyArray<string>) => {
  const known = keys.filter((key) => key.length >= shortest)
  return (text: string): string => known.reduce((masked, key) => masked.replaceAll(key, placeholder), text)
}
