import * as Stream from "effect/Stream"
import type { AnyPart } from "./parts.ts"
import { isOutput } from "./parts.ts"

/** The part of an answer that the consumer has received. */
export class PartialAnswer {
  text = ""
  /** The id of the text block that has begun and not ended. */
  openBlock: string | undefined = undefined
  /** Whether all of it is text. Anything else cannot be sent as the beginning of an answer. */
  isText = true

  add(part: AnyPart): void {
    switch (part.type) {
      case "text-start":
        this.openBlock = idOf(part)
        return
      case "text-delta":
        this.openBlock = idOf(part)
        this.text += deltaOf(part)
        return
      case "text-end":
        this.openBlock = undefined
        return
      default:
        if (isOutput(part)) this.isText = false
    }
  }

  /**
   * The text to send as the beginning of the answer. White space at the end is left out, since providers refuse it, and so is
   * half of a surrogate pair.
   */
  get prefill(): string {
    const { text } = this
    let length = text.length
    while (length > 0 && /[\s\uD800-\uDBFF]/.test(text[length - 1] ?? "")) length--
    return text.slice(0, length)
  }
}

/**
 * Returns the parts of a new attempt that continue the partial answer. If the target repeats the partial answer, the repetition
 * is removed, also if white space before it differs. An open text block continues under its own id. Emits nothing until the
 * repetition is confirmed or ruled out, so a failure before that is retried.
 */
export const following = <A extends AnyPart, E, R>(
  parts: Stream.Stream<A, E, R>,
  partial: PartialAnswer,
  /** Makes the end of a text block. */
  ended: (id: string) => A
): Stream.Stream<A, E, R> =>
  Stream.mapAccumArray(
    parts,
    () => new Following(partial, ended),
    (following, chunk) => [following, chunk.flatMap((part) => following.next(part))]
  )

/** Continues one partial answer with the parts of a new attempt. */
export class Following<A extends AnyPart> {
  private readonly text: string
  private readonly prefill: string
  /** White space at the beginning of the prefill. */
  private readonly margin: string
  /** The prefill after the margin. */
  private readonly core: string
  /** Whether the white space before a repetition may differ. */
  private readonly isLong: boolean
  private readonly ended: (id: string) => A
  /** The block of the partial answer, until it ends. */
  private openBlock: string | undefined
  /** The text of the new answer, held until a repetition is confirmed or ruled out. Then `undefined`. */
  private begun: string | undefined = ""
  /** The length of the white space at its beginning, once other text has arrived. */
  private indent: number | undefined
  /** Whether all of `begun` repeats the partial answer so far. */
  private repeats = true
  /** The last parts of the text that are held back. */
  private start: A | undefined
  private delta: A | undefined
  private end: A | undefined
  /** The block of the new answer that continues the open one. */
  private continuedBlock: string | undefined

  constructor(partial: PartialAnswer, ended: (id: string) => A) {
    this.text = partial.text
    this.prefill = partial.prefill
    this.core = this.prefill.trimStart()
    this.margin = this.prefill.slice(0, this.prefill.length - this.core.length)
    this.isLong = hasTwoWords(this.core)
    this.openBlock = partial.openBlock
    this.ended = ended
  }

  next(part: A): ReadonlyArray<A> {
    if (this.begun === undefined) return part.type === "finish" ? [...this.close(), part] : [this.renamed(part)]
    switch (part.type) {
      case "text-start":
        this.start = part
        this.end = undefined
        return []
      case "text-delta":
        this.delta = part
        return this.add(this.begun, deltaOf(part))
      case "text-end":
        this.end = part
        return []
      case "finish":
        return [...this.decide(this.begun, true), ...this.close(), part]
      default:
        return isOutput(part) && this.begun !== "" ? [...this.decide(this.begun, true), part] : [part]
    }
  }

  private add(begun: string, text: string): ReadonlyArray<A> {
    this.begun = begun + text
    this.compare(begun.length, text)
    return this.repeats && this.begun.length < (this.indent ?? Number.POSITIVE_INFINITY) + this.core.length
      ? []
      : this.decide(this.begun, false)
  }

  /** Compares a text that begins at this length of the new answer. Each text is compared once, to bound the total work. */
  private compare(length: number, text: string): void {
    if (!this.repeats) return
    const { begun = "", core, indent } = this
    if (indent !== undefined) {
      this.repeats = core.startsWith(text, length - indent)
      return
    }
    const first = text.search(/\S/)
    if (first === -1) {
      this.repeats = core !== "" && this.mayBecomeMargin(begun)
      return
    }
    this.indent = length + first
    this.repeats = this.isMargin(begun.slice(0, this.indent)) && startsAlike(text.slice(first), core)
  }

  /** Whether a repetition can begin with this white space. */
  private isMargin(space: string): boolean {
    return space === this.margin || space === "" || (this.isLong && space.length <= longestMargin)
  }

  private mayBecomeMargin(space: string): boolean {
    return this.margin.startsWith(space) || (this.isLong && space.length <= longestMargin)
  }

  /** Returns the text to emit, once a repetition is confirmed or ruled out. */
  private decide(begun: string, isEnd: boolean): ReadonlyArray<A> {
    const rest = this.restOf(begun, isEnd)
    if (rest === undefined) return []
    this.begun = undefined
    const { delta, end, openBlock, start } = this
    const parts: Array<A> = []
    if (openBlock === undefined) {
      if (start !== undefined && (rest !== "" || end === undefined)) parts.push(start)
    } else this.continuedBlock = idOf(delta ?? start ?? end)
    if (delta !== undefined && rest !== "") parts.push(this.renamed({ ...delta, delta: rest }))
    if (end !== undefined && (openBlock !== undefined || rest !== "")) parts.push(this.renamed(end))
    return parts
  }

  private restOf(begun: string, isEnd: boolean): string | undefined {
    const { core, indent = begun.length, prefill, text } = this
    const isRepeated = core !== "" && this.isMargin(begun.slice(0, indent)) && begun.startsWith(core, indent)
    const own = isRepeated ? begun.slice(indent + core.length) : begun
    // The white space at the end was emitted and not sent. The target may repeat a part of it.
    const tail = text.slice(prefill.length)
    if (!isEnd && own.length < tail.length && tail.startsWith(own)) return undefined
    let common = 0
    while (common < tail.length && own[common] === tail[common]) common++
    return own.slice(common)
  }

  private renamed(part: A): A {
    const { continuedBlock, openBlock } = this
    if (openBlock === undefined || idOf(part) !== continuedBlock) return part
    if (part.type !== "text-delta" && part.type !== "text-end") return part
    if (part.type === "text-end") this.openBlock = undefined
    return { ...part, id: openBlock }
  }

  /** Ends the block of the partial answer if the new answer has not. */
  private close(): ReadonlyArray<A> {
    const { openBlock } = this
    this.openBlock = undefined
    return openBlock === undefined ? [] : [this.ended(openBlock)]
  }
}

/** Longer white space before a repetition is not ignored. */
const longestMargin = 16

const startsAlike = (left: string, right: string): boolean =>
  left.length < right.length ? right.startsWith(left) : left.startsWith(right)

/**
 * Whether a text has two different words. Anything shorter can also be the next word of the answer: `na` and ` na`. Characters
 * of scripts without spaces count as words.
 */
const hasTwoWords = (text: string): boolean => {
  let first: string | undefined
  for (const [word] of text.matchAll(/[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]|[\p{L}\p{N}]+/gu)) {
    first ??= word
    if (word !== first) return true
  }
  return false
}

const idOf = (part: AnyPart | undefined): string | undefined => typeof part?.id === "string" ? part.id : undefined

const deltaOf = ({ delta }: AnyPart): string => typeof delta === "string" ? delta : ""
