import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import * as Json from "./json.ts"
import type { ToolCall } from "./chunk.ts"
import * as Failure from "./failure.ts"

interface Call {
  readonly id: string
  name: string
  arguments: string
  /** Whether the consumer has been told of it, which needs its name. */
  started: boolean
}

/**
 * Puts tool calls together from their fragments.
 *
 * A fragment belongs to the call with its `index`. Some servers send whole calls and leave the index out, or give all of
 * them the index 0: an id that is not the call's own begins another call.
 */
export class ToolCalls {
  private readonly calls: Array<Call> = []
  private readonly byIndex = new Map<number, Call>()
  private readonly generateId: () => string

  constructor(generateId: () => string) {
    this.generateId = generateId
  }

  /** Whether there is a call that the consumer knows of. */
  get hasStarted(): boolean {
    return this.calls.some(({ started }) => started)
  }

  /** Takes a fragment in, and tells the consumer what is new. */
  add(fragment: ToolCall, parts: Array<Response.StreamPartEncoded>): void {
    const call = this.callOf(fragment)
    // Set, not appended: the name comes whole, and some servers repeat it with every fragment.
    if (fragment.function?.name) call.name = fragment.function.name
    const delta = fragment.function?.arguments ?? ""
    call.arguments += delta
    if (call.name === "") return
    if (!call.started) {
      call.started = true
      parts.push({ type: "tool-params-start", id: call.id, name: call.name })
      if (call.arguments !== "") parts.push({ type: "tool-params-delta", id: call.id, delta: call.arguments })
    } else if (delta !== "") {
      parts.push({ type: "tool-params-delta", id: call.id, delta })
    }
  }

  /**
   * The calls as parts. An answer that was cut off at its token limit may break off within the arguments: such a call is
   * left out, for the finish reason tells of it. Anywhere else it is a failure.
   */
  finish(origin: Failure.Origin, incomplete: boolean, maxDepth: number): Result.Result<Finished, AiError.AiError> {
    const parts: Array<Response.StreamPartEncoded> = []
    const whole: Array<Response.ToolCallPartEncoded> = []
    for (const call of this.calls) {
      if (!call.started) {
        if (incomplete) continue
        return Result.fail(Failure.badArguments(origin, "", "the call has no name"))
      }
      parts.push({ type: "tool-params-end", id: call.id })
      const params = Json.parse(call.arguments.trim() === "" ? "{}" : call.arguments, maxDepth)
      if (Result.isFailure(params)) {
        if (incomplete) continue
        const why = params.failure === "TooDeep" ? `arguments nested deeper than ${maxDepth}` : "arguments are no JSON"
        return Result.fail(Failure.badArguments(origin, call.name, why))
      }
      const part = { type: "tool-call", id: call.id, name: call.name, params: params.success } as const
      parts.push(part)
      whole.push(part)
    }
    return Result.succeed({ parts, whole })
  }

  private callOf(fragment: ToolCall): Call {
    const { id, index } = fragment
    const known = index === undefined || index === null ? this.calls.at(-1) : this.byIndex.get(index)
    const isAnother = id !== undefined && id !== null && id !== "" && id !== known?.id
    if (known !== undefined && !isAnother) return known
    const call: Call = { id: isAnother ? id : this.generateId(), name: "", arguments: "", started: false }
    this.calls.push(call)
    if (index !== undefined && index !== null) this.byIndex.set(index, call)
    return call
  }
}

export interface Finished {
  /** With the ends of the fragments, for a stream. */
  readonly parts: ReadonlyArray<Response.StreamPartEncoded>
  /** The calls alone, for a whole answer. */
  readonly whole: ReadonlyArray<Response.ToolCallPartEncoded>
}
