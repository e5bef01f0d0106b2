import * as BoundedJson from "@sluice/core/BoundedJson"
import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import * as Failure from "./failure.ts"

/** A piece of a tool call. */
export interface ToolCallFragment {
  readonly index?: number | null | undefined
  readonly id?: string | null | undefined
  readonly function?:
    | {
      readonly name?: string | null | undefined
      readonly arguments?: string | null | undefined
    }
    | null
    | undefined
}

interface Call {
  readonly id: string
  name: string
  arguments: string
  /** Whether its first part was emitted, which has its name. */
  started: boolean
}

/**
 * Assembles tool calls from their fragments.
 *
 * A fragment belongs to the call with its `index`. Some servers leave the index out, or give all calls the index 0. So
 * another id begins another call.
 */
export class ToolCalls {
  private readonly calls: Array<Call> = []
  private readonly byIndex = new Map<number, Call>()
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

  /** Adds a fragment, and pushes its new parts to `parts`. */
  add(fragment: ToolCallFragment, parts: Array<Response.StreamPartEncoded>): void {
    const call = this.callOf(fragment)
    // Set, not appended: a name is never split, and some servers repeat it with every fragment.
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
   * Returns the calls as parts. If the model was cut off (`incomplete`), the arguments may be too: such a call is left
   * out, and the finish reason says why. Otherwise broken arguments are a failure.
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
      const params = BoundedJson.parse(call.arguments.trim() === "" ? "{}" : call.arguments, maxDepth)
      if (Result.isFailure(params)) {
        if (incomplete) continue
        const why = params.failure === "TooDeep" ? `arguments nested deeper than ${maxDepth}` : "arguments are not JSON"
        return Result.fail(Failure.badArguments(origin, call.name, why))
      }
      const part = { type: "tool-call", id: call.id, name: call.name, params: params.success } as const
      parts.push(part)
      whole.push(part)
    }
    return Result.succeed({ parts, whole })
  }

  private callOf(fragment: ToolCallFragment): Call {
    const { id, index } = fragment
    const known = index === undefined || index === null ? this.calls.at(-1) : this.byIndex.get(index)
    const isAnother = id !== undefined && id !== null && id !== "" && id !== known?.id
    if (known !== undefined && !isAnother) return known
    const call: Call = {
      id: isAnother ? id : `${this.newId}_${this.generated++}`,
      name: "",
      arguments: "",
      started: false
    }
    this.calls.push(call)
    if (index !== undefined && index !== null) this.byIndex.set(index, call)
    return call
  }
}

export interface Finished {
  /** For a stream: with the end of each call's arguments. */
  readonly parts: ReadonlyArray<Response.StreamPartEncoded>
  /** For a whole response: the calls alone. */
  readonly whole: ReadonlyArray<Response.ToolCallPartEncoded>
}
