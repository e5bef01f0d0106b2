import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

const comments = /\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm
const texts = /"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`/g

/** The words in the string literals of our sources, without the names in addresses. */
export const ordinaryWords = (): ReadonlyArray<string> => {
  const words = new Set<string>()
  for (const file of globSync("packages/*/src/**/*.ts", { cwd: root })) {
    const code = readFileSync(join(root, file), "utf8").replaceAll(comments, "")
    for (const [text] of code.matchAll(texts)) {
      for (const [word] of text.matchAll(/(?<![.\w])[a-z]+(?![.]?\w)/g)) words.add(word)
    }
  }
  return [...words]
}
