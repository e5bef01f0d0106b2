import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A disk so small that a test can fill it. */
export interface Disk {
  readonly folder: string
  /** Leaves no free byte. */
  readonly fill: () => void
  readonly free: () => void
  readonly remove: () => void
}

/** A file system in memory, or the reason why there is none. It ends with this process, however that ends. */
export const smallDisk = async (megabytes: number): Promise<Disk | string> => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-disk-"))
  // The shell waits until its input ends: when this process closes it, or dies by any signal.
  const shell = spawn("sh", ["-c", mountScript, "sh", folder, String(megabytes)], { stdio: ["pipe", "pipe", "pipe"] })
  const problem: Array<string> = []
  shell.stderr.setEncoding("utf8").on("data", (text: string) => problem.push(text))
  const closed = once(shell, "close")
  await Promise.race([once(shell.stdout, "data"), closed])
  if (shell.exitCode !== null) {
    rmSync(folder, { recursive: true, force: true })
    return `a small disk cannot be mounted here: ${problem.join("").trim()}`
  }
  shell.unref()
  const ballast = join(folder, "ballast")
  return {
    folder,
    fill: () => {
      const file = openSync(ballast, "w")
      for (const bytes of [2 ** 20, 2 ** 12]) fillBy(file, Buffer.alloc(bytes, "x"))
      closeSync(file)
    },
    free: () => rmSync(ballast),
    remove: () => {
      shell.stdin.end()
      // A process that still has a file open there keeps the memory until it ends.
      execFileSync("umount", ["--lazy", folder])
      rmSync(folder, { recursive: true })
    }
  }
}

const fillBy = (file: number, block: Buffer): void => {
  try {
    while (writeSync(file, block) > 0);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error
  }
}

const mountScript = `mount -t tmpfs -o "size=$2m,mode=0777" sluice "$1" || exit 1
echo mounted
cat >/dev/null
mountpoint -q "$1" && umount --lazy "$1" && rmdir "$1"
true`
