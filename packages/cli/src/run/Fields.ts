/** The request fields of a line: sent unchanged, or refused by name. */
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as Nearest from "../Nearest.ts"

export type Fields = { readonly [field: string]: Schema.Json }

/** Where a line has its fields: in the `body` of a batch line, or beside `prompt` or `messages`. */
export type Place = "body" | "line"

interface Check {
  readonly isValid: (value: Schema.Json) => boolean
  readonly requirement: string
}

const number = (minimum: number, maximum: number): Check => ({
  isValid: (value) => typeof value === "number" && value >= minimum && value <= maximum,
  requirement: `a number from ${minimum} to ${maximum}`
})

const any: Check = { isValid: () => true, requirement: "" }

const tokens: Check = {
  isValid: (value) => Number.isSafeInteger(value) && Number(value) > 0,
  requirement: "a whole number from 1"
}

const isText = (value: Schema.Json): boolean => typeof value === "string"

/** Sent unchanged, under their own name. The provider makes all checks that are not made here. */
const sent: ReadonlyMap<string, Check> = new Map([
  ["temperature", number(0, 2)],
  ["max_tokens", tokens],
  ["max_completion_tokens", tokens],
  ["top_p", number(0, 1)],
  ["seed", { isValid: (value) => Number.isSafeInteger(value), requirement: "a whole number" }],
  ["stop", {
    isValid: (value) => isText(value) || (Array.isArray(value) && value.every(isText)),
    requirement: "a text or a list of texts"
  }],
  ["response_format", {
    isValid: (value) => typeof value === "object" && value !== null && "type" in value,
    requirement: `an object with a "type"`
  }],
  ["top_k", any],
  ["min_p", any],
  ["presence_penalty", any],
  ["frequency_penalty", any],
  ["repetition_penalty", any],
  ["logit_bias", any],
  ["reasoning_effort", any],
  ["verbosity", any],
  ["service_tier", any],
  ["prompt_cache_key", any],
  ["safety_identifier", any],
  ["chat_template_kwargs", any]
])

/** Sent from the body of a batch line. Beside a prompt these names are columns of the user's own. */
const sentFromBody = new Set(["user", "store", "metadata", "thinking", "reasoning"])

/** Set by the run. They do not change the answer. */
const ofTheRun = new Set(["stream", "stream_options"])

/** Values that change nothing, of fields that are refused otherwise. */
const withoutEffect = new Map<string, Schema.Json>([["n", 1], ["logprobs", false]])

const textOnly = ", since a result has one text"

/** Request fields that are refused in every form, and why. */
const refused = new Map<string, string>([
  ["tools", textOnly],
  ["tool_choice", textOnly],
  ["parallel_tool_calls", textOnly],
  ["functions", textOnly],
  ["function_call", textOnly],
  ["n", textOnly],
  ["logprobs", textOnly],
  ["top_logprobs", textOnly],
  ["modalities", textOnly]
])

/** Fields that other modules read. */
const ofTheLine: { readonly [_ in Place]: ReadonlySet<string> } = {
  body: new Set(["messages", "model"]),
  line: new Set(["messages", "prompt", "system", "model", "id", "custom_id"])
}

/**
 * Returns the fields to send. Fails for a request field that cannot be sent, since the answer without it would not be the one
 * requested. A line may have other columns, whose names are not those of request fields. `null` is the provider's default.
 */
export const read = (fields: Fields, place: Place): Result.Result<Fields | undefined, string> => {
  let found: Array<readonly [name: string, value: Schema.Json]> | undefined
  for (const name of Object.keys(fields)) {
    const value = fields[name] ?? null
    if (ofTheLine[place].has(name) || ofTheRun.has(name) || (value === null && isField(name))) continue
    const check = sent.get(name)
    if (check !== undefined && !check.isValid(value)) {
      return Result.fail(`${shown(name, place)} must be ${check.requirement}`)
    }
    if (check !== undefined || (place === "body" && sentFromBody.has(name))) (found ??= []).push([name, value])
    else if (withoutEffect.get(name) !== value) {
      const problem = problemOf(name, place)
      if (problem !== undefined) return Result.fail(problem)
    }
  }
  return found === undefined ? none : Result.succeed(Object.fromEntries(found))
}

const none: Result.Result<undefined, string> = Result.succeed(undefined)

/** Returns the name of the first request field beside the `body` of a batch line, where it would be lost. */
export const misplaced = (line: { readonly [field: string]: unknown }): string | undefined => {
  const name = Object.keys(line).find((name) => isField(name) || name === "messages" || name === "model")
  return name === undefined ? undefined : `${name} must be in body, beside the messages`
}

const isField = (name: string): boolean => sent.has(name) || refused.has(name)

const shown = (name: string, place: Place): string => `${place === "body" ? "body." : ""}${name.slice(0, 40)}`

const problemOf = (name: string, place: Place): string | undefined => {
  const why = refused.get(name)
  if (why !== undefined) return `${shown(name, place)} is not supported${why}`
  const meant = misspelt(name)
  if (place === "line" && meant === undefined) return undefined
  return `${shown(name, place)} is not supported${meant === undefined ? "" : `; did you mean ${meant}?`}`
}

const plain = (name: string): string => name.toLowerCase().replaceAll(/[^a-z0-9]/g, "")

const fieldsByPlainName = new Map(
  ["model", "messages", ...sent.keys(), ...refused.keys()].map((name) => [plain(name), name])
)

/** Shorter names are too often ordinary words. */
const minMisspelt = 8

/** The request field that a name was meant to be: `maxTokens`, `temprature`. */
const misspelt = (name: string): string | undefined => {
  const own = plain(name)
  const same = fieldsByPlainName.get(own)
  if (same !== undefined) return same
  if (own.length < minMisspelt) return undefined
  const close = [...fieldsByPlainName].find(([candidate]) => Nearest.distance(own, candidate) <= 1)
  return close?.[1]
}
