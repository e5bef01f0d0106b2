import type * as Json from "../../wire/json.ts"

// Models and lists of them in the forms of both wires.

/** A model of chat completions. `owner`: who serves it. */
export const chatModel = (id: string, owner: string): Json.JsonObject => ({
  id,
  object: "model",
  created: 0,
  owned_by: owner
})

export const chatModels = (ids: ReadonlyArray<string>, owner: string): Json.JsonObject => ({
  object: "list",
  data: ids.map((id) => chatModel(id, owner))
})

/** A model of messages. The time is the one that Anthropic documents for an unknown release. */
export const messagesModel = (id: string): Json.JsonObject => ({
  type: "model",
  id,
  display_name: id,
  created_at: "1970-01-01T00:00:00Z"
})

/** All models in one page. */
export const messagesModels = (ids: ReadonlyArray<string>): Json.JsonObject => ({
  data: ids.map(messagesModel),
  has_more: false,
  first_id: ids[0] ?? null,
  last_id: ids.at(-1) ?? null
})
