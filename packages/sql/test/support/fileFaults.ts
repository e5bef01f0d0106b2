/** What can happen to a file of SQLite. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"

/** The files of a database. */
const filesOf = (file: string): ReadonlyArray<string> => ["", "-wal", "-shm"].map((end) => file + end)

export const remove = (file: string): void => {
  for (const name of filesOf(file)) rmSync(name, { force: true })
}

const lockScript = `const { DatabaseSync } = require("node:sqlite")
const db = new DatabaseSync(process.argv[1], { timeout: 60_000 })
db.exec("BEGIN IMMEDIATE")
process.stdout.write("locked")
process.stdin.on("end", () => process.exit()).resume()`

/** Locks the file in another process until the returned function is called, or this process ends. */
export const lock = async (file: string): Promise<() => Promise<void>> => {
  const holder = spawn(process.execPath, ["-e", lockScript, file], { stdio: ["pipe", "pipe", "ignore"] })
  const ended = once(holder, "exit")
  const locked = once(holder.stdout, "data")
  if (await Promise.race([locked.then(() => false), ended.then(() => true)])) throw new Error(`${file} was not locked`)
  return async () => {
    holder.stdin.end()
    await ended
  }
}

/** Overwrites the file, whose connections have nothing of it in memory that is still valid. */
export const corrupt = (file: string): void => {
  const db = new DatabaseSync(file, { timeout: 60_000 })
  // A commit ends the validity of what the connections have read, and a checkpoint moves all of it to the file.
  db.exec("PRAGMA user_version = 1; PRAGMA wal_checkpoint(TRUNCATE)")
  db.close()
  const opened = openSync(file, "r+")
  writeSync(opened, Buffer.alloc(statSync(file).size, "garbage "), 0, undefined, 0)
  closeSync(opened)
}

/** A file system with little space. */
export interface SmallDisk {
  readonly folder: string
  readonly fill: () => void
  readonly free: () => void
  readonly remove: () => Promise<void>
}

// The shell waits until its input ends: when this process closes it, or dies by any signal.
const mountScript = `mount -t tmpfs -o size=1m,mode=700 tmpfs "$1" || exit 1
echo mounted
cat >/dev/null
umount -l "$1"
rmdir "$1"`

/** `undefined` without the right to mount one. */
export const smallDisk = async (parent: string): Promise<SmallDisk | undefined> => {
  const folder = mkdtempSync(join(parent, "sluice-disk-"))
  const guard = spawn("sh", ["-c", mountScript, "sh", folder], { stdio: ["pipe", "pipe", "ignore"] })
  const ended = once(guard, "exit")
  const isMounted = await Promise.race([once(guard.stdout, "data").then(() => true), ended.then(() => false)])
  if (!isMounted) {
    rmSync(folder, { recursive: true })
    return undefined
  }
  const ballast = join(folder, "ballast")
  return {
    folder,
    fill: () => {
      const file = openSync(ballast, "a")
      try {
        for (;;) writeSync(file, Buffer.alloc(4_096))
      } catch (error) {
        if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error
      } finally {
        closeSync(file)
      }
    },
    free: () => rmSync(ballast),
    remove: async () => {
      guard.stdin.end()
      await ended
    }
  }
}
