import { Effect } from "effect"
import OpenAI, { toFile } from "openai"
import type { Gateway } from "./gateway.ts"

/** OpenAI's own client. */
export const clientOf = (gateway: Pick<Gateway, "token" | "url">, apiKey = gateway.token) =>
  new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey, maxRetries: 0 })

/** A line of an input file, with the prompt `Say N`. */
export const line = (n: number, fields: object = {}) =>
  JSON.stringify({
    custom_id: `c${n}`,
    method: "POST",
    url: "/v1/chat/completions",
    body: { model: "m", messages: [{ role: "user", content: `Say ${n}` }], ...fields }
  })

export const upload = (client: OpenAI, lines: ReadonlyArray<string>) =>
  Effect.promise(async () =>
    client.files.create({ file: await toFile(Buffer.from(lines.join("\n")), "in.jsonl"), purpose: "batch" })
  )

/** Starts a batch of these prompts, and returns its id. */
export const batchOf = (gateway: Gateway, prompts: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const client = clientOf(gateway)
    const file = yield* upload(
      client,
      prompts.map((content, n) => line(n, { messages: [{ role: "user", content }] }))
    )
    const { id } = yield* Effect.promise(() =>
      client.batches.create({ input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" })
    )
    return id
  })
