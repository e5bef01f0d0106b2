import type * as Schema from "effect/Schema"
import type * as Headers from "./headers.ts"

/** The configuration of a request that every provider has. */
export interface RequestConfig {
  readonly model?: string | undefined
  readonly system?: string | undefined
  readonly temperature?: number | undefined
  readonly maxTokens?: number | undefined
  readonly body?: { readonly [field: string]: Schema.Json } | undefined
  /** More headers, added to those of the model. The rules of `Options.headers` apply. */
  readonly headers?: Headers.Custom | undefined
  /**
   * Sent as `Idempotency-Key`. Some providers answer a repeated request from their cache then.
   *
   * Default: `CurrentIdempotencyKey`, and without one none is sent. Two prompts under one key would share an answer.
   */
  readonly idempotencyKey?: string | undefined
}

/** Merges two configurations by field, and by entry within `body` and `headers`. The inner one wins. */
export const merge = <C extends RequestConfig>(outer: C, inner: C): C => {
  const merged = { ...outer }
  for (const name of Object.keys(inner) as Array<keyof C>) { // An object's own keys are keys of its type.
    if (inner[name] !== undefined) merged[name] = inner[name]
  }
  const body = outer.body === undefined ? inner.body : { ...outer.body, ...inner.body }
  const headers = outer.headers === undefined ? inner.headers : { ...outer.headers, ...inner.headers }
  return { ...merged, ...(body === undefined ? {} : { body }), ...(headers === undefined ? {} : { headers }) }
}
