import type * as Schema from "effect/Schema"
import type * as Headers from "./headers.ts"

/** What every provider's configuration of a request has. */
export interface RequestConfig {
  readonly model?: string | undefined
  readonly system?: string | undefined
  readonly temperature?: number | undefined
  readonly maxTokens?: number | undefined
  readonly body?: { readonly [field: string]: Schema.Json } | undefined
  readonly headers?: Headers.Custom | undefined
  readonly idempotencyKey?: string | undefined
}

/** The inner configuration on top of the outer one: field by field, and within `body` and `headers` too. */
export const merge = <C extends RequestConfig>(outer: C, inner: C): C => {
  const merged = { ...outer }
  for (const name of Object.keys(inner) as Array<keyof C>) { // An object's own keys are keys of its type.
    if (inner[name] !== undefined) merged[name] = inner[name]
  }
  const body = outer.body === undefined ? inner.body : { ...outer.body, ...inner.body }
  const headers = outer.headers === undefined ? inner.headers : { ...outer.headers, ...inner.headers }
  return { ...merged, ...(body === undefined ? {} : { body }), ...(headers === undefined ? {} : { headers }) }
}
