/** Formats numbers and durations for people. */

export const count = (value: number): string => String(Math.round(value)).replaceAll(/\B(?=(?:\d{3})+$)/g, ",")

/** Formats a count with its noun: `1 request`, `1,200 requests`. */
export const plural = (value: number, noun: string, nouns = `${noun}s`): string =>
  `${count(value)} ${Math.round(value) === 1 ? noun : nouns}`

/** Formats a duration in its two largest units: `850ms`, `3.2s`, `2m 24s`, `1h 05m`, `2 days 6h`. */
export const time = (millis: number): string => {
  if (millis < 1000) return `${Math.round(millis)}ms`
  if (millis < 9950) return `${(millis / 1000).toFixed(1)}s`
  const seconds = Math.round(millis / 1000)
  if (seconds < 60) return `${seconds}s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes}m ${twoDigits(seconds % 60)}s`
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return `${hours}h ${twoDigits(minutes % 60)}m`
  const days = `${count(Math.floor(hours / 24))} days`
  return hours % 24 === 0 ? days : `${days} ${hours % 24}h`
}

const twoDigits = (value: number): string => String(value).padStart(2, "0")

/** Names files: the first, and how many others. */
export const files = ([first = "", ...others]: ReadonlyArray<string>): string =>
  others.length === 0 ? first : `${first} and ${plural(others.length, "other file")}`
