/**
 * Runs the tests that use sockets repeatedly, each time in new processes, and reports the tests that failed at least once.
 *
 * `npm run test:repeat -- --times N --only PART`. `--times` is the number of runs (default 100). `--only` selects files by a part of
 * their path, and can be repeated. A failure does not stop the runs. Exits with 1 if a test failed.
 */
import { spawn } from "node:child_process"
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** The files of @sluice/ai with tests that listen on a port. */
const files = [
  "packages/ai/test/resilientWire/*.test.ts",
  "packages/ai/test/{wires.*,faults,aimock,HttpTransport}.test.ts",
  "packages/ai/test/{OpenAiCompatible,AnthropicMessages}.*.test.ts",
  "packages/ai/test/testing/Loopback*.test.ts"
]

// A run takes less than a minute on two idle cores.
const timeoutMillis = 600_000

/** The fields of Vitest's report that are read here. */
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

interface Failure {
  times: number
  /** The first line of its first error. */
  readonly why: string
}

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: { times: { type: "string", default: "100" }, only: { type: "string", multiple: true } }
  })
  const times = Number(values.times)
  if (!Number.isSafeInteger(times) || times < 1) {
    say("--times must be a whole number of at least 1")
    return 1
  }
  const chosen = globSync(files, { cwd: root }).toSorted().filter((file) =>
    values.only?.some((part) => file.includes(part)) ?? true
  )
  if (chosen.length === 0) {
    say("--only matches no file")
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
  const failures = new Map<string, Failure>()
  let tests = 0
  const startedAt = Date.now()
  for (let n = 1; n <= times; n++) {
    const runStartedAt = Date.now()
    const run = await runOnce(chosen, join(folder, `${n}.json`))
    tests = Math.max(tests, run.tests)
    for (const [name, why] of run.failed) {
      const known = failures.get(name)
      if (known === undefined) failures.set(name, { times: 1, why })
      else known.times++
    }
    say(`run ${n} of ${times}: ${run.failed.size} of ${run.tests} tests failed, ${seconds(runStartedAt)} s`)
  }
  say(`\n${chosen.length} files, ${tests} tests, ${times} runs, ${seconds(startedAt)} s`)
  if (failures.size === 0) {
    say("every test passed in every run")
    return 0
  }
  const width = String(times).length
  for (const [name, { times: failed, why }] of [...failures].toSorted(([, a], [, b]) => b.times - a.times)) {
    say(`${String(failed).padStart(width)}/${times}  ${name}\n${" ".repeat(2 * width + 3)}${why}`)
  }
  return 1
}

/** A run, with the failed tests and the first lines of their errors. */
interface Run {
  readonly tests: number
  readonly failed: ReadonlyMap<string, string>
}

const runOnce = async (chosen: ReadonlyArray<string>, reportFile: string): Promise<Run> => {
  const failed = new Map<string, string>()
  // A long timeout, since tests are slow on a busy machine.
  const output = await vitest([...chosen, "--testTimeout=60000", "--reporter=json", `--outputFile=${reportFile}`])
  if (!existsSync(reportFile)) return { tests: 0, failed: new Map([["(the run itself)", firstLine(output)]]) }
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
      timeout: timeoutMillis
    })
    let output = ""
    child.stderr.setEncoding("utf8").on("data", (text: string) => output = (output + text).slice(0, 10_000))
    child.on("close", (code, signal) =>
      resolve(signal === null ? `vitest exited with ${code}: ${output}` : "vitest did not exit in time"))
  })

const firstLine = (text: string): string => text.trim().split("\n")[0]?.slice(0, 160) ?? ""

const seconds = (from: number): string => ((Date.now() - from) / 1000).toFixed(1)

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

process.exitCode = await main()
