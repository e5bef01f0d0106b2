/** Text that a database can store. PostgreSQL has no NUL, and no half of a character. */

export const isStorable = (text: string): boolean => text.isWellFormed() && !text.includes("\0")

/** Replaces what cannot be stored. An answer that was paid is not refused for it. */
export const toStorable = (text: string): string => text.toWellFormed().replaceAll("\0", "\ufffd")
