import { assert } from "@effect/vitest"
import { Effect } from "effect"
import type { ChildProcessByStdio } from "node:child_process"
import { spawn } from "node:child_process"
import type { Readable, Writable } from "node:stream"
import { fileURLToPath } from "node:url"

// Compiled modules are kept between the starts, which makes each a third faster.
const compileCache = fileURLToPath(new URL("../../../../build/compile-cache", import.meta.url))

const bin = fileURLToPath(new URL("../../src/bin.ts", import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  readonly millis: number
}

export interface Command {
  readonly process: ChildProcessByStdio<Writable, Readable, Readable>
  /** Resolves with standard output once it contains the text. */
  readonly says: (text: string) => Promise<string>
  readonly ended: Promise<Ended>
}

type Environment = { readonly [name: string]: string }

interface Place {
  readonly cwd?: string
  readonly env?: Environment
}

/** Starts a script of this package. Its environment is PATH and `env` only. */
export const startScript = (script: string, args: ReadonlyArray<string>, place?: Place): Command =>
  startCommand(process.execPath, ["--conditions=@sluice/source", script, ...args], place)

const startCommand = (program: string, args: ReadonlyArray<string>, { cwd, env = {} }: Place = {}): Command => {
  const startedAt = performance.now()
  const child = spawn(program, args, {
    cwd,
    env: { PATH: process.env["PATH"] ?? "", NODE_COMPILE_CACHE: compileCache, ...env },
    stdio: ["pipe", "pipe", "pipe"]
  })
  let stdout = ""
  let stderr = ""
  child.stdout.on("data", (data: Buffer) => stdout += data.toString())
  child.stderr.on("data", (data: Buffer) => stderr += data.toString())
  const ended = new Promise<Ended>((resolve) => {
    child.on("close", (code) => resolve({ code, stdout, stderr, millis: performance.now() - startedAt }))
  })
  const says = (text: string) =>
    new Promise<string>((resolve, reject) => {
      const look = () => stdout.includes(text) && resolve(stdout)
      child.stdout.on("data", look)
      child.on("close", () => reject(new Error(`ended without printing "${text}": ${stderr}`)))
      look()
    })
  return { process: child, says, ended }
}

/** Runs `sluice` to its end in a shell that limits the size of its files, in blocks. */
export const limited = (args: ReadonlyArray<string>, env: Environment, blocks: number): Effect.Effect<Ended> =>
  Effect.promise(() => {
    const script = `ulimit -f ${blocks}; exec "$@"`
    const own = [process.execPath, "--conditions=@sluice/source", bin]
    // Without a compile cache, whose files are larger.
    const command = startCommand("sh", ["-c", script, "sh", ...own, ...args], {
      env: { ...env, NODE_DISABLE_COMPILE_CACHE: "1" }
    })
    command.process.stdin.end()
    return command.ended
  })

/** Starts `sluice` from its sources. */
export const start = (args: ReadonlyArray<string>, env: Environment = {}, cwd?: string): Command =>
  startScript(bin, args, cwd === undefined ? { env } : { env, cwd })

/** Runs `sluice` to its end, with an empty standard input. */
export const run = (args: ReadonlyArray<string>, env?: Environment, cwd?: string): Promise<Ended> => {
  const command = start(args, env, cwd)
  command.process.stdin.end()
  return command.ended
}

/** Asserts that a command ended with exit code 2 and one line on standard error that contains all parts. */
export const refused = ({ code, stderr, stdout }: Ended, ...parts: ReadonlyArray<string>): void => {
  assert.strictEqual(code, 2, stderr)
  assert.strictEqual(stdout, "")
  assert.match(stderr, /^sluice[^\n]*\n$/)
  for (const part of parts) assert.include(stderr, part)
}

/** Splits a command for a shell into its arguments, as a shell does. */
export const split = async (command: string): Promise<ReadonlyArray<string>> => {
  const shell = startCommand("sh", ["-c", `printf '%s\\n' ${command}`])
  shell.process.stdin.end()
  return (await shell.ended).stdout.trimEnd().split("\n")
}
