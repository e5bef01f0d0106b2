// Runs modules one after the other in one process, and tells what each of them printed. Given to `node` with a list of
// files; each answers with a line of JSON on standard output. The process ends by itself if nothing was left open.
import { pathToFileURL } from "node:url"
import { format } from "node:util"

let printed: Array<string> = []
globalThis.console.log = (...values: ReadonlyArray<unknown>) => void printed.push(...format(...values).split("\n"))

for (const file of process.argv.slice(2)) {
  printed = []
  let error: string | undefined
  try {
    await import(pathToFileURL(file).href)
  } catch (cause) {
    error = format(cause)
  }
  process.stdout.write(`${JSON.stringify({ file, printed, error })}\n`)
}
