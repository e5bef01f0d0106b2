import * as Stream from "effect/Stream"
import type { AnyPart } from "./parts.ts"
import { isOutput } from "./parts.ts"

/** The part of an answer that was handed on. */
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
   * The text to send as the beginning of the answer. Providers refuse one that ends with white space, and half of a surrogate
   * pair is no text.
   */
  get prefill(): string {
    const { text } = this
    let length = text.length
    while (length > 0 && /[\s\uD800-\uDBFF]/.test(text[length - 1] ?? "")) length--
    return text.slice(0, length)
  }
}

/**
 * What of a new attempt follows the partial answer. A target that repeats the beginning has it cut. An open text block
 * continues under its own id. Nothing is handed on before it is known whether the beginning is repeated, so a failure until then
 * is retried.
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

class Following<A extends AnyPart> {
  private readonly text: string
  private readonly prefill: string
  private readonly ended: (id: string) => A
  /** The block of the partial answer, until it ends. */
  private openBlock: string | undefined
  /** The text of the new answer so far, while it is not known whether it repeats the beginning. `undefined`: it is known. */
  private begun: string | undefined = ""
  /** Whether all of it is a repetition so far. */
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
    // Each text is compared once, however long the beginning is.
    this.repeats &&= this.prefill.startsWith(text, begun.length)
    this.begun = begun + text
    return this.repeats && this.begun.length < this.prefill.length ? [] : this.decide(this.begun, false)
  }

  /** The text that follows, once it is known whether the beginning is repeated. */
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
    const { prefill, text } = this
    const isShort = (wanted: string, got: string) => !isEnd && got.length < wanted.length && wanted.startsWith(got)
    if (isShort(prefill, begun)) return undefined
    const own = begun.startsWith(prefill) ? begun.slice(prefill.length) : begun
    // Of the white space that was handed on and not sent, the target may send a part again.
    const tail = text.slice(prefill.length)
    if (isShort(tail, own)) return undefined
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

const idOf = (part: AnyPart | undefined): string | undefined => typeof part?.id === "string" ? part.id : undefined

const deltaOf = ({ delta }: AnyPart): string => typeof delta === "string" ? delta : ""
