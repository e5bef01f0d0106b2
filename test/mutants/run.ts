/**
 * Breaks a copy of the source in one way after another, and reports which of them no test notices.
 *
 * `npm run mutants -- --help` says how to call it. Exits with 1 if a mutant survives or cannot be made, or if the tests fail
 * without a mutant.
 */
import { spawn } from "node:child_process"
import {
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { parseArgs } from "node:util"
import { type Mutant, mutants, mutate, root } from "./mutants.ts"

/** A test failed; none did; none ran, because a server is missing; the mutant could not be made or loaded. */
type Verdict =
  | { readonly _tag: "Caught"; readonly by: string }
  | { readonly _tag: "Survived" }
  | { readonly _tag: "Skipped" }
  | { readonly _tag: "Broken"; readonly why: string }

// A mutant can make a test run for ever. No test file takes as long as this.
const longestMillis = 180_000

const usage = `npm run mutants                   run every mutant, one after another
npm run mutants -- --only NAME    run the mutants whose name contains NAME; can be repeated
npm run mutants -- --list         list the mutants
npm run mutants -- --help         show this help`

const readFlags = () =>
  parseArgs({
    options: {
      only: { type: "string", multiple: true },
      list: { type: "boolean" },
      help: { type: "boolean", short: "h" }
    }
  }).values

const main = async (): Promise<number> => {
  let values: ReturnType<typeof readFlags>
  try {
    values = readFlags()
  } catch (error) {
    say(`${error instanceof Error ? error.message : String(error)}\n\n${usage}`)
    return 1
  }
  if (values.help === true) {
    say(usage)
    return 0
  }
  const chosen = mutants.filter(({ name }) => values.only?.some((part) => name.includes(part)) ?? true)
  if (values.list === true) {
    for (const { breaks, name } of chosen) say(`${name.padEnd(width)}${breaks}`)
    return 0
  }
  if (chosen.length === 0) {
    say("no mutant has this name; see --list")
    return 1
  }
  const copy = mkdtempSync(join(tmpdir(), "mutants "))
  try {
    copySources(copy)
    return await tryAll(chosen, copy)
  } finally {
    rmSync(copy, { recursive: true })
  }
}

const tryAll = async (chosen: ReadonlyArray<Mutant>, copy: string): Promise<number> => {
  const files = [...new Set(chosen.flatMap(({ caughtBy }) => caughtBy))]
  const healthy = await runTests(files, copy, [], files.length * longestMillis)
  if (healthy._tag === "Caught" || healthy._tag === "Broken") {
    say(`without a mutant: ${describe(healthy)}`)
    return 1
  }
  say(`without a mutant: the tests pass (${files.length} files)`)
  const verdicts: Array<Verdict["_tag"]> = []
  for (const mutant of chosen) {
    const startedAt = performance.now()
    const verdict = await tryMutant(mutant, copy)
    verdicts.push(verdict._tag)
    say(`${mutant.name.padEnd(width)}${describe(verdict)} (${Math.round((performance.now() - startedAt) / 1_000)} s)`)
  }
  const caught = verdicts.filter((tag) => tag === "Caught").length
  const skipped = verdicts.filter((tag) => tag === "Skipped").length
  say(`${caught} of ${chosen.length} caught${skipped === 0 ? "" : `, ${skipped} skipped`}`)
  return caught + skipped === chosen.length ? 0 : 1
}

const width = 4 + Math.max(...mutants.map(({ name }) => name.length))

const describe = (verdict: Verdict): string => {
  switch (verdict._tag) {
    case "Caught":
      return `caught by ${verdict.by}`
    case "Survived":
      return "SURVIVED"
    case "Skipped":
      return "skipped, as its tests were"
    case "Broken":
      return `BROKEN: ${verdict.why}`
  }
}

const tryMutant = async (mutant: Mutant, copy: string): Promise<Verdict> => {
  const path = join(copy, mutant.file)
  const source = readFileSync(path, "utf8")
  const mutated = mutate(mutant, source)
  if (mutated === undefined) return { _tag: "Broken", why: `the text to replace is not in ${mutant.file}` }
  writeFileSync(path, mutated)
  try {
    return await runTests(mutant.caughtBy, copy, ["--bail", "1"], longestMillis)
  } finally {
    writeFileSync(path, source)
  }
}

/** The part of vitest's report that is read here. */
interface Report {
  readonly numPassedTests: number
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly message: string
    readonly status: string
    readonly assertionResults: ReadonlyArray<{ readonly fullName: string; readonly status: string }>
  }>
}

const runTests = async (
  files: ReadonlyArray<string>,
  copy: string,
  options: ReadonlyArray<string>,
  timeoutMillis: number
): Promise<Verdict> => {
  const vitest = join(root, "node_modules/vitest/vitest.mjs")
  const projects = new Set(files.map((file) => file.split("/")[1] ?? ""))
  const outputFile = join(copy, "report.json")
  rmSync(outputFile, { force: true })
  const args = [
    "run",
    "--config",
    "vitest.workspace.ts",
    "--testTimeout",
    "15000",
    "--reporter",
    "json",
    "--outputFile",
    outputFile,
    ...options
  ]
  const { code, output } = await execute(
    process.execPath,
    [vitest, ...args, ...[...projects].flatMap((project) => ["--project", project]), ...files],
    copy,
    timeoutMillis
  )
  if (code === undefined) return { _tag: "Caught", by: `the time limit of ${timeoutMillis / 1_000} s` }
  if (!existsSync(outputFile)) return { _tag: "Broken", why: `vitest made no report: ${output.trim()}` }
  return verdictOf(JSON.parse(readFileSync(outputFile, "utf8")) as Report, code)
}

// Only a test that ran and failed has caught the mutant. One that does not load shows nothing.
const verdictOf = ({ numPassedTests, testResults }: Report, code: number): Verdict => {
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults)
  const failed = tests.filter(({ status }) => status === "failed").map(({ fullName }) => `"${fullName}"`)
  if (failed.length > 0) return { _tag: "Caught", by: failed.join(", ") }
  const unloaded = testResults.find(({ status }) => status === "failed")
  if (unloaded !== undefined) return { _tag: "Broken", why: `${basename(unloaded.name)}: ${unloaded.message}` }
  if (code !== 0) return { _tag: "Broken", why: `vitest exited with ${code}` }
  return { _tag: numPassedTests > 0 ? "Survived" : "Skipped" }
}

/** Runs a program. The code is `undefined` if it ran out of time. */
const execute = (
  program: string,
  args: ReadonlyArray<string>,
  cwd: string,
  timeoutMillis: number
): Promise<{ readonly code: number | undefined; readonly output: string }> =>
  new Promise((resolve, reject) => {
    // In its own process group, so that its workers are killed with it.
    const child = spawn(program, [...args], { cwd, detached: true, stdio: ["ignore", "pipe", "pipe"] })
    let output = ""
    let isTooLate = false
    const timer = setTimeout(() => {
      isTooLate = true
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL")
    }, timeoutMillis)
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data: Buffer) => output += data.toString())
    child.on("error", reject)
    child.on("close", (code) => {
      clearTimeout(timer)
      resolve({ code: isTooLate ? undefined : code ?? 1, output })
    })
  })

/** Copies the source and the tests. Installed packages are linked, and our own are linked to the copy. */
const copySources = (to: string): void => {
  const left = new Set(["node_modules", "dist", "build"])
  for (
    const entry of ["packages", "test", "package.json", "tsconfig.base.json", "vitest.setup.ts", "vitest.workspace.ts"]
  ) {
    cpSync(join(root, entry), join(to, entry), {
      recursive: true,
      filter: (path) => !left.has(basename(path)) && !path.endsWith(".tsbuildinfo")
    })
  }
  for (const name of globSync(["*", "@*/*"], { cwd: join(root, "node_modules") })) {
    const isScope = name.startsWith("@") && !/[/\\]/.test(name)
    if (isScope || name.startsWith(".")) continue
    const target = realpathSync(join(root, "node_modules", name))
    const packages = realpathSync(join(root, "packages"))
    link(target.startsWith(packages) ? join(to, "packages", basename(target)) : target, join(to, "node_modules", name))
  }
}

const link = (target: string, path: string): void => {
  mkdirSync(dirname(path), { recursive: true })
  symlinkSync(target, path, "junction")
}

const say = (line: string): void => void process.stdout.write(`${line}\n`)

process.exitCode = await main()
