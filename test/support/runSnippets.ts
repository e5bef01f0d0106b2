// Runs the modules in its arguments one after the other in one process. Prints a line of JSON for each: the lines that it logged,
// and its error. The process ends when the modules have left nothing open.
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
