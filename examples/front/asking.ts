import type { AddressInfo, Server } from "node:net"
import OpenAI from "openai"

/** A key of these servers, as each client gets one. */
export const apiKey = "a-key-of-yours"

export const isAllowed = (authorization: string | null | undefined): boolean => authorization === `Bearer ${apiKey}`

/** Asks a server twice, for a whole answer and a stream. */
export const askTwice = async (
  options: { readonly baseURL: string; readonly fetch?: typeof fetch }
): Promise<string> => {
  const client = new OpenAI({ apiKey, maxRetries: 0, ...options })
  const request = { model: "gpt-5-mini", messages: [{ role: "user" as const, content: "Where are you?" }] }
  const { choices } = await client.chat.completions.create(request)
  let text = `${choices[0]?.message.content}, `
  for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
    text += chunk.choices[0]?.delta.content ?? ""
  }
  return text
}

/** The base URL of a server that listens on a port of its own. */
export const baseOf = async (server: Pick<Server, "address" | "listening" | "once">): Promise<string> => {
  if (!server.listening) await new Promise<void>((resolve) => server.once("listening", resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
}
