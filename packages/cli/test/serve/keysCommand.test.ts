import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { refused } from "../support/command.ts"
import { folder } from "../support/files.ts"
import { keys } from "../support/gateway.ts"
import { processTimeout } from "../support/timeouts.ts"

describe("sluice keys", { timeout: processTimeout }, () => {
  it.live("add prints the token alone, list prints no token, and remove takes the key away", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      assert.include((yield* keys(directory, "list")).stderr, "no keys in")
      assert.isFalse(existsSync(join(directory, "sluice-keys.sqlite")), "list made a file")
      const limits = ["--rpm", "2k", "--tpm", "200k", "--max-cost-per-day", "5", "--models", "gpt-5*, claude-x"]
      const added = yield* keys(directory, "add", "ann", ...limits)
      assert.match(added.stdout, /^sluice_[0-9a-f]{12}_[\w-]{43}\n$/)
      assert.strictEqual(added.stderr.split("\n").length, 2)
      yield* keys(directory, "add", "ops", "--admin")
      const { stderr, stdout } = yield* keys(directory, "list")
      assert.strictEqual(stderr, "")
      assert.match(stdout, /^name +added +rpm +tpm +last 24 h +models\n/)
      assert.match(stdout, /\nann +\d{4}-\d\d-\d\d +2,000 +200,000 +\$0 of \$5\.00 +gpt-5\* claude-x\n/)
      assert.match(stdout, /\nops .* \(admin\) all\n$/)
      assert.isAtMost(Math.max(...stdout.split("\n").map(({ length }) => length)), 80)
      assert.notInclude(stdout, added.stdout.trim().slice(-43))
      assert.strictEqual((yield* keys(directory, "remove", "ann")).code, 0)
      refused(yield* keys(directory, "remove", "op"), "no key is named op; did you mean ops?")
    }))

  it.live("the file of sluice.json is used, as by the gateway", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      writeFileSync(join(directory, "sluice.json"), `{"serve":{"keys":"team.sqlite","port":1}}`)
      assert.strictEqual((yield* keys(directory, "add", "ann")).code, 0)
      assert.isTrue(existsSync(join(directory, "team.sqlite")))
    }))

  it.live("wrong uses are refused in one line", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      refused(yield* keys(directory, "ad", "ann"), "did you mean add?")
      refused(yield* keys(directory, "add"), "add needs a name: sluice keys add NAME")
      refused(yield* keys(directory, "list", "ann"), "list takes no name")
      refused(yield* keys(directory, "remove", "ann", "--rpm", "2"), "remove takes no limits")
      refused(yield* keys(directory, "add", "a b"), "NAME must have")
      refused(yield* keys(directory, "add", "ann", "--models", "a*b"), "with a * only at the end")
      yield* keys(directory, "add", "ann")
      refused(yield* keys(directory, "add", "ann"), "has a key named ann; remove that first")
    }))
})
