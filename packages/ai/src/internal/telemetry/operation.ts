import type * as Prompt from "effect/ai/Prompt"
import type * as Tool from "effect/ai/Tool"

/** Where a model is called, as metrics show it. Taken from options and never from a request, so its values are few. */
export interface Place {
  /** As the conventions spell it: `openai`, `anthropic`, `aws.bedrock`. */
  readonly provider: string
  readonly model: string
  readonly server?: { readonly address: string; readonly port?: number | undefined } | undefined
  /** The program's name for it, for spans. Metrics bound the response models of each target. */
  readonly target: string
}

export interface Operation {
  readonly name: "chat" | "embeddings"
  readonly place: Place
  /** Counts the attempts of a call from 1. */
  readonly attempt: number
  readonly streams: boolean
  readonly output?: "text" | "json" | undefined
  /** Called only if content is switched on. */
  readonly content?: (() => RequestContent) | undefined
}

export interface RequestContent {
  readonly prompt: Prompt.RawInput
  readonly tools?: ReadonlyArray<Tool.Any> | undefined
}

/** What is known of an answer, complete or not. */
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
