import { parseArgs } from "node:util"
import { type RowId, rowIds, rowOf } from "./rows.ts"
import { targets } from "./targets.ts"

export interface Options {
  readonly isQuick: boolean
  readonly isJson: boolean
  readonly isCheck: boolean
  readonly isHelp: boolean
  readonly rows: ReadonlyArray<RowId>
  /** The page whose table is written anew. */
  readonly page: string | undefined
}

/** Reads the arguments, or says what is wrong with them. */
export const readOptions = (args: ReadonlyArray<string>): Options | { readonly wrong: string } => {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        quick: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        check: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
        only: { type: "string" },
        write: { type: "string" }
      }
    })
    const rows = values.only === undefined ? rowIds : matching(values.only)
    if (rows.length === 0) return { wrong: `no row has ${values.only} in its name; see --help` }
    if (values.write !== undefined && (values.only !== undefined || values.quick)) {
      return { wrong: "--write needs all rows, measured at length: not --only some, not --quick" }
    }
    if (values.check && values.quick) {
      return { wrong: "--check needs verdicts, and rows measured at length for them: not --quick" }
    }
    return {
      isQuick: values.quick,
      isJson: values.json,
      isCheck: values.check,
      isHelp: values.help,
      rows,
      page: values.write
    }
  } catch (error) {
    return { wrong: error instanceof Error ? error.message : String(error) }
  }
}

const matching = (only: string): ReadonlyArray<RowId> => {
  const words = only.toLowerCase().split(",").map((word) => word.trim()).filter((word) => word !== "")
  return rowIds.filter((id) => words.some((word) => id.includes(word) || rowOf(id).group === word))
}

export const help = `npm run bench [-- OPTIONS]

Measures what a protected call costs, beside Effect's own parts, cockatiel,
opossum, p-limit, p-retry and lru-cache, in the same run, and judges ${targets.length} targets
on the ratios.

  --quick       fewer and shorter rounds: under a minute instead of several,
                and ratios without a verdict, since they may be far off
  --only NAMES  only rows with one of these in their name (with commas between)
  --json        the results as JSON on standard output, and nothing else there
  --write FILE  also writes the tables between the marks of a page
  --check       exit code 1 if a target is missed
  --help, -h    this

A missed target is no error: without --check the exit code is 0.

Rows:
${rowIds.map((id) => `  ${id.padEnd(18)}${rowOf(id).title}`).join("\n")}
`
