import type * as Schema from "effect/Schema"
import * as Echo from "../echo.ts"
import * as Json from "../json.ts"
import * as Content from "./content.ts"

interface Detail {
  readonly [name: string]: Schema.Json
}

/** Collects the fields of the thoughts before a tool call that the provider requires in the next request. */
export class Thoughts {
  private readonly host: string
  private field: string | undefined
  private details: Array<Detail> = []

  constructor(host: string) {
    this.host = host
  }

  /** Reads a message or the next piece of one. Returns the text of its thought. */
  read(message: Json.JsonObject): string {
    const thought = Content.thoughtIn(message)
    const details = message["reasoning_details"]
    if (Array.isArray(details)) {
      for (const detail of details) if (Json.isObject(detail)) this.addDetail(detail)
    }
    if (thought !== undefined) {
      this.field = thought.field
      return thought.text
    }
    return Array.isArray(details) ? Content.textIn(details) : ""
  }

  /** The length of the text that is kept besides the thought itself. */
  static sizeOf(message: Json.JsonObject): number {
    const details = message["reasoning_details"]
    return Array.isArray(details) ? JSON.stringify(details).length : 0
  }

  get hasDetails(): boolean {
    return this.details.length > 0
  }

  /** The metadata of the thought so far. The next one begins anew. */
  take(): ReturnType<typeof Echo.metadata> | undefined {
    const { details, field } = this
    this.details = []
    this.field = undefined
    if (field === undefined && details.length === 0) return undefined
    return Echo.metadata(this.host, {
      ...(field === undefined ? {} : { field }),
      ...(details.length === 0 ? {} : { details })
    })
  }

  // Joins the pieces of a stream, so that the detail is sent back in the form of a whole answer.
  private addDetail(sent: Json.JsonObject): void {
    // It comes out of parsed JSON.
    const detail = sent as Detail
    const last = this.details.at(-1)
    if (last === undefined || last["type"] !== detail["type"] || last["index"] !== detail["index"]) {
      this.details.push(detail)
      return
    }
    const merged: { [name: string]: Schema.Json } = { ...last }
    for (const name in detail) {
      const value = detail[name]
      if (value === undefined || value === null) continue
      const before = merged[name]
      const isPiece = typeof value === "string" && typeof before === "string" && pieceFields.has(name)
      merged[name] = isPiece ? before + value : value
    }
    this.details[this.details.length - 1] = merged
  }
}

const pieceFields = new Set(["text", "summary", "data"])

/** The fields that the thought of a prompt sends back to this host. */
export const echoOf = (
  text: string,
  options: { readonly [key: string]: unknown },
  host: string
): { readonly field?: string; readonly text: string; readonly details: ReadonlyArray<unknown> } | undefined => {
  const fields = Echo.fieldsFor(options, host)
  if (fields === undefined) return undefined
  const { details, field } = fields
  return {
    ...(Content.isThoughtField(field) ? { field } : {}),
    text,
    details: Array.isArray(details) ? details : []
  }
}
