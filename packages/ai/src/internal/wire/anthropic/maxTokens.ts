/**
 * The API requires a limit. This one is about 3,000 words and within the limits of every model. A shorter response
 * costs no more.
 */
export const defaultMaxTokens = 4096
