import type { FileHandle } from "node:fs/promises"
import { open } from "node:fs/promises"
import * as SystemError from "../SystemError.ts"

/** Opens a file to read, and closes it again. `undefined` if there is none. */
export const read = async <A>(path: string, use: (handle: FileHandle) => Promise<A>): Promise<A | undefined> => {
  const handle = await open(path).catch((error: unknown) => {
    if (SystemError.codeOf(error) === "ENOENT") return undefined
    throw error
  })
  if (handle === undefined) return undefined
  try {
    return await use(handle)
  } finally {
    await handle.close()
  }
}
