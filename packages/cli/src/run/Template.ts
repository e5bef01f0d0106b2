/** The template of `--prompt-template`: a text with the names of fields in double braces. */
import * as Result from "effect/Result"
import * as Nearest from "../Nearest.ts"
import * as Terminal from "../Terminal.ts"

export interface Template {
  /** The names of the fields, each once. */
  readonly fields: ReadonlyArray<string>
  /** Fills in the fields. Fails if one is missing, or if all are blank. */
  readonly render: (values: Values) => Result.Result<string, string>
}

interface Values {
  readonly names: ReadonlyArray<string>
  /** `undefined` if there is no such field. */
  readonly valueOf: (name: string) => string | undefined
}

const field = /\{\{\s*([^{}]+?)\s*\}\}/g

export const make = (text: string): Template => {
  const fields = [...new Set([...text.matchAll(field)].map(([, name = ""]) => name))]
  return {
    fields,
    render: ({ names, valueOf }) => {
      const values = new Map(fields.map((name) => [name, valueOf(name)]))
      const missing = fields.find((name) => values.get(name) === undefined)
      if (missing !== undefined) return Result.fail(missingText(missing, names))
      // The answer to the rest of the template alone would be about nothing.
      if ([...values.values()].every((value) => value?.trim() === "")) {
        return Result.fail(`${fields.join(", ")} must not be empty`)
      }
      return Result.succeed(text.replaceAll(field, (_, name: string) => values.get(name) ?? ""))
    }
  }
}

/** Names a field that is missing and the nearest of those that there are. */
export const missingText = (name: string, names: ReadonlyArray<string>): string => {
  const nearest = Nearest.find(name, names)
  return `no field ${shown(name)} for --prompt-template` +
    (nearest === undefined ? "" : `; did you mean ${shown(nearest)}?`)
}

const shown = (name: string): string => Terminal.clip(Terminal.escape(name), 60)
