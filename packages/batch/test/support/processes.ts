import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const fixture = fileURLToPath(new URL("../fixtures/process.ts", import.meta.url))

/** Whether what the processes log is shown. */
const isShown = process.env["SLUICE_SHOW"] === "true"

export type Role = "worker" | "feeder" | "both" | "submitter" | "exporter"

export type Order = "input" | "completion"

export interface Start {
  readonly name: string
  readonly database: string
  readonly provider: string
  readonly inFlight: number
  readonly onLost: "ask-again" | "fail"
  /** Milliseconds of the lease of a ticket. */
  readonly times: { readonly lease: number; readonly refresh: number; readonly poll: number }
  /** What a submitter submits, and what an exporter exports to a file. */
  readonly batch: string
  readonly requests: number
  readonly file: string
  readonly order: Order
}

/** A process of a deployment. */
export class Running {
  readonly role: Role
  readonly name: string
  readonly child: ChildProcess
  readonly ended: Promise<unknown>

  constructor(role: Role, name: string, child: ChildProcess) {
    this.role = role
    this.name = name
    this.child = child
    this.ended = once(child, "exit")
  }

  get isEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  signal(signal: "SIGKILL" | "SIGSTOP" | "SIGCONT" | "SIGTERM"): void {
    this.child.kill(signal)
  }
}

/** Real processes. All that were started are killed at the end. */
export class Processes implements AsyncDisposable {
  private readonly all = new Set<Running>()
  private isOver = false

  async start(role: Role, options: Start): Promise<Running> {
    const child = spawn(
      process.execPath,
      ["--conditions=@sluice/source", fixture, role, JSON.stringify(options)],
      {
        stdio: ["ignore", "pipe", isShown ? "inherit" : "ignore"],
        env: { ...process.env, NODE_COMPILE_CACHE: join(tmpdir(), "sluice-batch-test-cache") }
      }
    )
    const running = new Running(role, options.name, child)
    this.all.add(running)
    await Promise.race([once(child.stdout, "data"), running.ended])
    if (running.isEnded && !this.isOver) throw new Error(`${role} ${options.name} ended before it was ready`)
    if (isShown) child.stdout.pipe(process.stderr)
    else child.stdout.resume()
    return running
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.isOver = true
    for (const running of this.all) {
      if (!running.isEnded) running.signal("SIGKILL")
    }
    await Promise.all(Array.from(this.all, ({ ended }) => ended))
  }
}
