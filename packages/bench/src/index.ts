/** `npm run bench`: what a protected call costs, beside its rivals, in one run. */
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

const missed = 1
const unusable = 2

const main = Effect.fnUntraced(function*(options: Options) {
  const { page } = options
  // A page that cannot be written is found before minutes are spent on it.
  const rewrite = page === undefined ? undefined : readPage(page)
  if (typeof rewrite === "string") return failed(rewrite)
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
  if (options.isCheck && report.verdicts.some(({ isReached }) => isReached === false)) process.exitCode = missed
  for (const { message } of failures) failed(message)
  if (page === undefined || rewrite === undefined) return
  if (failures.length > 0) return failed(`${page} was not written: rows are missing`)
  writeFileSync(page, rewrite(asMarkdown(report)))
})

/** What puts tables between the marks of a page, or why that cannot be. */
const readPage = (path: string): ((tables: string) => string) | string => {
  let page: string
  try {
    page = readFileSync(path, "utf8")
  } catch {
    return `${path} cannot be read`
  }
  return withTables(page) ?? `${path} has no marks to write between`
}

const failed = (why: string): void => {
  process.stderr.write(`${why}\n`)
  process.exitCode = unusable
}

const versionOfEffect = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Struct({ version: Schema.String })))(
  readFileSync(fileURLToPath(import.meta.resolve("effect/package.json")), "utf8")
).version

const machine: Machine = {
  node: process.versions.node,
  effect: versionOfEffect,
  cpu: cpus()[0]?.model ?? "unknown",
  cores: cpus().length
}

// Colours only where the reader is a terminal that has them, and did not say no.
const paint: Paint = (text, isReached) => styleText(isReached ? "green" : "red", text, { stream: process.stdout })

const options = readOptions(process.argv.slice(2))
if ("wrong" in options) failed(options.wrong)
else if (options.isHelp) process.stdout.write(help)
else await Effect.runPromise(main(options))
