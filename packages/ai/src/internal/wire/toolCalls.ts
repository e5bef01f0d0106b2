import * as BoundedJson from "@sluice/core/BoundedJson"
import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as Echo from "./echo.ts"
import * as Failure from "./failure.ts"
import * as Json from "./json.ts"

/** A piece of a tool call, or a whole one. No field is an empty string. */
export interface ToolCallFragment {
  readonly index?: number | undefined
  readonly id?: string | undefined
  readonly name?: string | undefined
  readonly arguments?: string | undefined
  /** More fields of the provider, which it wants back with the call. */
  readonly extra?: { readonly [name: string]: Schema.Json } | undefined
  /** Whether the wire says that another call begins here. */
  readonly isStart?: boolean | undefined
}

/**
 * Assembles tool calls.
 *
 * The pieces of a stream belong together by `index`, by `id` and by what they say. No rule alone is enough. Servers leave
 * the index out, give all calls the index 0, send another id with every piece, none at all, or the same call twice. So a
 * piece begins another call if it has another name, or if the arguments before it are a whole JSON object.
 */
export class ToolCalls {
  private readonly calls: Array<Call> = []
  private readonly byIndex = new Map<number, Call>()
  private readonly byId = new Map<string, Call>()
  private readonly newId: string
  private generated = 0

  /** `newId`: the prefix of ids for calls that have none. */
  constructor(newId: string) {
    this.newId = newId
  }

  /** Whether a part of a call was emitted. */
  get hasStarted(): boolean {
    return this.calls.some(({ started }) => started)
  }

  /** Adds a call of a whole answer. It is never a piece of another one, even with the same id. */
  addWhole(call: ToolCallFragment): void {
    this.begin(call, undefined).add(call)
  }

  /** Adds a piece of a stream, and pushes its new parts to `parts`. */
  add(fragment: ToolCallFragment, parts: Array<Response.StreamPartEncoded>): void {
    const call = this.callOf(fragment)
    if (call === undefined) return
    call.add(fragment)
    if (call.name === "" || call.original !== undefined) return
    const delta = call.started ? fragment.arguments ?? "" : call.arguments
    if (!call.started) {
      call.started = true
      parts.push({ type: "tool-params-start", id: call.id, name: call.name })
    }
    if (delta !== "") parts.push({ type: "tool-params-delta", id: call.id, delta })
  }

  /**
   * Returns the calls as parts. If the model was cut off (`incomplete`), the arguments may be too: such a call is left
   * out, and the finish reason says why. Otherwise broken arguments are a failure.
   */
  finish(origin: Failure.Origin, incomplete: boolean, maxDepth: number): Result.Result<Finished, AiError.AiError> {
    const parts: Array<Response.StreamPartEncoded> = []
    const whole: Array<Response.ToolCallPartEncoded> = []
    for (const call of this.calls) call.repair()
    for (const call of this.calls) {
      if (call.isRepetition) continue
      if (call.name === "") {
        if (incomplete) continue
        return Result.fail(Failure.badArguments(origin, "", "the call has no name"))
      }
      if (call.original !== undefined) {
        parts.push({ type: "tool-params-start", id: call.id, name: call.name })
        parts.push({ type: "tool-params-delta", id: call.id, delta: call.arguments })
      }
      parts.push({ type: "tool-params-end", id: call.id })
      const params = call.params(maxDepth)
      if (Result.isFailure(params)) {
        if (incomplete) continue
        const why = params.failure === "TooDeep" ? `arguments nested deeper than ${maxDepth}` : "arguments are not JSON"
        return Result.fail(Failure.badArguments(origin, call.name, why))
      }
      const part: Response.ToolCallPartEncoded = {
        type: "tool-call",
        id: call.id,
        name: call.name,
        params: params.success,
        ...(call.extra === undefined ? {} : { metadata: Echo.metadata(origin.provider, call.extra) })
      }
      parts.push(part)
      whole.push(part)
    }
    return Result.succeed({ parts, whole })
  }

  /** The call that a piece belongs to. `undefined`: it repeats what is known. */
  private callOf(fragment: ToolCallFragment): Call | undefined {
    const { id, index, isStart, name } = fragment
    const withId = id === undefined ? undefined : this.byId.get(id)
    if (isStart === true) return this.begin(fragment, withId)
    const atIndex = index === undefined ? this.calls.at(-1) : this.byIndex.get(index)
    if (atIndex === undefined && withId !== undefined) return this.again(fragment, withId)
    const known = withId === undefined || atIndex?.sentId === id ? atIndex : withId
    if (known === undefined) return this.begin(fragment, undefined)
    const hasOtherId = id !== undefined && known.sentId !== undefined && id !== known.sentId
    const hasOtherName = name !== undefined && known.name !== "" && name !== known.name
    if (hasOtherName) return this.begin(fragment, undefined)
    if (known.isClosed) {
      if (hasOtherId) return this.begin(fragment, undefined)
      const more = fragment.arguments?.trim() ?? ""
      if (more === "") return known
      return more === known.arguments.trim() ? undefined : this.begin(fragment, known)
    }
    // An id that changes within the arguments is made up for every piece.
    if (hasOtherId && name !== undefined && known.arguments === "") return this.begin(fragment, undefined)
    if (id !== undefined && known.sentId === undefined) {
      known.sentId = id
      this.byId.set(id, known)
    }
    return known
  }

  /** A known id at a new index: the same call once more, or the rest of it. */
  private again(fragment: ToolCallFragment, known: Call): Call {
    const restarts = known.arguments !== "" && fragment.arguments?.trimStart().startsWith("{") === true
    if (known.isClosed || restarts) return this.begin(fragment, known)
    if (fragment.index !== undefined) this.byIndex.set(fragment.index, known)
    return known
  }

  private begin({ id, index, name }: ToolCallFragment, original: Call | undefined): Call {
    const isNew = id !== undefined && !this.byId.has(id)
    const call = new Call(isNew ? id : `${this.newId}_${this.generated++}`, id, original)
    if (original !== undefined && name === undefined) call.name = original.name
    if (isNew) this.byId.set(id, call)
    this.calls.push(call)
    if (index !== undefined) this.byIndex.set(index, call)
    return call
  }
}

const quote = 0x22
const backslash = 0x5c
const openBrace = 0x7b
const closeBrace = 0x7d

class Call {
  readonly id: string
  /** The id that the provider sent. */
  sentId: string | undefined
  /** The call that this one may repeat. Nothing of this one is emitted before the end, when that is known. */
  readonly original: Call | undefined
  name = ""
  arguments = ""
  extra: { readonly [name: string]: Schema.Json } | undefined
  /** Whether its first part was emitted, which has its name. */
  started = false

  // Finds the end of the first JSON object in the arguments.
  private scanned = 0
  private depth = 0
  private inString = false
  private closedAt: number | undefined

  constructor(id: string, sentId: string | undefined, original: Call | undefined) {
    this.id = id
    this.sentId = sentId
    this.original = original
  }

  /** Whether the arguments have a whole JSON object. What follows it is not theirs. */
  get isClosed(): boolean {
    return this.closedAt !== undefined
  }

  get isRepetition(): boolean {
    const { original } = this
    if (original === undefined || this.name !== original.name) return false
    return this.arguments.trim() === "" || this.arguments.trim() === original.arguments.trim()
  }

  add(fragment: ToolCallFragment): void {
    // Set, not appended: a name is never split, and some servers repeat it with every fragment.
    if (this.name === "") this.name = fragment.name ?? ""
    if (fragment.extra !== undefined) this.extra = { ...this.extra, ...fragment.extra }
    if (fragment.arguments === undefined) return
    this.arguments += fragment.arguments
    if (this.closedAt === undefined) this.scan()
  }

  /** Gives the arguments to the original if it has only the beginning of them. */
  repair(): void {
    const { original } = this
    if (original !== undefined && original.name === this.name && !original.isClosed && this.isClosed) {
      original.arguments = this.arguments
      original.closedAt = this.closedAt
    }
  }

  params(maxDepth: number): Result.Result<unknown, "Malformed" | "TooDeep"> {
    const text = this.arguments.trim()
    if (text === "" || text === "null") return Result.succeed({})
    const read = BoundedJson.parse(this.once(text), maxDepth)
    if (Result.isFailure(read) || typeof read.success !== "string") return read
    // Encoded twice.
    const inner = BoundedJson.parse(read.success, maxDepth)
    return Result.isSuccess(inner) && Json.isObject(inner.success) ? inner : read
  }

  /** One object, if the text is the same object several times. */
  private once(text: string): string {
    if (this.closedAt === undefined) return text
    const first = this.arguments.slice(0, this.closedAt).trim()
    return first.length < text.length && first.repeat(Math.round(text.length / first.length)) === text ? first : text
  }

  private scan(): void {
    const text = this.arguments
    for (; this.scanned < text.length; this.scanned++) {
      const code = text.charCodeAt(this.scanned)
      if (this.inString) {
        if (code === backslash) this.scanned++
        else if (code === quote) this.inString = false
      } else if (code === quote) this.inString = true
      else if (code === openBrace) this.depth++
      else if (code === closeBrace && --this.depth <= 0) {
        this.closedAt = this.scanned + 1
        return
      }
    }
  }
}

export interface Finished {
  /** For a stream: with the end of each call's arguments. */
  readonly parts: ReadonlyArray<Response.StreamPartEncoded>
  /** For a whole response: the calls alone. */
  readonly whole: ReadonlyArray<Response.ToolCallPartEncoded>
}
