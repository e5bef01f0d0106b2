import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Effect, Fiber } from "effect"
import { renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { folder } from "../support/files.ts"
import { ask, start } from "../support/gateway.ts"
import { requests, says } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"
import { until, within } from "../support/witness.ts"

const provider = (name: string, pace?: LoopbackProvider.Pace) =>
  LoopbackProvider.make({ apiKey: false, pace, answer: () => Effect.succeed({ text: name }) })

/** Files that are unusable, some of them as a program leaves them that writes in pieces. */
const unusable = (url: string): ReadonlyArray<string> => [
  "",
  `{"serve":{"target":["a=${url.slice(0, -9)}`,
  `{"serve":{"target":[]}}`,
  `{"serve":{"target":["a=ftp://x"]}}`,
  `{"serve":{"target":["a=${url}"],"models":{"m":["none"]}}}`,
  `{"serve":{"tagret":["a=${url}"]}}`
]

describe("the settings of a gateway that runs", { timeout: processTimeout }, () => {
  it.live("a changed file is taken over, and a call that runs keeps its target", () =>
    Effect.gen(function*() {
      const slow = yield* provider("slow", { firstTokenMillis: 3_500 })
      const quick = yield* provider("quick")
      const directory = yield* folder
      const write = (serve: unknown) => writeFileSync(join(directory, "sluice.json"), JSON.stringify({ serve }))
      write({ target: [`a=${slow.url}`] })
      const gateway = yield* start(directory, [])
      const before = yield* Effect.forkChild(ask(gateway, gateway.token))
      yield* requests(slow, 1)
      write({ target: [`b=${quick.url}`] })
      yield* says(gateway.command, "reloaded")
      const after = yield* ask(gateway, gateway.token)
      assert.include(after.text, "quick")
      const { status, text } = yield* Fiber.join(before)
      assert.strictEqual(status, 200, text)
      assert.include(text, "slow")
    }))

  it.live("no call is lost while the settings are read again and again", () =>
    Effect.gen(function*() {
      const own = yield* provider("own", { firstTokenMillis: 20, tokenMillis: 5 })
      const directory = yield* folder
      writeFileSync(join(directory, "sluice.json"), JSON.stringify({ serve: { target: [`a=${own.url}`] } }))
      const gateway = yield* start(directory, [])
      const reload = Effect.sync(() => gateway.command.process.kill("SIGHUP"))
      const reloads = yield* Effect.forkChild(Effect.forever(Effect.andThen(reload, Effect.sleep(30))))
      const answers = yield* Effect.forEach(
        Array.from({ length: 60 }),
        (_, n) => ask(gateway, gateway.token, { stream: n % 2 === 0 }),
        { concurrency: 6 }
      )
      yield* Fiber.interrupt(reloads)
      assert.deepStrictEqual([...new Set(answers.map(({ status }) => status))], [200])
      assert.isTrue(answers.every(({ text }, n) => text.includes(n % 2 === 0 ? "[DONE]" : "own")))
      gateway.command.process.kill("SIGTERM")
      const { code, stderr } = yield* Effect.promise(() => gateway.command.ended)
      assert.strictEqual(code, 0)
      assert.isAbove(stderr.split("\"reloaded\"").length, 3)
    }))

  it.live("a file that changes 20 times under load, at times to an unusable one, loses and misleads no call", () =>
    Effect.gen(function*() {
      // Calls run while the settings change.
      const own = yield* provider("own", { firstTokenMillis: 100, tokenMillis: 20 })
      const directory = yield* folder
      const path = join(directory, "sluice.json")
      // The name of the target is the number of the version, so that an answer tells which one it is of.
      const write = (version: number) => {
        const text = JSON.stringify({ serve: { target: [`v${version}=${own.url}#m${version}`] } })
        // As an editor does, and as Kubernetes does.
        if (version % 2 === 0) writeFileSync(path, text)
        else {
          writeFileSync(`${path}.new`, text)
          renameSync(`${path}.new`, path)
        }
      }
      write(0)
      const gateway = yield* start(directory, [])
      let written = 0
      let applied = 0
      let isOver = false
      const wrong: Array<string> = []
      let answered = 0
      const client = (n: number) =>
        Effect.gen(function*() {
          while (true) {
            if (isOver) return
            const oldest = applied
            const { headers, status, text } = yield* ask(gateway, gateway.token, { stream: n % 2 === 0 })
            answered++
            const [, version] = /^v(\d+)$/.exec(String(headers["x-sluice-target"])) ?? []
            const isWhole = text.includes(n % 2 === 0 ? "[DONE]" : "own")
            const isOfItsTime = Number(version) >= oldest && Number(version) <= written
            if (status !== 200 || !isWhole || !isOfItsTime) {
              wrong.push(`${status} v${version} ${oldest} ${written} ${text}`)
            }
          }
        })
      const clients = yield* Effect.forEach(
        Array.from({ length: 12 }),
        (_, n) => Effect.forkChild(client(n))
      )
      const hangUp = () => gateway.command.process.kill("SIGHUP")
      const invalid = unusable(own.url)
      for (let version = 1; version <= 20; version++) {
        if (version % 3 === 0) {
          writeFileSync(path, invalid[version / 3 - 1] ?? "")
          hangUp()
          yield* within("a refusal", says(gateway.command, "reload refused"))
        }
        written = version
        write(version)
        // The file is watched too.
        if (version % 5 !== 0) hangUp()
        yield* until(
          `version ${version} answers`,
          Effect.map(ask(gateway, gateway.token), ({ headers }) => headers["x-sluice-target"] === `v${version}`)
        )
        applied = version
      }
      isOver = true
      yield* within("the last answers", Effect.forEach(clients, (client) => Fiber.join(client)))
      assert.deepStrictEqual(wrong, [])
      assert.isAbove(answered, 40)
      assert.strictEqual((yield* ask(gateway, gateway.token)).headers["x-sluice-target"], "v20")
      gateway.command.process.kill("SIGTERM")
      const { code, stderr } = yield* Effect.promise(() => gateway.command.ended)
      assert.strictEqual(code, 0, stderr)
    }))

  it.live("an open circuit and the use of a limit outlast a reload", () =>
    Effect.gen(function*() {
      const down = yield* LoopbackProvider.make({ apiKey: false, turns: () => Turn.status(503) })
      const own = yield* provider("own")
      const directory = yield* folder
      const serve = {
        target: [`a=${down.url}`, `b=${own.url}`],
        models: { x: ["a"], y: ["b"] },
        rpm: ["b=1"],
        maxAttempts: 5
      }
      writeFileSync(join(directory, "sluice.json"), JSON.stringify({ serve }))
      const gateway = yield* start(directory, [])
      const statusOf = (model: string) => Effect.map(ask(gateway, gateway.token, { model }), ({ status }) => status)
      assert.isAtLeast(yield* statusOf("x"), 500)
      assert.strictEqual(yield* statusOf("y"), 200)
      gateway.command.process.kill("SIGHUP")
      yield* says(gateway.command, "reloaded")
      const sent = (yield* down.journal).length
      assert.strictEqual(sent, 5)
      assert.isAtLeast(yield* statusOf("x"), 500)
      assert.strictEqual((yield* down.journal).length, sent)
      assert.isAtLeast(yield* statusOf("y"), 400)
      assert.strictEqual((yield* own.journal).length, 1)
    }))

  it.live("an unusable file changes nothing, and the log names what is wrong without values", () =>
    Effect.gen(function*() {
      const own = yield* provider("own")
      const directory = yield* folder
      const path = join(directory, "sluice.json")
      writeFileSync(path, JSON.stringify({ serve: { target: [`a=${own.url}`] } }))
      const gateway = yield* start(directory, [])
      const refusals: ReadonlyArray<readonly [string, string]> = [
        [
          `{"serve":{"tagret":["a=http://secret-canary@x"]}}`,
          "unknown key tagret in serve of sluice.json; did you mean target?"
        ],
        [`{"serve":{"target":[{"name":"a","url":"http://127.0.0.1:1","key":"secret-canary"}]}}`, "as ${NAME}"],
        [`{"serve":{"target":[{"name":"a","url":"http://127.0.0.1:1","key":"\${NOT_SET}"}]}}`, "NOT_SET is not set"],
        [`{"serve":{"target":[{"name":"a","ulr":"secret-canary"}]}}`, "did you mean url?"],
        [`{"serve":[1]}`, "serve in sluice.json must be an object"],
        [`{"serve":`, "must be one JSON object"]
      ]
      for (const [text, problem] of refusals) {
        writeFileSync(path, text)
        gateway.command.process.kill("SIGHUP")
        yield* says(gateway.command, problem)
      }
      const { status, text } = yield* ask(gateway, gateway.token)
      assert.strictEqual(status, 200)
      assert.include(text, "own")
      gateway.command.process.kill("SIGTERM")
      const { stderr } = yield* Effect.promise(() => gateway.command.ended)
      assert.notInclude(stderr, "secret-canary")
    }))
})
