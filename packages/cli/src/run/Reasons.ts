import * as Failure from "./Failure.ts"
import type { Failed } from "./Result.ts"

/** The lines that failed for one reason. */
export interface Reason {
  /** A few words for the table. */
  readonly words: string
  times: number
  /** The first of these lines, and its message. A provider may have written the message. */
  readonly line: number
  readonly message: string
}

const maxReasons = 30
const maxMessage = 300

/** Groups failed lines by reason, in bounded memory. */
export class Reasons {
  private readonly groups = new Map<string, Reason>()

  add({ error: { message, tag }, line }: Failed): void {
    const own = Failure.wordsOf(tag)
    const words = this.groups.has(own) || this.groups.size < maxReasons - 1 ? own : "another reason"
    const known = this.groups.get(words)
    if (known === undefined) this.groups.set(words, { words, times: 1, line, message: message.slice(0, maxMessage) })
    else known.times++
  }

  /** The reasons, the most frequent first. */
  get sorted(): ReadonlyArray<Reason> {
    return [...this.groups.values()].sort((a, b) => b.times - a.times || a.line - b.line)
  }
}
