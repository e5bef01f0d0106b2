import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const root = fileURLToPath(new URL(".", import.meta.url))

// Tests run on the sources, without a build. Both settings are needed, since tests resolve through `ssr`.
const conditions = ["@sluice/source"]

// `npm test -- --project core` runs one of them.
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
      // Tests of the documentation and of the packed packages. They run after the others, since they use much CPU time and some
      // of the others measure time.
      { extends: true as const, root, test: { name: "repository", sequence: { groupOrder: 1 } } }
    ]
  }
})
