/** The lock of an output file, so that two runs never write it at once. It is a file beside it, with `.lock` at its end. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { link, readFile, realpath, unlink, writeFile } from "node:fs/promises"
import { hostname } from "node:os"
import { basename, dirname, join } from "node:path"
import * as Terminal from "../Terminal.ts"
import * as SystemError from "./SystemError.ts"

/** The process that holds a lock. */
export const Owner = Schema.Struct({
  pid: Schema.Int,
  /** When the process started, as the system counts it. It tells a process from a later one with the same number. */
  start: Schema.optionalKey(Schema.String),
  /** Identifies the time since the machine was started. */
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

/** `free`: no lock. `held`: its process runs, or may run. `stale`: its process is gone. */
export type Status =
  | { readonly _tag: "free" }
  | { readonly _tag: "held"; readonly owner: Owner | undefined }
  | { readonly _tag: "stale"; readonly owner: Owner }

/** Takes the lock of an output file until the scope closes. Fails if another run holds it. Takes over what a kill left. */
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
        // Not a lock that another process has taken over, such as after this machine was thought to be another.
        if (await textOf(file) === text) await unlink(file)
      }))
  ))

/** Looks at the lock of an output file. Changes nothing. */
export const look = async (path: string): Promise<Status> => judge(await textOf(await pathOf(path)))

const attempt = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, LockError> =>
  Effect.tryPromise({
    try: run,
    catch: (error) => error instanceof LockError ? error : new LockError({ path, why: SystemError.describe(error) })
  })

/** The lock of the file itself, also if the path is a link to it. */
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

/** Takes the lock, or returns who holds it. */
const take = async (file: string, text: string): Promise<Status | undefined> => {
  if (await create(file, text)) return undefined
  const found = await textOf(file)
  const status = judge(found)
  if (status._tag !== "stale") return status._tag === "free" ? await take(file, text) : status
  // Two processes may find the same stale lock. Deleting and creating it would let both win, one after the other. So only the
  // one that holds a second lock may replace it, after another look.
  const second = `${file}.take`
  if (!await create(second, text)) return await afterOther(second, file, text)
  try {
    if (await textOf(file) === found) await unlink(file)
    return await create(file, text) ? undefined : judge(await textOf(file))
  } finally {
    await unlink(second)
  }
}

/** Another process takes the lock over at this moment. If it was killed while it did, its second lock has to be deleted. */
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
  await writeFile(temporary, text, { flag: "wx" })
  try {
    await link(temporary, file)
    return true
  } catch (error) {
    const code = SystemError.codeOf(error) ?? ""
    if (code === "EEXIST") return false
    // Some file systems have no links. There another process may see the lock before its content, and wait for it.
    if (linkless.has(code)) return await createInPlace(file, text)
    throw error
  } finally {
    await unlink(temporary)
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

/** Whether the process has ended. A process of another host cannot be seen, so it counts as running. */
const isGone = ({ boot, host, pid, start }: Owner): boolean => {
  if (host !== hostname()) return false
  // The machine was started again since.
  if (boot !== bootId()) return true
  return !isRunning(pid) || startOf(pid) !== start
}

const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    // A process of another user may not be signalled.
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
 * Field 22 of the process's status. `undefined` where there is no /proc, and for a process that has ended and whose parent has
 * not asked for its exit code. The name in field 2 can have spaces and brackets.
 */
const startOf = (pid: number): string | undefined => {
  const text = readProc(`/proc/${pid}/stat`)
  const fields = text?.slice(text.lastIndexOf(")") + 2).split(" ") ?? []
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19]
}

const bootId = (): string | undefined => readProc("/proc/sys/kernel/random/boot_id")?.trim()
