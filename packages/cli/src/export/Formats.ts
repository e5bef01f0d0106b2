/** The formats of `sluice export`. */
import type * as Schema from "effect/Schema"
import type { Result } from "../run/Result.ts"

/** A result as it is read from a file. */
export type Exported = Result & {
  readonly request?: string | undefined
  /** The line of the input. A row of a table, or any line with `--include-input`. */
  readonly input?: Schema.Json | undefined
}

// ---------- CSV

/** Collects the columns of all results, since the header comes first. */
export class Columns {
  private readonly ofInput = new Set<string>()
  private hasSamples = false

  add({ input, sample }: Exported): void {
    if (sample !== undefined) this.hasSamples = true
    for (const name of Object.keys(fieldsOf(input))) if (name.toLowerCase() !== "id") this.ofInput.add(name)
  }

  /** The columns of the input come first. One with the name of a column of the results gets a prefix. */
  get header(): string {
    const ownNames = this.own.map(([name]) => name)
    const names = [...this.ofInput].map((name) => ownNames.includes(name) ? `input_${name}` : name)
    return csvLine([...names, ...ownNames])
  }

  private get own() {
    return [...own].filter(([name]) => name !== "sample" || this.hasSamples)
  }

  row(result: Exported): string {
    const fields = fieldsOf(result.input)
    const cells = [...this.ofInput].map((name) => textOf(Object.hasOwn(fields, name) ? fields[name] : undefined))
    return csvLine([...cells, ...this.own.map(([, cellOf]) => String(cellOf(result) ?? ""))])
  }
}

const own = new Map<string, (result: Exported) => string | number | undefined>([
  ["line", ({ line }) => line],
  ["sample", ({ sample }) => sample],
  ["id", ({ id }) => id],
  ["status", ({ status }) => status],
  ["text", (result) => result.status === "ok" ? result.text : undefined],
  ["error", (result) => result.status === "ok" ? undefined : `${result.error.tag}: ${result.error.message}`],
  ["finish", (result) => result.status === "ok" ? result.finish : undefined],
  ["target", ({ target }) => target],
  ["model", ({ model }) => model],
  ["input_tokens", (result) => result.status === "ok" ? result.usage.inputTokens : undefined],
  ["output_tokens", (result) => result.status === "ok" ? result.usage.outputTokens : undefined],
  ["cost", ({ cost }) => cost]
])

const fieldsOf = (input: Schema.Json | undefined): { readonly [name: string]: Schema.Json } =>
  input === undefined
    ? {}
    : typeof input === "object" && input !== null && !Array.isArray(input)
    // Neither null nor an array, which TypeScript cannot tell from a read-only array.
    ? input as { readonly [name: string]: Schema.Json }
    : { input }

const textOf = (value: Schema.Json | undefined): string =>
  value === undefined || value === null ? "" : typeof value === "string" ? value : JSON.stringify(value)

/** A line as in RFC 4180, with a line feed alone at its end. */
const csvLine = (cells: ReadonlyArray<string>): string =>
  `${cells.map((cell) => /[",\r\n]|^\s|\s$/.test(cell) ? `"${cell.replaceAll(`"`, `""`)}"` : cell).join(",")}\n`

// ---------- OpenAI's batch output

/** A line of the output file of OpenAI's Batch API. `created` is in epoch seconds. */
export const openAiLine = (result: Exported, created: number): string => {
  const { id, line, model, request, sample } = result
  const ownId = sample === undefined ? `sluice_${line}` : `sluice_${line}_${sample}`
  const customId = id ?? `line-${line}`
  return `${
    JSON.stringify({
      id: ownId,
      custom_id: sample === undefined ? customId : `${customId}#${sample}`,
      response: result.status === "failed" ? null : {
        status_code: 200,
        request_id: request,
        body: {
          id: ownId,
          object: "chat.completion",
          created,
          model,
          choices: [{
            index: 0,
            message: { role: "assistant", content: result.text, refusal: null },
            logprobs: null,
            finish_reason: result.finish.replaceAll("-", "_")
          }],
          usage: {
            prompt_tokens: result.usage.inputTokens,
            completion_tokens: result.usage.outputTokens,
            total_tokens: result.usage.inputTokens + result.usage.outputTokens
          }
        }
      },
      error: result.status === "ok" ? null : { code: result.error.tag, message: result.error.message }
    })
  }\n`
}
