/** `npm run bench`: measures the cost of a protected call, compared with other libraries. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readFileSync, writeFileSync } from "node:fs"
import { cpus } from "node:os"
import { fileURLToPath } from "node:url"
import { styleText } from "node:util"
import { compare, judge } from "./judge.ts"
import { help, type Options, readOptions } from "./options.ts"
import { withTables } from "./page.ts"
import { asMarkdown, asText, type Paint } from "./print.ts"
import type { Machine, Report } from "./report.ts"
import { endOfProgress, measureRow, progress } from "./run.ts"
import { targets } from "./targets.ts"

const exitMissed = 1
const exitError = 2

const main = Effect.fnUntraced(function*(options: Options) {
  const { page } = options
  // Checked first, since measuring takes minutes.
  const rewrite = page === undefined ? undefined : readPage(page)
  if (typeof rewrite === "string") return fail(rewrite)
  const [rows, failures] = yield* Effect.partition(
    options.rows,
    (id, index) =>
      Effect.suspend(() => {
        progress(id, index, options.rows.length)
        return Effect.ensuring(measureRow(id, options.isQuick), Effect.sync(endOfProgress))
      })
  )
  const verdicts = options.isQuick ? compare(targets, rows) : judge(targets, rows)
  const report: Report = { machine, isQuick: options.isQuick, verdicts, rows }
  process.stdout.write(options.isJson ? `${JSON.stringify(report, null, 2)}\n` : asText(report, paint))
  if (options.isCheck && report.verdicts.some(({ isReached }) => isReached === false)) process.exitCode = exitMissed
  for (const { message } of failures) fail(message)
  if (page === undefined || rewrite === undefined) return
  if (failures.length > 0) return fail(`${page} was not written, since some rows could not be measured`)
  writeFileSync(page, rewrite(asMarkdown(report)))
})

/** Returns a function that replaces the tables of the page, or the reason why that is impossible. */
const readPage = (path: string): ((tables: string) => string) | string => {
  let page: string
  try {
    page = readFileSync(path, "utf8")
  } catch {
    return `cannot read ${path}`
  }
  return withTables(page) ?? `${path} has no markers for the tables`
}

const fail = (why: string): void => {
  process.stderr.write(`${why}\n`)
  process.exitCode = exitError
}

const effectVersion = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Struct({ version: Schema.String })))(
  readFileSync(fileURLToPath(import.meta.resolve("effect/package.json")), "utf8")
).version

const machine: Machine = {
  node: process.versions.node,
  effect: effectVersion,
  cpu: cpus()[0]?.model ?? "unknown",
  cores: cpus().length
}

// `styleText` adds no colours if the stream has none, or NO_COLOR is set.
const paint: Paint = (text, isReached) => styleText(isReached ? "green" : "red", text, { stream: process.stdout })

const options = readOptions(process.argv.slice(2))
if ("error" in options) fail(options.error)
else if (options.isHelp) process.stdout.write(help)
else await Effect.runPromise(main(options))
