/**
 * The privacy run: the suites of what we publish once more, with a tracer, a metric registry and a log of every level. Whatever
 * the tests hand in as a key or as a prompt is a canary; a test that shows one fails.
 *
 * A run of its own, not a part of the ordinary one: spans are made only where there is a tracer, and both ways must work.
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
    // Half of the time the tests wait for something. One worker more than there are cores takes half as long as one less.
    maxWorkers: 3,
    setupFiles: [...setupFiles, fileURLToPath(new URL("test/privacy/setup.ts", import.meta.url))],
    // What they run is in processes of its own, which nobody watches.
    exclude: [
      "**/millionKeys.test.ts",
      "**/bin.test.ts",
      "**/e2e/demo.test.ts",
      "**/processes.test.ts",
      "**/soak.test.ts"
    ],
    provide: { ordinaryWords: ordinaryWords() },
    reporters: ["default", new Summary()],
    projects: ["core", "ai", "redis", "local-model", "testing", "cli"].map(project)
  }
})
