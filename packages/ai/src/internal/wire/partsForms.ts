import type * as Response from "effect/ai/Response"

type Part = Response.PartEncoded
type StreamPart = Response.StreamPartEncoded

/** Converts the parts of a whole response to those of a stream. */
export const toStream = (parts: ReadonlyArray<Part>): Array<StreamPart> => {
  const streamed: Array<StreamPart> = []
  let blocks = 0
  for (const part of parts) {
    switch (part.type) {
      case "text":
      case "reasoning": {
        const id = String(blocks++)
        const metadata = part.metadata === undefined ? {} : { metadata: part.metadata }
        streamed.push({ type: `${part.type}-start`, id })
        if (part.text !== "") streamed.push({ type: `${part.type}-delta`, id, delta: part.text })
        streamed.push({ type: `${part.type}-end`, id, ...metadata })
        break
      }
      case "tool-call":
        streamed.push(
          { type: "tool-params-start", id: part.id, name: part.name },
          { type: "tool-params-delta", id: part.id, delta: JSON.stringify(part.params) },
          { type: "tool-params-end", id: part.id },
          part
        )
        break
      default:
        streamed.push(part)
    }
  }
  return streamed
}

interface Block {
  readonly type: "text" | "reasoning"
  text: string
  metadata?: Response.TextPartEncoded["metadata"]
}

/** Converts the parts of a streamed response to those of a whole one. Those of a whole one stay as they are. */
export const toWhole = (parts: ReadonlyArray<Part | StreamPart>): Array<Part> => {
  const whole: Array<Part | Block> = []
  const blocks = new Map<string, Block>()
  for (const part of parts) {
    switch (part.type) {
      case "text-start":
      case "reasoning-start": {
        const block: Block = { type: part.type === "text-start" ? "text" : "reasoning", text: "" }
        addMetadata(block, part.metadata)
        blocks.set(part.id, block)
        whole.push(block)
        break
      }
      case "text-delta":
      case "reasoning-delta":
      case "text-end":
      case "reasoning-end": {
        const block = blocks.get(part.id)
        if (block === undefined) break
        if ("delta" in part) block.text += part.delta
        addMetadata(block, part.metadata)
        break
      }
      case "tool-params-start":
      case "tool-params-delta":
      case "tool-params-end":
      case "error":
        break
      default:
        whole.push(part)
    }
  }
  return whole.filter((part) => part.type !== "text" || part.text !== "")
}

const addMetadata = (block: Block, metadata: Block["metadata"]): void => {
  if (metadata !== undefined) block.metadata = { ...block.metadata, ...metadata }
}
