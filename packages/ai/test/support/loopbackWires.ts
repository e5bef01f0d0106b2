/** Requests to a loopback provider over both wires, written by hand, for the tests of what the provider sends. */
import { assert } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import type * as Turn from "@sluice/ai/testing/Turn"
import type { Provider } from "./provider.ts"

type Headers = Record<string, string>

/** The response that a client got, as far as it arrived. */
export interface HttpResult {
  readonly status: number | undefined
  readonly headers: Headers
  readonly body: string
  /** Whether the connection broke or the client gave up. */
  readonly broke: boolean
}

const tickMillis = 10

/** Gives up after so much time in which the process ran: a machine that stands still costs one tick, after which bytes are read. */
export const post = (url: string, headers: Headers, body: object, timeoutMillis = 50_000) =>
  Effect.promise(async (): Promise<HttpResult> => {
    const leaving = new AbortController()
    let ticks = timeoutMillis / tickMillis
    const timer = setInterval(() => {
      if (--ticks <= 0) leaving.abort()
    }, tickMillis)
    const result: { -readonly [K in keyof HttpResult]: HttpResult[K] } = {
      status: undefined,
      headers: {},
      body: "",
      broke: false
    }
    try {
      const response = await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify(body),
        redirect: "manual",
        signal: leaving.signal
      })
      result.status = response.status
      result.headers = Object.fromEntries(response.headers)
      const decoder = new TextDecoder()
      for await (const chunk of response.body ?? []) result.body += decoder.decode(chunk, { stream: true })
    } catch {
      result.broke = true
    }
    clearInterval(timer)
    return result
  })

export const key = ({ apiKey }: Provider) => apiKey === undefined ? "none" : Redacted.value(apiKey)

/** One of the two wires, with requests that are written by hand. */
export interface LoopbackWire {
  readonly name: "openai" | "anthropic"
  readonly send: (
    provider: Provider,
    stream: boolean,
    more?: object,
    headers?: Headers,
    timeoutMillis?: number
  ) => Effect.Effect<HttpResult>
  /** The readable text of an answer and its finish reason. */
  readonly whole: (body: string) => readonly [text: string, finish: string | null]
  readonly streamed: (body: string) => readonly [text: string, finish: string | null | undefined]
  readonly finish: { readonly stop: string; readonly tools: string }
  readonly last: string
  /** The type and the message of an error. */
  readonly error: (body: string) => readonly [type: string, message: string]
}

export const messages = [{ role: "user", content: "hi" }]

export interface Fragment {
  readonly index: number
  readonly function: { readonly name?: string; readonly arguments: string }
}

/** The fields that an event of either wire may have. */
export interface Event {
  readonly type?: string
  readonly choices?: ReadonlyArray<{
    readonly delta: { readonly content?: string; readonly tool_calls?: ReadonlyArray<Fragment> }
    readonly finish_reason: string | null
  }>
  readonly delta?: { readonly text?: string; readonly partial_json?: string; readonly stop_reason?: string | null }
}

export const events = (body: string): ReadonlyArray<Event> =>
  body.split("\n\n").flatMap((event) => {
    const data = event.split("\n").find((line) => line.startsWith("data: "))?.slice(6)
    if (data === undefined || data === "[DONE]") return []
    try {
      return [JSON.parse(data)]
    } catch {
      return []
    }
  })

export const openai: LoopbackWire = {
  name: "openai",
  send: (provider, stream, more, headers, timeoutMillis) =>
    post(`${provider.url}/chat/completions`, { authorization: `Bearer ${key(provider)}`, ...headers }, {
      model: "m1",
      messages,
      stream,
      stream_options: stream ? { include_usage: true } : undefined,
      ...more
    }, timeoutMillis),
  whole: (body) => {
    const [choice] = JSON.parse(body).choices
    return [choice.message.content, choice.finish_reason]
  },
  streamed: (body) => [
    events(body).map(({ choices }) => choices?.[0]?.delta?.content ?? "").join(""),
    events(body).map(({ choices }) => choices?.[0]?.finish_reason).findLast((reason) => reason)
  ],
  finish: { stop: "stop", tools: "tool_calls" },
  last: "data: [DONE]",
  error: (body) => {
    const { error } = JSON.parse(body)
    assert.hasAllKeys(error, ["message", "type", "param", "code"])
    return [error.type, error.message]
  }
}

export const anthropic: LoopbackWire = {
  name: "anthropic",
  send: (provider, stream, more, headers, timeoutMillis) =>
    post(
      `${provider.origin}/v1/messages`,
      {
        "x-api-key": key(provider),
        "anthropic-version": "2023-06-01",
        ...headers
      },
      { model: "m1", max_tokens: 100, messages, stream, ...more },
      timeoutMillis
    ),
  whole: (body) => {
    const { content, stop_reason } = JSON.parse(body)
    return [content.map(({ text }: { text?: string }) => text ?? "").join(""), stop_reason]
  },
  streamed: (body) => [
    events(body).map(({ delta }) => delta?.text ?? "").join(""),
    events(body).map(({ delta }) => delta?.stop_reason).findLast((reason) => reason)
  ],
  finish: { stop: "end_turn", tools: "tool_use" },
  last: "event: message_stop",
  error: (body) => {
    const { error, type } = JSON.parse(body)
    assert.strictEqual(type, "error")
    assert.hasAllKeys(error, ["type", "message"])
    return [error.type, error.message]
  }
}

/** A provider whose answerer says "a b c d". */
export const makeProvider = (turns: Turn.Turns, options?: LoopbackProvider.Options) =>
  LoopbackProvider.make({ turns, answer: () => Effect.succeed({ text: "a b c d" }), ...options })

export const lastEntry = (provider: Provider) => Effect.map(provider.journal, (entries) => entries.at(-1)!)

export const loopbackWires: ReadonlyArray<LoopbackWire> = [openai, anthropic]

/** A client timeout in milliseconds that ends a silent response: ten times what the output before it needs. */
export const shortTimeout = 600
