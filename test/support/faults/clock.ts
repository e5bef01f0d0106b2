/** A clock of a server that a test can set. */
import { execFileSync } from "node:child_process"
import { chmodSync, closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

export interface SetClock {
  /** The environment of the server. */
  readonly env: { readonly [name: string]: string }
  /** Sets the clock so many seconds off. */
  readonly set: (seconds: number) => void
  readonly remove: () => void
}

/** `undefined` without a compiler for C. */
export const makeClock = (): SetClock | undefined => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-clock-"))
  // Postgres runs as another user.
  chmodSync(folder, 0o755)
  const remove = () => rmSync(folder, { recursive: true, force: true })
  const library = join(folder, "clock.so")
  const source = fileURLToPath(new URL("clock.c", import.meta.url))
  try {
    execFileSync("cc", ["-shared", "-fPIC", "-O1", "-o", library, source], { stdio: "ignore" })
  } catch {
    remove()
    return undefined
  }
  const file = join(folder, "offset")
  writeFileSync(file, Buffer.alloc(8))
  return {
    env: { LD_PRELOAD: library, CLOCK_OFFSET_FILE: file },
    set: (seconds) => {
      const offset = Buffer.alloc(8)
      offset.writeBigInt64LE(BigInt(seconds))
      // In place: the server has mapped the file.
      const opened = openSync(file, "r+")
      writeSync(opened, offset, 0, 8, 0)
      closeSync(opened)
    },
    remove
  }
}
