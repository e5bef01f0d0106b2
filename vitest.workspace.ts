import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const root = fileURLToPath(new URL(".", import.meta.url))

// Tests run on the sources: no build stands between a change and its test. Both places are needed, since tests resolve
// through `ssr`.
const conditions = ["@sluice/source"]

// The package name of a project is its folder's; `npm test -- --project core` runs one.
const packages = ["core", "ai", "redis", "local-model", "testing", "cli", "bench"]

/** The tests of one package. */
export const project = (name: string) => ({
  extends: true as const,
  root: `${root}packages/${name}`,
  test: { name, passWithNoTests: true }
})

export const setupFiles = [`${root}vitest.setup.ts`]

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles,
    projects: [
      ...packages.map(project),
      // What holds for the repository as a whole: its documentation, and its packages as others install them. It runs when
      // the others are done: it compiles a lot, and some of them look at times.
      { extends: true as const, root, test: { name: "repository", sequence: { groupOrder: 1 } } }
    ]
  }
})
