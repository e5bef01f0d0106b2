import type { ChildProcessByStdio } from "node:child_process"
import { spawn } from "node:child_process"
import type { Readable, Writable } from "node:stream"
import { fileURLToPath } from "node:url"

const bin = fileURLToPath(new URL("../../src/bin.ts", import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  readonly millis: number
}

export interface Command {
  readonly process: ChildProcessByStdio<Writable, Readable, Readable>
  /** Resolves when standard output holds this. */
  readonly says: (text: string) => Promise<string>
  readonly ended: Promise<Ended>
}

/** Starts `sluice` from its sources, with nothing of the environment but what is given. */
export const start = (args: ReadonlyArray<string>, env: { readonly [name: string]: string } = {}): Command => {
  const startedAt = performance.now()
  const child = spawn(process.execPath, ["--conditions=@sluice/source", bin, ...args], {
    env: { PATH: process.env["PATH"] ?? "", ...env },
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
      child.on("close", () => reject(new Error(`ended without saying "${text}": ${stderr}`)))
      look()
    })
  return { process: child, says, ended }
}

/** Runs `sluice` to its end. */
export const run = (args: ReadonlyArray<string>, env?: { readonly [name: string]: string }): Promise<Ended> => {
  const command = start(args, env)
  command.process.stdin.end()
  return command.ended
}
