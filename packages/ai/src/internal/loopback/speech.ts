import type * as Turn from "../../testing/Turn.ts"
import { tokens } from "./conversation.ts"

/** How fast an answer is sent, with all defaults. */
export interface Pace {
  readonly firstTokenMillis: number
  readonly tokenMillis: number
  readonly tokensPerChunk: number
}

/** A piece of an answer. A tool call has its parameters as JSON text, as it is sent. */
export type Block =
  | { readonly type: "text" | "reasoning"; readonly text: string }
  | { readonly type: "tool-call"; readonly id: string; readonly name: string; readonly text: string }

export interface Counts {
  readonly input: number
  readonly output: number
}

/** A turn with an answer, complete or broken. */
export type AnswerTurn = Exclude<Turn.Turn, { readonly _tag: "Status" | "Refusal" | "Hang" }>

/** The planned answer of a turn. A broken turn sends a part of it. */
export interface Speech {
  readonly blocks: ReadonlyArray<Block>
  readonly pace: Pace
  readonly finish: Turn.Finish
  /** In tokens. */
  readonly length: number
  readonly billed: Counts
  /** `undefined`: the answer reports no usage. */
  readonly reported: Counts | undefined
}

/** One step of a streamed answer. */
export type Step =
  | { readonly _tag: "Pause"; readonly millis: number }
  /** Some tokens of a block. `upTo`: how many tokens were sent with them. */
  | { readonly _tag: "Piece"; readonly block: number; readonly text: string; readonly upTo: number }
  | { readonly _tag: "Malformed"; readonly text: string }
  | { readonly _tag: "Error"; readonly turn: Extract<Turn.Turn, { readonly _tag: "Error" }> }
  /** Until the client closes the connection. */
  | { readonly _tag: "Silence"; readonly pingMillis: number | undefined }
  /** A keep-alive in a silence that ends. */
  | { readonly _tag: "Ping" }
  | { readonly _tag: "Cut" }
  | { readonly _tag: "Reset" }
  | { readonly _tag: "End"; readonly done: boolean }

/** Plans the answer of a turn. `defaultText`: the text of a turn without content. */
export const fromTurn = (
  turn: AnswerTurn,
  defaultText: string,
  inputTokens: number,
  pace: Pace,
  newId: (n: number) => string
): Speech => {
  const blocks = blocksOf(turn.content ?? defaultText, newId)
  const length = blocks.reduce((sum, { text }) => sum + tokens(text).length, 0)
  const billed = turn.usage === undefined || turn.usage === "none"
    ? { input: inputTokens, output: length }
    : { input: turn.usage.inputTokens, output: turn.usage.outputTokens }
  return {
    blocks,
    pace: {
      firstTokenMillis: turn.firstTokenMillis ?? pace.firstTokenMillis,
      tokenMillis: turn.tokenMillis ?? pace.tokenMillis,
      tokensPerChunk: turn.tokensPerChunk ?? pace.tokensPerChunk
    },
    finish: turn.finish ?? (blocks.some(({ type }) => type === "tool-call") ? "tool-calls" : "stop"),
    length,
    billed,
    reported: turn.usage === "none" ? undefined : billed
  }
}

const blocksOf = (content: Turn.Content, newId: (n: number) => string): ReadonlyArray<Block> => {
  if (typeof content === "string") return content === "" ? [] : [{ type: "text", text: content }]
  return content.map((block, n) =>
    block.type === "tool-call"
      ? { type: block.type, id: block.id ?? newId(n), name: block.name, text: JSON.stringify(block.params ?? {}) }
      : block
  )
}

/** After how many tokens the turn breaks its answer. `undefined`: not at all. */
const breakOf = (turn: AnswerTurn): number | undefined => turn._tag === "Answer" ? undefined : turn.afterTokens

/** How many tokens are sent. A break that does not end the answer does not reduce them. */
export const produced = (turn: AnswerTurn, { length }: Speech): number => {
  if (turn._tag === "Malformed" || (turn._tag === "Stall" && turn.forMillis !== undefined)) return length
  return Math.min(length, breakOf(turn) ?? length)
}

/** The steps of a streamed answer, after the time to its first token. */
export const steps = (turn: AnswerTurn, { blocks, length, pace }: Speech): ReadonlyArray<Step> => {
  const steps: Array<Step> = []
  const breaks = Math.min(length, breakOf(turn) ?? Number.POSITIVE_INFINITY)
  const isBroken = turn._tag !== "Answer"
  let at = 0
  if (isBroken && breaks === 0 && addBreak(turn, steps)) return steps
  for (const [block, { text }] of blocks.entries()) {
    const all = tokens(text)
    let i = 0
    while (i < all.length) {
      const most = isBroken && at < breaks ? Math.min(pace.tokensPerChunk, breaks - at) : pace.tokensPerChunk
      const piece = all.slice(i, i + most)
      if (at > 0 && pace.tokenMillis > 0) steps.push({ _tag: "Pause", millis: pace.tokenMillis * piece.length })
      i += piece.length
      at += piece.length
      steps.push({ _tag: "Piece", block, text: piece.join(""), upTo: at })
      if (isBroken && at === breaks && addBreak(turn, steps)) return steps
    }
  }
  steps.push({ _tag: "End", done: turn._tag !== "Answer" || turn.done })
  return steps
}

/** Adds the steps of a break. Returns whether it ends the answer. */
const addBreak = (turn: Exclude<AnswerTurn, { readonly _tag: "Answer" }>, steps: Array<Step>): boolean => {
  switch (turn._tag) {
    case "Stall":
      if (turn.forMillis === undefined) {
        steps.push({ _tag: "Silence", pingMillis: turn.pingMillis })
        return true
      }
      steps.push(...silence(turn.forMillis, turn.pingMillis ?? Number.POSITIVE_INFINITY))
      return false
    case "Malformed":
      steps.push({ _tag: "Malformed", text: turn.text })
      return false
    case "Error":
      steps.push({ _tag: "Error", turn })
      return true
    case "Cut":
    case "Reset":
      steps.push({ _tag: turn._tag })
      return true
  }
}

const silence = (millis: number, pingMillis: number): ReadonlyArray<Step> => {
  const steps: Array<Step> = []
  let at = 0
  for (; at + pingMillis < millis; at += pingMillis) steps.push({ _tag: "Pause", millis: pingMillis }, { _tag: "Ping" })
  steps.push({ _tag: "Pause", millis: millis - at })
  return steps
}
