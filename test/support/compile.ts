import { execFile } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** An error of the compiler. */
export interface Complaint {
  /** The name of the file in the folder. */
  readonly file: string
  readonly line: number
  /** The code and the message, with all its lines. */
  readonly text: string
}

/** Compiles the TypeScript files of a folder with the options of this repository, and returns the errors. */
export const compile = async (folder: string): Promise<ReadonlyArray<Complaint>> => {
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({
      extends: relative(folder, join(root, "tsconfig.base.json")),
      compilerOptions: {
        types: ["node"],
        noEmit: true,
        composite: false,
        incremental: false,
        declaration: false,
        declarationMap: false,
        // An example may define what it does not use.
        noUnusedLocals: false
      },
      include: ["*.ts"]
    })
  )
  const tsc = join(root, "node_modules", ".bin", "tsc")
  const output = await outputOf(tsc, ["-p", folder, "--pretty", "false"], folder)
  const complaints = [...output.matchAll(/^(\S[^\n]*?)\((\d+),\d+\): (error [^\n]*(?:\n +[^\n]*)*)/gm)]
    .map(([, file = "", line, text = ""]) => ({ file, line: Number(line), text }))
  if (complaints.length === 0 && output.trim() !== "") throw new Error(output)
  return complaints
}

/** The standard output of a program, whatever its exit code. */
export const outputOf = async (program: string, args: ReadonlyArray<string>, cwd: string): Promise<string> => {
  try {
    return (await promisify(execFile)(program, [...args], { cwd, timeout: 110_000 })).stdout
  } catch (error) {
    if (error instanceof Error && "stdout" in error && typeof error.stdout === "string") return error.stdout
    throw error
  }
}
