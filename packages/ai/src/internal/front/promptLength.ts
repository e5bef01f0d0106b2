import * as BoundedJson from "@sluice/core/BoundedJson"
import * as Result from "effect/Result"
import { bytes, type Measure } from "../resilient/promptSize.ts"
import { isObject } from "../wire/json.ts"

/** An image or a page takes about 1,500 tokens, which are 6,000 characters. */
const charactersOfFile = 6_000

/** A shorter text is taken for a text, whatever it is. */
const leastFile = 2 * charactersOfFile

// Without `{64,}`, which overflows the stack for megabytes.
const base64 = /^(?:data:[^,]{0,200},)?[A-Za-z0-9+/_-]{64}/

/**
 * About how long the prompt of a request is. All texts count, also those of tools and schemas. A file within the request counts as
 * the text that takes as many tokens.
 */
export class PromptLength {
  private readonly size: number
  private body: Uint8Array | undefined
  private prompt: unknown

  constructor(body: Uint8Array) {
    this.size = body.length
    this.body = body
  }

  readonly of = (measure: Measure): number => {
    // Parsed only for a quota, or for a provider that reports no usage.
    if (this.prompt === undefined && this.body !== undefined) this.prompt = parse(this.body)
    return this.prompt === undefined ? this.size : lengthOf(this.prompt, measure)
  }

  /** Forgets the request, which can be large, while its answer streams. From now on its size counts. */
  release(): void {
    this.body = this.prompt = undefined
  }
}

/** So deep a text is nested in no request. */
const maxDepth = 128

const parse = (body: Uint8Array): unknown => {
  const parsed = BoundedJson.parse(new TextDecoder().decode(body), maxDepth)
  return Result.isSuccess(parsed) ? parsed.success : undefined
}

const lengthOf = (value: unknown, measure: Measure): number => {
  if (typeof value === "string") return isFile(value) && measure !== bytes ? charactersOfFile : measure(value)
  if (typeof value === "number" || typeof value === "boolean") return measure(String(value))
  let length = 0
  if (Array.isArray(value)) { for (const element of value) length += lengthOf(element, measure) }
  else if (isObject(value)) {
    for (const key in value) length += measure(key) + lengthOf(value[key], measure)
  }
  return length
}

const isFile = (text: string): boolean => text.length >= leastFile && base64.test(text)
