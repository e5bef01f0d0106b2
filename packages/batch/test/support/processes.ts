import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"

const fixture = fileURLToPath(new URL("../fixtures/worker.ts", import.meta.url))

export interface Options {
  readonly name: string
  readonly database: string
  readonly provider: string
  readonly inFlight: number
  readonly onLost?: "ask-again" | "fail"
}

/** Workers as real processes. All that were started are killed at the end. */
export class Processes implements AsyncDisposable {
  private readonly children = new Set<ChildProcess>()

  async start({ database, inFlight, name, onLost = "ask-again", provider }: Options): Promise<ChildProcess> {
    const child = spawn(
      process.execPath,
      ["--conditions=@sluice/source", fixture, name, database, provider, String(inFlight), onLost],
      { stdio: ["ignore", "pipe", "inherit"] }
    )
    this.children.add(child)
    await Promise.race([
      once(child.stdout, "data"),
      once(child, "exit").then(() => Promise.reject(new Error(`${name} ended`)))
    ])
    child.stdout.resume()
    return child
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.children) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const exit = once(child, "exit")
      child.kill("SIGKILL")
      await exit
    }
  }
}
