/** What a provider may send before it is refused. */
export interface Bounds {
  /** Bytes of a whole answer, decompressed; in a stream, characters of content. */
  readonly answerSize: number
  /** Characters of one event of a stream. */
  readonly eventSize: number
  /** Levels of nesting in JSON. */
  readonly jsonDepth: number
}
