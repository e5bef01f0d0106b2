import { assert, describe, it, layer } from "@effect/vitest"
import * as LocalModel from "@sluice/local-model/LocalModel"
import { Context, Effect, Exit, Fiber, Layer, Schema, Scope } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { vi } from "vitest"

// Worker threads and processes start slowly on a busy machine.
vi.setConfig({ testTimeout: 90_000 })

const answer = (prompt: string) => LocalModel.LocalModel.use((model) => model.answer(prompt))

const letter = "Hello,\nmy lamp is broken. Please refund 12 EUR.\nBob"

/** Not a string, so the rules throw, which kills the thread. */
const poison = new Uint8Array(1) as unknown as string

layer(LocalModel.layer)("LocalModel", (it) => {
  it.effect("an answer has a text and estimated token counts", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* answer(`Summarise: ${letter}`), {
        text: "my lamp is broken. Please refund 12 EUR.",
        inputTokens: 16,
        outputTokens: 10
      })
    }))

  it.effect("each of 50 concurrent callers gets its own answer", () =>
    Effect.gen(function*() {
      const answers = yield* Effect.forEach(
        Array.from({ length: 50 }, (_, i) => `Summarise: Please refund ${i} EUR.`),
        (prompt) => Effect.map(answer(prompt), ({ text }) => `Summarise: ${text}` === prompt),
        { concurrency: "unbounded" }
      )
      assert.isTrue(answers.every((isOwn) => isOwn))
    }))

  it.effect("the same prompt gets the same bytes, after other prompts and on another thread", () =>
    Effect.gen(function*() {
      const prompt = `${letter}\nThe FrobMaster-3000 wasn't zorblaxed by A.B.C. at frob.example.`
      const first = yield* answer(prompt)
      yield* answer("frobmaster-3000 FROBMASTER zorblaxed Zorblaxed ZORBLAXED a.b.c. Frob.Example http://frob.example")
      assert.deepStrictEqual(yield* answer(prompt), first)
      assert.deepStrictEqual(yield* answer(prompt).pipe(Effect.provide(Layer.fresh(LocalModel.layer))), first)
    }))

  it.effect("a prompt over 64 KiB of UTF-8 fails with InputTooLarge, which has both sizes", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.flip(answer("é".repeat(LocalModel.maxInputBytes / 2 + 1)))
      assert.deepInclude(refused, { _tag: "InputTooLarge", bytes: 65_538, allowedBytes: 65_536 })
      assert.include(refused.message, "65538")
      assert.include(refused.message, "65536")
    }))

  it.effect("a prompt of exactly 64 KiB is answered", () =>
    Effect.gen(function*() {
      assert.isNotEmpty((yield* answer("é".repeat(LocalModel.maxInputBytes / 2))).text)
    }))

  it.effect("an interrupted call does not affect other calls", () =>
    Effect.gen(function*() {
      const interrupted = yield* Effect.forkChild(answer(letter), { startImmediately: true })
      const other = yield* Effect.forkChild(answer(letter), { startImmediately: true })
      yield* Fiber.interrupt(interrupted)
      assert.include((yield* Fiber.join(other)).text, "lamp")
    }))

  it.effect("waiting calls fail with Died if the thread dies, and the next call starts a new thread", () =>
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
  it.effect("waiting and later calls fail with Closed after the scope is closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const model = Context.get(yield* Layer.buildWithScope(LocalModel.layer, scope), LocalModel.LocalModel)
      const waiting = yield* Effect.forkChild(Effect.flip(model.answer(letter)), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      assert.deepInclude(yield* Fiber.join(waiting), { _tag: "LocalModelStopped", why: "Closed" })
      assert.deepInclude(yield* Effect.flip(model.answer(letter)), { _tag: "LocalModelStopped", why: "Closed" })
    }))

  it("LocalModelStopped can be encoded to JSON and decoded", () => {
    for (const why of ["Died", "Closed"] as const) {
      const stopped = new LocalModel.LocalModelStopped({ why })
      const codec = Schema.toCodecJson(LocalModel.LocalModelStopped)
      assert.deepStrictEqual(Schema.decodeSync(codec)(Schema.encodeSync(codec)(stopped)), stopped)
    }
  })

  it("the description says that it is not a language model", () => {
    assert.include(LocalModel.describe, "not a language model")
  })
})

describe("LocalModel and long words", () => {
  it.live.each([200_000, 65_536])(
    "%d letters without a space are answered or refused within 5 seconds of the processor",
    (letters) =>
      Effect.gen(function*() {
        yield* answer(letter)
        const before = process.cpuUsage()
        yield* Effect.exit(answer("a".repeat(letters)))
        // A fraction of a second on an idle machine. wink-nlp would split the word in quadratic time.
        assert.isBelow(process.cpuUsage(before).user / 1_000, 5_000)
      }).pipe(Effect.provide(LocalModel.layer))
  )
})

describe("LocalModel in another process", () => {
  const run = (script: string) =>
    Effect.callback<string, Error>((resume) => {
      const child = execFile(
        process.execPath,
        ["--conditions=@sluice/source", "--input-type=module", "--eval", script],
        { cwd: fileURLToPath(new URL("..", import.meta.url)), timeout: 60_000 },
        (error, stdout) => resume(error === null ? Effect.succeed(stdout.trim()) : Effect.fail(error))
      )
      return Effect.sync(() => child.kill())
    })

  it.live("the thread keeps the process alive until the answer, and not longer", () =>
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
    }))

  it.live("wink-nlp is not loaded on the main thread", () =>
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
    }))
})
