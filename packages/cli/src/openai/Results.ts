/** The results of a batch as lines: in the form of Sluice or of OpenAI's Batch API. */
import type { Result } from "@sluice/batch/Batch"
import * as Lines from "./Line.ts"

/** As in the results of `sluice run`: the text of the answer, or why there is none. */
export const sluiceLine = (result: Result): string => {
  const { key, kind, micros, seq } = result
  const response = Lines.readResponse(result.body)
  const line = {
    line: seq + 1,
    id: key,
    status: kind === "ok" ? "ok" : "failed",
    cost: micros === 0 ? undefined : micros / 1e6
  }
  const { inputTokens, outputTokens } = result
  if (kind === "ok") {
    const answer = Lines.answerOf(response?.body)
    return encode({
      ...line,
      text: answer.text,
      model: answer.model,
      finish: answer.finish,
      usage: { inputTokens, outputTokens },
      // Of an answer that is no chat completion, such as an embedding.
      body: answer.text === undefined ? response?.body : undefined
    })
  }
  return encode({ ...line, error: errorOf(result) })
}

/** A line of the output or error file of OpenAI's Batch API. */
export const openAiLine = (batch: string, result: Result): string => {
  const { key, kind, seq } = result
  const response = Lines.readResponse(result.body)
  const isAnswered = response !== undefined
  return encode({
    id: `batch_req_${batch.replace(/^batch_/, "")}_${seq}`,
    custom_id: key,
    response: isAnswered
      ? { status_code: response.status, request_id: response.requestId, body: response.body }
      : null,
    error: kind === "ok" || isAnswered ? null : errorOf(result)
  })
}

const marks: { readonly [kind: string]: { readonly code: string; readonly message: string } } = {
  cancelled: { code: "batch_cancelled", message: "The batch was cancelled before the request was sent." },
  expired: { code: "batch_expired", message: "The batch expired before the request was sent." },
  capped: { code: "cost_cap", message: "The batch reached its budget before the request was sent." }
}

const errorOf = ({ body, kind }: Result): { readonly code: string; readonly message: string } => {
  const mark = marks[kind]
  if (mark !== undefined) return mark
  const response = Lines.readResponse(body)
  const error = Lines.errorOf(response === undefined ? body : JSON.stringify(response.body))
  return {
    code: kind === "failed" ? error.code ?? "request_failed" : kind,
    message: error.message ?? (response === undefined ? "The request failed." : `HTTP ${response.status}`)
  }
}

const encode = (line: object): string => `${JSON.stringify(line)}\n`
