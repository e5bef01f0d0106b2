/** Limits of a response. A larger one fails. */
export interface Bounds {
  /** Bytes of a whole response after decompression, or characters of a streamed response's content. */
  readonly answerSize: number
  /** Characters of one event of a stream. */
  readonly eventSize: number
  readonly jsonDepth: number
}
