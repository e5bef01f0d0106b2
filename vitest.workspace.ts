import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const root = fileURLToPath(new URL(".", import.meta.url))

// Tests run on the sources, without a build. Both settings are needed, since tests resolve through `ssr`.
const conditions = ["@sluice/source"]

// `npm test -- --project core` runs one of them.
const packages = ["core", "ai", "redis", "sql", "batch", "local-model", "testing", "cli", "bench"]

// Tests of these packages change nothing outside of themselves, so the files of a worker share its modules. That halves their
// time: a new process for each file would load Effect 130 times.
const shared = new Set(["core", "ai", "redis", "sql", "batch", "local-model", "testing"])

/** The tests of one package. */
export const project = (name: string, isolate = !shared.has(name)) => ({
  extends: true as const,
  root: `${root}packages/${name}`,
  test: { name, passWithNoTests: true, isolate }
})

export const setupFiles = [`${root}vitest.setup.ts`]

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles,
    // Tests that start servers and processes need up to 6 s if both cores are busy. Vitest's 5 s would fail them.
    testTimeout: 60_000,
    // The same machine runs the hooks. One builds and packs all packages.
    hookTimeout: 60_000,
    // Two more than there are cores, since tests of processes mostly wait. Vitest would use one less than there are.
    maxWorkers: availableParallelism() + 2,
    projects: [
      ...packages.map((name) => project(name)),
      // Tests of the documentation, the packed packages and the imports.
      { extends: true as const, root, test: { name: "repository" } }
    ]
  }
})
