/** Sends the tickets with the official client at its defaults, in batches, as a quick script would. */
import OpenAI from "openai"
import { concurrency } from "./badDay.ts"
import type { Outcome } from "./Comparison.ts"
import type { Ticket } from "./tickets.ts"

export const run = async (
  provider: { readonly url: string; readonly key: string },
  tickets: ReadonlyArray<Ticket>,
  onDone: () => void
): Promise<ReadonlyArray<Outcome>> => {
  const client = new OpenAI({ baseURL: provider.url, apiKey: provider.key })
  const send = async ({ prompt }: Ticket): Promise<Outcome> => {
    try {
      const stream = await client.chat.completions.create({
        model: "rules",
        messages: [{ role: "user", content: prompt }],
        stream: true,
        stream_options: { include_usage: true }
      })
      let text = ""
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ""
      return { prompt, text }
    } catch {
      return { prompt, text: undefined }
    } finally {
      onDone()
    }
  }
  const outcomes: Array<Outcome> = []
  for (let i = 0; i < tickets.length; i += concurrency) {
    outcomes.push(...await Promise.all(tickets.slice(i, i + concurrency).map(send)))
  }
  return outcomes
}
