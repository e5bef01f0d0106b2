/** Prints how much the privacy run has checked. A run without any output or secret fails, since it proves nothing. */
import type { Reporter, TestModule } from "vitest/node"

export class Summary implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>): void {
    let tests = 0
    let shown = 0
    let secrets = 0
    for (const module of modules) {
      let inModule = 0
      for (const test of module.children.allTests()) {
        const { privacy } = test.meta()
        if (privacy === undefined) continue
        tests++
        shown += privacy.shown
        inModule = Math.max(inModule, privacy.secrets)
      }
      secrets += inModule
    }
    process.stdout.write(
      `Privacy: searched ${shown} texts of logs, spans and metrics of ${tests} tests for ${secrets} keys and prompts\n`
    )
    if (shown > 0 && secrets > 0) return
    process.stdout.write("Privacy: there was nothing to search, so this run proves nothing\n")
    process.exitCode = 1
  }
}
