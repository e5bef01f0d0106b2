import { parseArgs } from "node:util"
import { isOnRequest, type RowId, rowIds, rowOf } from "./rows.ts"
import { targets } from "./targets.ts"

export interface Options {
  readonly isQuick: boolean
  readonly isJson: boolean
  readonly isCheck: boolean
  readonly isHelp: boolean
  readonly rows: ReadonlyArray<RowId>
  /** The page whose tables are replaced. */
  readonly page: string | undefined
}

/** Parses the arguments. Returns an error message if they are invalid. */
export const readOptions = (args: ReadonlyArray<string>): Options | { readonly error: string } => {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        quick: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        check: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
        only: { type: "string" },
        portkey: { type: "boolean", default: false },
        write: { type: "string" }
      }
    })
    const rows = values.only !== undefined
      ? matching(values.only)
      : rowIds.filter((id) => values.portkey || !isOnRequest(id))
    if (rows.length === 0) return { error: `--only ${values.only} matches no row; --help lists the rows` }
    if (values.write !== undefined && (values.only !== undefined || values.quick)) {
      return { error: "--write needs a full run of all rows; remove --only and --quick" }
    }
    if (values.check && values.quick) {
      return { error: "--check needs the verdicts of a full run; remove --quick" }
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
    return { error: error instanceof Error ? error.message : String(error) }
  }
}

const matching = (only: string): ReadonlyArray<RowId> => {
  const words = only.toLowerCase().split(",").map((word) => word.trim()).filter((word) => word !== "")
  return rowIds.filter((id) => words.some((word) => id.includes(word) || rowOf(id).group === word))
}

export const help = `npm run bench [-- OPTIONS]

Measure the CPU time of a protected call, compared with Effect's own
parts, cockatiel, opossum, p-limit, p-retry and lru-cache in the same
run, and judge ${targets.length} targets.

  --quick       Run fewer and shorter rounds, in less than half the time.
                The ratios are rough and get no verdict.
  --only NAMES  Measure the rows whose name contains one of NAMES, and
                the rows of these groups. Separate NAMES by commas.
  --portkey     Also measure the gateway of Portkey, which npm installs in
                a temporary folder. It listens on all interfaces meanwhile.
  --json        Print only the results, as JSON, to standard output.
  --write FILE  Also write the tables between the markers of FILE.
  --check       Exit with code 1 if a target is missed. Without --check
                the exit code is 0.
  --help, -h    Print this help.

Rows:
${rowIds.map((id) => `  ${id.padEnd(21)}${rowOf(id).title}`).join("\n")}
`
