/**
 * The privacy run: the suites of the published packages with a tracer, a metric registry and a log of every level. A test that shows a
 * key or a prompt fails.
 *
 * It is not part of the ordinary run. The code makes spans only with a tracer, and has to work without one too.
 */
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import { ordinaryWords } from "./test/privacy/ordinaryWords.ts"
import { privacy } from "./test/privacy/plugin.ts"
import { Summary } from "./test/privacy/Summary.ts"
import workspace, { project, setupFiles } from "./vitest.workspace.ts"

export default defineConfig({
  ...workspace,
  plugins: [privacy()],
  test: {
    ...workspace.test,
    setupFiles: [...setupFiles, fileURLToPath(new URL("test/privacy/setup.ts", import.meta.url))],
    // These run the code in other processes, whose logs, spans and metrics are not observed, wait for servers that fail, or only count:
    // simulated limits, and stores that are wrong on purpose.
    exclude: [
      "**/millionKeys.test.ts",
      "**/bin.test.ts",
      "**/test/{batch,e2e,fleet}/**",
      "**/serve/{batches,changes,dedupe,drain,endurance,events,flood,hung,keysPostgres,kill,logs,reload}.test.ts",
      "**/serve/{page*,security*,serve,store,telemetry}.test.ts",
      "**/{faultTable,flightFaults,flightProcesses,kill,processes,quotaProcesses,soak}.test.ts",
      "**/{Quota.simulation,*.wrong}.test.ts"
    ],
    provide: { ordinaryWords: ordinaryWords() },
    reporters: ["default", new Summary()],
    // Each file in modules of its own. Otherwise a key of one file, such as "1", is searched in what the next one shows.
    projects: ["core", "ai", "redis", "sql", "batch", "local-model", "testing", "cli"].map((name) =>
      project(name, true)
    )
  }
})
