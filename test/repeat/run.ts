/**
 * Runs the tests that have sockets in them again and again, each time in processes of their own, and tells which of them did
 * not always pass: what passes by luck fails by luck.
 *
 * `npm run test:repeat`, `npm run test:repeat -- --times N` (default 100), `npm run test:repeat -- --only PATTERN` (part of a file's
 * path, as often as you like). It never stops at a failure. Ends with 1 if there was one.
 */
import { spawn } from "node:child_process"
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** Every file of @sluice/ai whose tests listen on a port. */
const files = [
  "packages/ai/test/resilientWire/*.test.ts",
  "packages/ai/test/{wires,faults,aimock,HttpTransport}.test.ts",
  "packages/ai/test/{OpenAiCompatible,AnthropicMessages}.*.test.ts",
  "packages/ai/test/testing/Loopback*.test.ts"
]

// A run takes less than a minute on two processors that have nothing else to do.
const longestMillis = 600_000

/** What Vitest's reporter writes, as far as it is read here. */
interface Report {
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly message?: string
    readonly assertionResults: ReadonlyArray<{
      readonly fullName: string
      readonly status: string
      readonly failureMessages: ReadonlyArray<string>
    }>
  }>
}

interface Failed {
  times: number
  /** What it said the first time, on one line. */
  readonly why: string
}

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: { times: { type: "string", default: "100" }, only: { type: "string", multiple: true } }
  })
  const times = Number(values.times)
  if (!Number.isSafeInteger(times) || times < 1) {
    say("--times: a whole number of 1 or more")
    return 1
  }
  const chosen = globSync(files, { cwd: root }).toSorted().filter((file) =>
    values.only?.some((part) => file.includes(part)) ?? true
  )
  if (chosen.length === 0) {
    say("no file has such a path")
    return 1
  }
  const folder = mkdtempSync(join(tmpdir(), "repeat-"))
  try {
    return await repeat(chosen, times, folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const repeat = async (chosen: ReadonlyArray<string>, times: number, folder: string): Promise<number> => {
  const failures = new Map<string, Failed>()
  let tests = 0
  const began = Date.now()
  for (let n = 1; n <= times; n++) {
    const from = Date.now()
    const run = await runOnce(chosen, join(folder, `${n}.json`))
    tests = Math.max(tests, run.tests)
    for (const [name, why] of run.failed) {
      const known = failures.get(name)
      if (known === undefined) failures.set(name, { times: 1, why })
      else known.times++
    }
    say(`${n}/${times}: ${run.failed.size} of ${run.tests} failed, ${seconds(from)} s`)
  }
  say(`\n${chosen.length} files, ${tests} tests, ${times} times, ${seconds(began)} s`)
  if (failures.size === 0) {
    say("all passed every time")
    return 0
  }
  const width = String(times).length
  for (const [name, { times: failed, why }] of [...failures].toSorted(([, a], [, b]) => b.times - a.times)) {
    say(`${String(failed).padStart(width)}/${times}  ${name}\n${" ".repeat(2 * width + 3)}${why}`)
  }
  return 1
}

/** The tests that failed, and why. */
interface Run {
  readonly tests: number
  readonly failed: ReadonlyMap<string, string>
}

const runOnce = async (chosen: ReadonlyArray<string>, reportFile: string): Promise<Run> => {
  const failed = new Map<string, string>()
  // How long a test takes on a machine that is busy is not what is tried here.
  const told = await vitest([...chosen, "--testTimeout=60000", "--reporter=json", `--outputFile=${reportFile}`])
  if (!existsSync(reportFile)) return { tests: 0, failed: new Map([["(the run itself)", firstLine(told)]]) }
  const report: Report = JSON.parse(readFileSync(reportFile, "utf8"))
  let tests = 0
  for (const { assertionResults, message = "", name } of report.testResults) {
    const file = relative(root, name)
    if (assertionResults.length === 0) failed.set(file, firstLine(message))
    for (const { failureMessages, fullName, status } of assertionResults) {
      tests++
      if (status !== "failed") continue
      failed.set(`${file}: ${fullName}`, firstLine(failureMessages.join("\n")))
    }
  }
  return { tests, failed }
}

const vitest = (args: ReadonlyArray<string>): Promise<string> =>
  new Promise((resolve) => {
    const program = join(root, "node_modules", "vitest", "vitest.mjs")
    const child = spawn(process.execPath, [
      program,
      "run",
      "--config",
      "vitest.workspace.ts",
      "--project",
      "ai",
      ...args
    ], {
      cwd: root,
      stdio: ["ignore", "ignore", "pipe"],
      timeout: longestMillis
    })
    let told = ""
    child.stderr.setEncoding("utf8").on("data", (text: string) => told = (told + text).slice(0, 10_000))
    child.on("close", (code, signal) => resolve(signal === null ? `ended with ${code}: ${told}` : "it never ended"))
  })

const firstLine = (text: string): string => text.trim().split("\n")[0]?.slice(0, 160) ?? ""

const seconds = (from: number): string => ((Date.now() - from) / 1000).toFixed(1)

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

process.exitCode = await main()
