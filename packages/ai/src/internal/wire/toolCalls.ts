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
  /** More fields of the provider, which it requires back with the call. */
  readonly extra?: { readonly [name: string]: Schema.Json } | undefined
  /** Whether the wire says that another call begins here. */
  readonly isStart?: boolean | undefined
}

/**
 * Assembles tool calls.
 *
 * The pieces of a stream are matched by `index`, by `id` and by their content, since no rule alone is enough. Servers leave
 * the index out, give all calls the index 0, send another id with every piece, no id, or the same call twice. So a piece
 * begins another call if it has another name, or if the arguments before it are a whole JSON object.
 *
 * A handler must not run twice for one call. So a call with a known id, or at a known index without a name, is compared at the
 * end with the earlier call: see `Kinship`.
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
    this.emit(call, parts)
  }

  /** Adds a whole call of a message that repeats what its stream has sent. `position`: its place among the calls. */
  addAgain(fragment: ToolCallFragment, position: number, parts: Array<Response.StreamPartEncoded>): void {
    const known = (fragment.id === undefined ? undefined : this.byId.get(fragment.id)) ??
      this.calls.filter(({ original }) => original === undefined)[position]
    if (known === undefined || (fragment.name !== undefined && known.name !== "" && fragment.name !== known.name)) {
      return this.add(fragment, parts)
    }
    const call = this.begin({ ...fragment, index: undefined, id: undefined }, known, "same")
    call.add(fragment)
  }

  private emit(call: Call, parts: Array<Response.StreamPartEncoded>): void {
    if (call.name === "" || call.original !== undefined) return
    if (!call.started) {
      call.started = true
      parts.push({ type: "tool-params-start", id: call.id, name: call.name })
    }
    // An empty object can be a placeholder for the arguments that follow. It is emitted at the end.
    if (call.emitted === 0 && emptyObject.test(call.arguments)) return
    if (call.emitted < call.arguments.length) {
      parts.push({ type: "tool-params-delta", id: call.id, delta: call.arguments.slice(call.emitted) })
    }
    call.emitted = call.arguments.length
  }

  /**
   * Returns the calls as parts. If the model was cut off (`incomplete`), the arguments may be too: such a call is left
   * out, and the finish reason says why. Otherwise broken arguments are a failure.
   */
  finish(origin: Failure.Origin, incomplete: boolean, maxDepth: number): Result.Result<Finished, AiError.AiError> {
    const parts: Array<Response.StreamPartEncoded> = []
    const whole: Array<Response.ToolCallPartEncoded> = []
    for (const call of this.calls) call.compare(maxDepth)
    for (const call of this.calls) {
      if (call.isRepetition) continue
      if (call.name === "") {
        if (incomplete) continue
        return Result.fail(Failure.badArguments(origin, "", "the call has no name"))
      }
      if (call.original !== undefined) parts.push({ type: "tool-params-start", id: call.id, name: call.name })
      if (call.emitted === 0 && call.arguments !== "") {
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

  /** The call that a piece belongs to. `undefined`: the piece is a repetition. */
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
    // An id that changes within the arguments is new for every piece, and identifies no call.
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

  private begin(fragment: ToolCallFragment, before: Call | undefined, kinship = kinshipOf(fragment, before)): Call {
    const { id, index, name } = fragment
    const isNew = id !== undefined && !this.byId.has(id)
    const original = before?.original ?? before
    const call = new Call(isNew ? id : `${this.newId}_${this.generated++}`, id, index, original, kinship)
    if (original !== undefined && name === undefined) call.name = original.name
    if (isNew) this.byId.set(id, call)
    this.calls.push(call)
    if (index !== undefined) this.byIndex.set(index, call)
    return call
  }
}

/**
 * The relation of a call to an earlier one. `same`: it is the same call, and its arguments replace the earlier ones. `id`: it has
 * the same id, and is the same call if one has all arguments of the other. `none`: it is the same only if the arguments are equal.
 */
type Kinship = "same" | "id" | "none"

const kinshipOf = ({ id, index, name }: ToolCallFragment, before: Call | undefined): Kinship => {
  if (before === undefined) return "none"
  if (id === undefined && name === undefined) return "same"
  if (id === undefined || id !== before.sentId) return "none"
  return index === undefined || before.index === undefined || index === before.index ? "same" : "id"
}

const emptyObject = /^\s*\{\s*\}\s*$/

const quote = 0x22
const backslash = 0x5c
const openBrace = 0x7b
const closeBrace = 0x7d

class Call {
  readonly id: string
  /** The id that the provider sent. */
  sentId: string | undefined
  readonly index: number | undefined
  /** The call that this one may repeat. Nothing of this one is emitted before the end, when the comparison is made. */
  readonly original: Call | undefined
  private readonly kinship: Kinship
  /** Whether it repeats the original. Set at the end. */
  isRepetition = false
  name = ""
  arguments = ""
  extra: { readonly [name: string]: Schema.Json } | undefined
  /** Whether the first part, which has the name, was emitted. */
  started = false
  /** How many characters of the arguments were emitted. */
  emitted = 0

  // Finds the end of the first JSON object in the arguments.
  private scanned = 0
  private depth = 0
  private inString = false
  private closedAt: number | undefined

  constructor(
    id: string,
    sentId: string | undefined,
    index: number | undefined,
    original: Call | undefined,
    kinship: Kinship
  ) {
    this.id = id
    this.sentId = sentId
    this.index = index
    this.original = original
    this.kinship = kinship
  }

  /** Whether the arguments have a whole JSON object. Text after it is not part of the arguments. */
  get isClosed(): boolean {
    return this.closedAt !== undefined
  }

  add(fragment: ToolCallFragment): void {
    // Set, not appended: a name is never split, and some servers repeat it with every fragment.
    if (this.name === "") this.name = fragment.name ?? ""
    if (fragment.extra !== undefined) this.extra = { ...this.extra, ...fragment.extra }
    if (fragment.arguments === undefined) return
    this.arguments += fragment.arguments
    if (this.closedAt !== undefined) return
    this.scan()
    if (this.emitted === 0) this.dropPlaceholder()
  }

  /** Drops an empty object with another one right after it. */
  private dropPlaceholder(): void {
    const rest = this.arguments.slice(this.closedAt).trimStart()
    if (!rest.startsWith("{") || !emptyObject.test(this.arguments.slice(0, this.closedAt))) return
    this.arguments = rest
    this.closedAt = undefined
    this.scanned = 0
    this.depth = 0
    this.scan()
  }

  /** Decides whether this repeats the original. If so, the original takes these arguments if they are the more complete ones. */
  compare(maxDepth: number): void {
    const { kinship, original } = this
    if (original === undefined || original.name !== this.name) return
    const relation = this.relationTo(original, kinship, maxDepth)
    if (relation === "other") return
    this.isRepetition = true
    if (this.extra !== undefined) original.extra = { ...original.extra, ...this.extra }
    if (relation === "repeats") return
    original.arguments = this.arguments
    original.closedAt = this.closedAt
  }

  private relationTo(original: Call, kinship: Kinship, maxDepth: number): "repeats" | "replaces" | "other" {
    const text = this.arguments.trim()
    if (text === "" || text === original.arguments.trim()) return "repeats"
    if (!original.isClosed && this.isClosed) return "replaces"
    const before = original.params(maxDepth)
    const after = this.params(maxDepth)
    if (Result.isSuccess(before) && Result.isSuccess(after)) {
      const hasAll = Json.contains(after.success, before.success)
      if (Json.contains(before.success, after.success) && (hasAll || kinship !== "none")) return "repeats"
      if (hasAll && kinship !== "none") return "replaces"
    }
    return kinship === "same" ? "replaces" : "other"
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
