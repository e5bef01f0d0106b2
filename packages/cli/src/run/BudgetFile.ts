/**
 * The file beside results, with `.budget` at its end: how much the calls of a run with a budget may have cost in all. It is written
 * before they are sent. A resumed run counts what is not in the results, since a kill loses the cost of the calls that run.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { FileHandle } from "node:fs/promises"
import { constants, open as openFile, readFile, unlink } from "node:fs/promises"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"

/** Amounts in millionths of a dollar. */
const Mark = Schema.fromJsonString(Schema.Struct({
  version: Schema.Literal(1),
  /** Spent by calls whose cost is in no result. */
  lost: Schema.Int,
  /** The most that all runs may have spent, while one runs or after a kill. 0 after a run that ended. */
  atMost: Schema.Int
}))

type Mark = typeof Mark.Type

export class BudgetError extends Schema.Error<BudgetError>("sluice/BudgetError")({
  _tag: Schema.tag("BudgetError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot keep the budget in ${Terminal.escape(this.path)}: ${this.why}`
  }
}

export const pathOf = (results: string): string => `${results}.budget`

/** Reads what earlier runs may have spent beyond the costs in their results. */
export const lostOf = (results: string, inResults: number): Effect.Effect<number, BudgetError> => {
  const path = pathOf(results)
  return Effect.tryPromise({
    try: async () => {
      const text = await readFile(path, "utf8").catch((error: unknown) => {
        if (SystemError.codeOf(error) === "ENOENT") return undefined
        throw error
      })
      if (text === undefined) return 0
      const { atMost, lost } = Schema.decodeSync(Mark)(text)
      return Math.max(lost, atMost - inResults)
    },
    catch: (error) =>
      new BudgetError({
        path,
        why: SystemError.codeOf(error) === undefined
          ? "it is damaged. Delete it to count the results alone"
          : SystemError.describe(error)
      })
  })
}

/** Longer than any mark, and within one sector of a disk, which is written as a whole. */
const markBytes = 128

/** The file of a run. The lock of its results must be held. */
export class BudgetFile {
  private readonly path: string
  /** Spent by earlier runs, and in no result. */
  private readonly lost: number
  private handle: Promise<FileHandle> | undefined

  constructor(results: string, lost: number) {
    this.path = pathOf(results)
    this.lost = lost
  }

  /** Writes that so much may have been spent, and flushes it to the disk. */
  raise(atMost: number): Promise<void> {
    return this.write({ version: 1, lost: this.lost, atMost })
  }

  /** Writes what is in no result, or deletes the file if that is nothing. Then closes it. */
  async settle(lost: number): Promise<void> {
    await (lost > 0 ? this.write({ version: 1, lost, atMost: 0 }) : unlink(this.path).catch(() => {}))
    await (await this.handle)?.close()
    this.handle = undefined
  }

  private async write(mark: Mark): Promise<void> {
    try {
      // Keeps the content until it is overwritten, so that a kill in between leaves one of both.
      this.handle ??= openFile(this.path, constants.O_RDWR | constants.O_CREAT, 0o666)
      const handle = await this.handle
      await handle.write(Buffer.from(`${JSON.stringify(mark).padEnd(markBytes - 1)}\n`), 0, markBytes, 0)
      await handle.truncate(markBytes)
      await handle.datasync()
    } catch (error) {
      throw new BudgetError({ path: this.path, why: SystemError.describe(error) })
    }
  }
}
