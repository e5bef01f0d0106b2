import type * as Prompt from "effect/ai/Prompt"
import type * as Tool from "effect/ai/Tool"

/** A place where models are called, as metrics know it: few, known beforehand, from options and never from a request. */
export interface Place {
  /** As the conventions spell it: `openai`, `anthropic`, `aws.bedrock`. */
  readonly provider: string
  readonly model: string
  readonly server?: { readonly address: string; readonly port?: number | undefined } | undefined
  /** What the program calls it. It bounds the answering models that are told apart, and stands on spans. */
  readonly target: string
}

/** One call of a model at one place. */
export interface Operation {
  readonly name: "chat" | "embeddings"
  readonly place: Place
  /** Counts the attempts of a call from 1. */
  readonly attempt: number
  readonly streams: boolean
  /** The form that the answer is asked for in. */
  readonly output?: "text" | "json" | undefined
  /** What is asked, read only where content is switched on. */
  readonly content?: (() => Asked) | undefined
}

export interface Asked {
  readonly prompt: Prompt.RawInput
  readonly tools?: ReadonlyArray<Tool.Any> | undefined
}

/** What is known of an answer, all of it or what came before it broke. */
export interface Answer {
  id?: string | undefined
  model?: string | undefined
  finishReason?: string | undefined
  inputTokens?: number | undefined
  outputTokens?: number | undefined
  cacheReadTokens?: number | undefined
  cacheCreationTokens?: number | undefined
  reasoningTokens?: number | undefined
}
