import * as Json from "./json.ts"
import type * as Schema from "effect/Schema"

// Fields that a provider sends with an answer and requires in the next request: thoughts, and signatures of tool calls. The
// metadata of the part keeps them, with the provider's host. They are sent back to that host only, because other providers
// refuse a request with fields that they do not know.

interface Fields {
  readonly [name: string]: Schema.Json
}

/** The metadata of a part. */
export const metadata = (host: string, fields: Fields) => ({ sluice: { host, fields } })

/** The fields that a part of the prompt sends back to this host. */
export const fieldsFor = (options: { readonly [key: string]: unknown }, host: string): Json.JsonObject | undefined => {
  const kept = Json.object(options["sluice"])
  return kept?.["host"] === host ? Json.object(kept["fields"]) : undefined
}
