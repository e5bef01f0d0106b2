import { assert, describe, it, layer } from "@effect/vitest"
import * as LocalModel from "@sluice/local-model/LocalModel"
import { Context, Effect, Exit, Fiber, Layer, Schema, Scope } from "effect"
import { execFile } from "node:child_process"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { fileURLToPath } from "node:url"

const answer = (prompt: string) => LocalModel.LocalModel.use((model) => model.answer(prompt))

const letter = "Hello,\nmy lamp is broken. Please refund 12 EUR.\nBob"

/** Not a string, so the rules throw on it: the one way to kill the thread from outside. */
const poison = new Uint8Array(1) as unknown as string

layer(LocalModel.layer)("LocalModel", (it) => {
  it.effect("answers from its own thread, with estimated counts", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* answer(`Summarise: ${letter}`), {
        text: "my lamp is broken. Please refund 12 EUR.",
        inputTokens: 16,
        outputTokens: 10
      })
    }))

  it.effect("gives each of many callers the answer to what it asked", () =>
    Effect.gen(function*() {
      const answers = yield* Effect.forEach(
        Array.from({ length: 50 }, (_, i) => `Summarise: Please refund ${i} EUR.`),
        (prompt) => Effect.map(answer(prompt), ({ text }) => `Summarise: ${text}` === prompt),
        { concurrency: "unbounded" }
      )
      assert.isTrue(answers.every((right) => right))
    }))

  it.effect("gives the same bytes for the same prompt, whatever came between, on this thread and on another", () =>
    Effect.gen(function*() {
      const prompt = `${letter}\nThe FrobMaster-3000 wasn't zorblaxed by A.B.C. at frob.example.`
      const first = yield* answer(prompt)
      yield* answer("frobmaster-3000 FROBMASTER zorblaxed Zorblaxed ZORBLAXED a.b.c. Frob.Example http://frob.example")
      assert.deepStrictEqual(yield* answer(prompt), first)
      assert.deepStrictEqual(yield* answer(prompt).pipe(Effect.provide(Layer.fresh(LocalModel.layer))), first)
    }))

  it.effect("refuses a prompt over 64 KiB of UTF-8, and says what is allowed", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.flip(answer("é".repeat(LocalModel.maxInputBytes / 2 + 1)))
      assert.deepInclude(refused, { _tag: "InputTooLarge", bytes: 65_538, allowedBytes: 65_536 })
      assert.include(refused.message, "65538")
      assert.include(refused.message, "65536")
    }))

  it.effect("answers a prompt of exactly 64 KiB", () =>
    Effect.gen(function*() {
      assert.isNotEmpty((yield* answer("é".repeat(LocalModel.maxInputBytes / 2))).text)
    }))

  it.effect("goes on when a caller leaves", () =>
    Effect.gen(function*() {
      const left = yield* Effect.forkChild(answer(letter), { startImmediately: true })
      const stayed = yield* Effect.forkChild(answer(letter), { startImmediately: true })
      yield* Fiber.interrupt(left)
      assert.include((yield* Fiber.join(stayed)).text, "lamp")
    }))

  it.effect("fails those who wait when its thread dies, and starts another for the next", () =>
    Effect.gen(function*() {
      const [killed, waiting] = yield* Effect.all([Effect.flip(answer(poison)), Effect.flip(answer(letter))], {
        concurrency: "unbounded"
      })
      assert.deepInclude(killed, { _tag: "LocalModelStopped", why: "Died" })
      assert.deepInclude(waiting, { _tag: "LocalModelStopped", why: "Died" })
      assert.include(waiting.message, "next call")
      assert.include((yield* answer(letter)).text, "lamp")
    }))
})

describe("LocalModel", () => {
  it.effect("fails those who wait when its scope closes, and who comes later", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const model = Context.get(yield* Layer.buildWithScope(LocalModel.layer, scope), LocalModel.LocalModel)
      const waiting = yield* Effect.forkChild(Effect.flip(model.answer(letter)), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      assert.deepInclude(yield* Fiber.join(waiting), { _tag: "LocalModelStopped", why: "Closed" })
      assert.deepInclude(yield* Effect.flip(model.answer(letter)), { _tag: "LocalModelStopped", why: "Closed" })
    }))

  it("has errors that cross a wire", () => {
    for (const why of ["Died", "Closed"] as const) {
      const stopped = new LocalModel.LocalModelStopped({ why })
      const codec = Schema.toCodecJson(LocalModel.LocalModelStopped)
      assert.deepStrictEqual(Schema.decodeSync(codec)(Schema.encodeSync(codec)(stopped)), stopped)
    }
  })

  it("says of itself that it is no language model", () => {
    assert.include(LocalModel.describe, "not a language model")
  })
})

describe("LocalModel beside other work", () => {
  // A busy machine can delay any one try, so the best of three counts.
  const bestOfThree = <E, R>(measure: Effect.Effect<{ readonly millis: number; readonly delay: number }, E, R>) =>
    Effect.map(Effect.all([measure, measure, measure]), (tries) => ({
      millis: Math.min(...tries.map(({ millis }) => millis)),
      delay: Math.min(...tries.map(({ delay }) => delay))
    }))

  const measured = (prompt: string) =>
    Effect.gen(function*() {
      const loop = monitorEventLoopDelay({ resolution: 1 })
      loop.enable()
      yield* Effect.sleep("5 millis")
      const before = performance.now()
      yield* Effect.exit(answer(prompt))
      const millis = performance.now() - before
      yield* Effect.sleep("5 millis")
      loop.disable()
      return { millis, delay: loop.max / 1e6 }
    })

  it.live("never holds up the main loop, not even to start", () =>
    Effect.gen(function*() {
      const { delay } = yield* bestOfThree(measured(letter).pipe(Effect.provide(Layer.fresh(LocalModel.layer))))
      assert.isBelow(delay, 50)
    }))

  it.live.each([200_000, 65_536])(
    "answers or refuses %d letters without a space within 100 ms",
    (letters) =>
      Effect.gen(function*() {
        yield* answer(letter)
        const { delay, millis } = yield* bestOfThree(measured("a".repeat(letters)))
        assert.isBelow(millis, 100)
        assert.isBelow(delay, 50)
      }).pipe(Effect.provide(LocalModel.layer))
  )
})

describe("LocalModel in a process of its own", () => {
  const run = (script: string) =>
    Effect.callback<string, Error>((resume) => {
      const child = execFile(
        process.execPath,
        ["--conditions=@sluice/source", "--input-type=module", "--eval", script],
        { cwd: fileURLToPath(new URL("..", import.meta.url)), timeout: 20_000 },
        (error, stdout) => resume(error === null ? Effect.succeed(stdout.trim()) : Effect.fail(error))
      )
      return Effect.sync(() => child.kill())
    })

  it.live("keeps the process alive for an answer and not a moment longer", () =>
    Effect.gen(function*() {
      const printed = yield* run(`
        import { LocalModel } from "@sluice/local-model"
        import { Effect } from "effect"
        const forever = LocalModel.LocalModel.use((model) => model.answer("Extract: 5 EUR")).pipe(
          Effect.tap(({ text }) => Effect.sync(() => console.log(text))),
          Effect.andThen(Effect.never),
          Effect.provide(LocalModel.layer)
        )
        Effect.runFork(forever)
      `)
      assert.strictEqual(printed, `{"amounts":["5 EUR"],"dates":[],"emails":[],"orders":[]}`)
    }), 30_000)

  it.live("loads nothing of wink on the main thread", () =>
    Effect.gen(function*() {
      const printed = yield* run(`
        import { LocalModel } from "@sluice/local-model/LocalModel"
        import { Effect } from "effect"
        import { createRequire } from "node:module"
        await Effect.runPromise(LocalModel.use((model) => model.answer("hi")).pipe(
          Effect.provide((await import("@sluice/local-model/LocalModel")).layer)
        ))
        const loaded = Object.keys(createRequire(import.meta.url).cache)
        console.log(loaded.filter((file) => file.includes("wink")).length)
      `)
      assert.strictEqual(printed, "0")
    }), 30_000)
})
