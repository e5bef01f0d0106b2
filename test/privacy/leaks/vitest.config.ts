/** The privacy run on tests that leak, each in another way. `test/privacy.test.ts` checks that each of them fails. */
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import privacy from "../../../vitest.privacy.ts"

const root = fileURLToPath(new URL(".", import.meta.url))

export default defineConfig({
  ...privacy,
  test: {
    ...privacy.test,
    projects: [{ extends: true, root, test: { name: "leaks", include: ["*.leak.ts"] } }]
  }
})
