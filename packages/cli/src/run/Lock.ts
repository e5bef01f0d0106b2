/** The lock of an output file, so that two runs never write it at once. The lock is a file with the same name and `.lock`. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { link, readFile, realpath, rm, unlink, writeFile } from "node:fs/promises"
import { hostname } from "node:os"
import { basename, dirname, join } from "node:path"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"

/** The process that holds a lock. */
export const Owner = Schema.Struct({
  pid: Schema.Int,
  /** The start time of the process, in units of the system. Distinguishes it from a later process with the same number. */
  start: Schema.optionalKey(Schema.String),
  /** Identifies the last start of the machine. */
  boot: Schema.optionalKey(Schema.String),
  host: Schema.String
})

export type Owner = typeof Owner.Type

export class LockError extends Schema.Error<LockError>("sluice/LockError")({
  _tag: Schema.tag("LockError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot write ${Terminal.escape(this.path)}: ${this.why}`
  }
}

/** `free`: no lock. `held`: its process runs, or may run. `stale`: its process has ended. */
export type Status =
  | { readonly _tag: "free" }
  | { readonly _tag: "held"; readonly owner: Owner | undefined }
  | { readonly _tag: "stale"; readonly owner: Owner }

/** Takes the lock of an output file until the scope closes. Fails if another run holds it, unless its process has ended. */
export const hold = (path: string): Effect.Effect<void, LockError, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    attempt(path, async () => {
      const file = await pathOf(path)
      const text = `${JSON.stringify(self())}\n`
      const status = await take(file, text)
      if (status !== undefined) throw refusal(path, file, status)
      return { file, text }
    }),
    ({ file, text }) =>
      Effect.ignore(attempt(path, async () => {
        // Another process may have taken the lock over, for example after the host name changed. That lock stays.
        if (await textOf(file) === text) await unlink(file)
      }))
  ))

/** Reads the lock of an output file. Changes nothing. */
export const look = async (path: string): Promise<Status> => judge(await textOf(await pathOf(path)))

const attempt = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, LockError> =>
  Effect.tryPromise({
    try: run,
    catch: (error) => error instanceof LockError ? error : new LockError({ path, why: SystemError.describe(error) })
  })

/** The path of the lock. A link to a file has the lock of that file. */
const pathOf = async (path: string): Promise<string> => {
  const real = await realpath(path).catch(async () => join(await realpath(dirname(path)), basename(path)))
  return `${real}.lock`
}

const refusal = (path: string, file: string, status: Status): LockError => {
  const { owner } = status._tag === "free" ? { owner: undefined } : status
  if (owner === undefined) {
    return new LockError({ path, why: `its lock cannot be read. If no run writes it, delete ${Terminal.escape(file)}` })
  }
  const process = `process ${owner.pid}`
  return new LockError({
    path,
    why: owner.host === hostname()
      ? `another run writes it (${process})`
      : `another run writes it (${process} on ${Terminal.escape(owner.host)}). If that run has ended, delete ` +
        Terminal.escape(file)
  })
}

// ---------- taking

/** Takes the lock, or returns the status of the lock that another process holds. */
const take = async (file: string, text: string): Promise<Status | undefined> => {
  if (await create(file, text)) return undefined
  const found = await textOf(file)
  const status = judge(found)
  if (status._tag !== "stale") return status._tag === "free" ? await take(file, text) : status
  // Two processes may find the same stale lock. If both delete and create it, both succeed, one after the other. So only the
  // process that holds a second lock may replace the first, after reading it again.
  const second = `${file}.take`
  if (!await create(second, text)) return await afterOther(second, file, text)
  try {
    if (await textOf(file) === found) await unlink(file)
    return await create(file, text) ? undefined : judge(await textOf(file))
  } finally {
    await unlink(second)
  }
}

/** Handles a second lock of another process. If that process was killed, the user has to delete its second lock. */
const afterOther = async (second: string, file: string, text: string): Promise<Status | undefined> => {
  const status = judge(await textOf(second))
  if (status._tag === "free") return await take(file, text)
  if (status._tag === "held") return status
  throw new LockError({
    path: file,
    why: `a run was killed while it took it over. Delete ${Terminal.escape(second)}`
  })
}

/** Creates a file with this content in one step, so that no other process sees a part of it. */
const create = async (file: string, text: string): Promise<boolean> => {
  const temporary = `${file}.${randomUUID().slice(0, 8)}`
  try {
    await writeFile(temporary, text, { flag: "wx" })
    await link(temporary, file)
    return true
  } catch (error) {
    const code = SystemError.codeOf(error) ?? ""
    if (code === "EEXIST") return false
    // Some file systems have no links. There another process may see the lock before its content, and wait for it.
    if (linkless.has(code)) return await createInPlace(file, text)
    throw error
  } finally {
    await rm(temporary, { force: true })
  }
}

const linkless = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"])

const createInPlace = async (file: string, text: string): Promise<boolean> => {
  try {
    await writeFile(file, text, { flag: "wx" })
    return true
  } catch (error) {
    if (SystemError.codeOf(error) === "EEXIST") return false
    throw error
  }
}

// ---------- judging

const textOf = async (file: string): Promise<string | undefined> => {
  try {
    return await readFile(file, "utf8")
  } catch (error) {
    if (SystemError.codeOf(error) === "ENOENT") return undefined
    throw error
  }
}

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Owner))

const judge = (text: string | undefined): Status => {
  if (text === undefined) return { _tag: "free" }
  const decoded = decode(text)
  if (decoded._tag === "None") return { _tag: "held", owner: undefined }
  const owner = decoded.value
  return { _tag: isGone(owner) ? "stale" : "held", owner }
}

/** Whether the process has ended. A process of another host cannot be checked, so it counts as running. */
const isGone = ({ boot, host, pid, start }: Owner): boolean => {
  if (host !== hostname()) return false
  // The machine has been restarted.
  if (boot !== bootId()) return true
  return !isRunning(pid) || startOf(pid) !== start
}

const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    // A process of another user runs, but cannot be signalled.
    return SystemError.codeOf(error) === "EPERM"
  }
}

const self = (): Owner => {
  const start = startOf(process.pid)
  const boot = bootId()
  return {
    pid: process.pid,
    ...(start === undefined ? {} : { start }),
    ...(boot === undefined ? {} : { boot }),
    host: hostname()
  }
}

const readProc = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return undefined
  }
}

/**
 * The start time of a process: field 22 of its `stat`. `undefined` without /proc, and for a zombie. The name in field 2 can have
 * spaces and brackets.
 */
const startOf = (pid: number): string | undefined => {
  const text = readProc(`/proc/${pid}/stat`)
  const fields = text?.slice(text.lastIndexOf(")") + 2).split(" ") ?? []
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19]
}

const bootId = (): string | undefined => readProc("/proc/sys/kernel/random/boot_id")?.trim()
