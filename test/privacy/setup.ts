/** Fails every test that shows a secret. */
import childProcess from "node:child_process"
import { syncBuiltinESMExports } from "node:module"
import { afterEach, inject } from "vitest"
import { counts, leaks, setOrdinary, show } from "./secrets.ts"

declare module "vitest" {
  interface TaskMeta {
    privacy?: { readonly shown: number; readonly secrets: number }
  }
  interface ProvidedContext {
    readonly ordinaryWords: ReadonlyArray<string>
  }
}

setOrdinary(inject("ordinaryWords"))

// The command runs in another process. Its messages for people are on standard error.
const { spawn } = childProcess
childProcess.spawn = ((...args: Parameters<typeof spawn>) => {
  const child = spawn(...args)
  child.stderr?.on("data", (data: unknown) => show("standard error", String(data)))
  return child
}) as typeof spawn
syncBuiltinESMExports()

afterEach(({ task }) => {
  task.meta.privacy = counts()
  const found = leaks()
  if (found.length > 0) throw new Error(["a key or a prompt was leaked", ...found].join("\n"))
})
