/** The name of a limit among processes. The window is part of it, since requests can be limited by minute and by day. */
export const sharedName = (dimension: string, windowMillis: number): string => `${dimension}/${windowMillis}`

/** The name under which a limit by hand is kept beside a learned one: its rest is the time until its end. */
export const byHand = (name: string): string => `hand:${name}`
