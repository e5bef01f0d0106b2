import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Option, Stream } from "effect"
import * as CallRecord from "../../src/run/CallRecord.ts"
import type { Sink } from "../../src/run/Completion.ts"
import { Completion } from "../../src/run/Completion.ts"
import type { Engine } from "../../src/run/Engine.ts"
import { InputError } from "../../src/run/Input.ts"
import type { Prompt } from "../../src/run/Prompt.ts"
import type { Turn } from "../../src/run/PromptState.ts"
import type { Result } from "../../src/run/Result.ts"
import { RunStopped } from "../../src/run/RunStopped.ts"
import type { Settings } from "../../src/run/Settings.ts"
import { Tally } from "../../src/run/Tally.ts"
import type { Signal } from "../../src/Signals.ts"
import { prompt } from "../support/engine.ts"
import { answered } from "../support/results.ts"

/** Only the settings that a completion reads. */
const settings = (concurrency: number, model: string | undefined): Settings =>
  ({ concurrency, omit: [], targets: [{ model }] }) as unknown as Settings

/** Writes each result a turn later. */
const sinkInto = (results: Array<Result>): Sink => ({
  push: ({ result }, _, _input, written) =>
    queueMicrotask(() => {
      results.push(result)
      written(undefined)
    }),
  settled: Effect.yieldNow
})

/** A run of prompts with a scripted engine and signals. */
const setUp = (
  count: number,
  concurrency: number,
  complete: Engine["complete"],
  stopped: Engine["stopped"] = Effect.never,
  end: Stream.Stream<never, InputError> = Stream.empty
) => {
  const first = Deferred.makeUnsafe<Signal>()
  const second = Deferred.makeUnsafe<Signal>()
  const results: Array<Result> = []
  const said: Array<string> = []
  const tally = new Tally()
  const completion = new Completion(
    settings(concurrency, "m"),
    Stream.concat(Stream.fromIterable(Array.from({ length: count }, (_, index) => prompt(index + 1))), end),
    { maxPrompts: 4 * concurrency, complete, stopped },
    sinkInto(results),
    tally,
    (text) => said.push(text)
  )
  return {
    completion,
    results,
    said,
    tally,
    run: completion.run({ first: Deferred.await(first), second: Deferred.await(second) }),
    signal: (signal: Signal) =>
      Effect.sync(() => Deferred.doneUnsafe(Deferred.isDoneUnsafe(first) ? second : first, Effect.succeed(signal)))
  }
}

const completed = ({ line }: Prompt) => {
  const result = answered({ line })
  return { result, record: new CallRecord.Trace(0).record(result) }
}

const settle = Effect.forEach(Array.from({ length: 200 }), () => Effect.yieldNow, { discard: true })

const linesOf = (results: ReadonlyArray<Result>) => results.map(({ line }) => line).sort((a, b) => a - b)

const tags = (results: ReadonlyArray<Result>) =>
  [...new Set(results.map((result) => result.status === "failed" ? result.error.tag : "ok"))].sort()

describe("Completion", () => {
  it.effect("a signal after the last line was read stops the prompts that wait for a turn", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      let sent = 0
      const { completion, results, run, said, signal, tally } = setUp(7, 2, (item) =>
        Effect.suspend(() => {
          sent++
          return Effect.as(Deferred.await(gate), completed(item))
        }))
      const running = yield* Effect.forkChild(run, { startImmediately: true })
      yield* settle
      yield* signal("SIGINT")
      yield* settle
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(yield* Fiber.join(running), Option.some<Signal>("SIGINT"))
      assert.strictEqual(sent, 2)
      yield* completion.writeUnfinished("the run was stopped by SIGINT")
      assert.deepStrictEqual(linesOf(results), [1, 2, 3, 4, 5, 6, 7])
      assert.deepStrictEqual(tags(results), ["NotSent", "ok"])
      assert.deepStrictEqual([tally.answered, tally.failed, tally.stopped, tally.running], [2, 5, 5, 0])
      assert.deepStrictEqual(said, ["\nFinishing running prompts. Press Ctrl-C again to stop now.\n"])
    }))

  it.effect("an error of the input lets running prompts finish, sends no others, and ends the run then", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const failure = new InputError({ path: "prompts.csv", why: "a quote is not closed" })
      const { completion, results, run, said } = setUp(
        5,
        2,
        (item) => Effect.as(Deferred.await(gate), completed(item)),
        Effect.never,
        Stream.fail(failure)
      )
      const running = yield* Effect.forkChild(Effect.flip(run), { startImmediately: true })
      yield* settle
      assert.isUndefined(running.pollUnsafe())
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(running), failure)
      yield* completion.writeUnfinished(failure.message)
      assert.deepStrictEqual(linesOf(results), [1, 2, 3, 4, 5])
      assert.deepStrictEqual(results.filter(({ status }) => status === "ok").map(({ line }) => line), [1, 2])
      assert.deepStrictEqual(said, ["\nThe input has an error. Finishing running prompts.\n"])
    }))

  it.effect.each(["SIGTERM", "SIGHUP"] as const)(
    "the message after %s does not mention Ctrl-C",
    (name) =>
      Effect.gen(function*() {
        const { run, said, signal } = setUp(1, 1, () => Effect.never)
        const running = yield* Effect.forkChild(run, { startImmediately: true })
        yield* settle
        yield* signal(name)
        yield* settle
        assert.strictEqual(said.length, 1)
        assert.notInclude(said[0], "Ctrl-C")
        yield* signal(name)
        assert.deepStrictEqual(yield* Fiber.join(running), Option.some<Signal>(name))
      })
  )

  it.effect("few prompts wait for their first attempt, and the next one begins as soon as one of them is sent", () =>
    Effect.gen(function*() {
      const turns: Array<Turn> = []
      const { run, tally } = setUp(100, 64, (_, turn) =>
        Effect.suspend(() => {
          if (turn !== undefined) turns.push(turn)
          turn?.waits()
          return Effect.never
        }))
      yield* Effect.forkChild(run, { startImmediately: true })
      yield* settle
      assert.deepStrictEqual([turns.length, tally.running], [8, 8])
      for (const turn of turns.slice(0, 3)) turn.sent()
      yield* settle
      assert.strictEqual(tally.running, 11)
      // A call of another line serves these, so they wait for no limit.
      const shared = setUp(100, 64, () => Effect.never)
      yield* Effect.forkChild(shared.run, { startImmediately: true })
      yield* settle
      assert.strictEqual(shared.tally.running, 64)
    }))

  it.effect("a second signal stops the run, and every line that was read has a result", () =>
    Effect.gen(function*() {
      const { completion, results, run, signal, tally } = setUp(100, 2, (_, turn) =>
        Effect.andThen(turn?.afterAttempt ?? Effect.void, Effect.never))
      const running = yield* Effect.forkChild(run, { startImmediately: true })
      yield* settle
      yield* signal("SIGINT")
      yield* signal("SIGINT")
      yield* Fiber.join(running)
      yield* completion.writeUnfinished("the run was stopped by SIGINT")
      const lines = linesOf(results)
      assert.isAbove(lines.length, 2)
      assert.deepStrictEqual(
        lines,
        lines.map((_, index) =>
          index + 1
        )
      )
      assert.deepStrictEqual(tags(results), ["Unfinished"])
      assert.isTrue(results.every(({ attempts }) => attempts === 1))
      assert.strictEqual(tally.running, 0)
    }))

  it.effect("a result that is being written when the run is interrupted is written once, and counted", () =>
    Effect.gen(function*() {
      const results: Array<Result> = []
      const writing: Array<() => void> = []
      const tally = new Tally()
      const first = yield* Deferred.make<Signal>()
      const second = yield* Deferred.make<Signal>()
      const completion = new Completion(
        settings(2, "m"),
        Stream.fromIterable([prompt(1), prompt(2)]),
        {
          maxPrompts: 8,
          complete: (item) => item.line === 1 ? Effect.succeed(completed(item)) : Effect.never,
          stopped: Effect.never
        },
        {
          push: ({ result }, _, _input, written) =>
            writing.push(() => {
              results.push(result)
              written(undefined)
            }),
          settled: Effect.sync(() => writing.splice(0).forEach((write) => write()))
        },
        tally,
        () => {}
      )
      const run = completion.run({ first: Deferred.await(first), second: Deferred.await(second) })
      const running = yield* Effect.forkChild(run, { startImmediately: true })
      yield* settle
      yield* Deferred.succeed(first, "SIGINT")
      yield* settle
      yield* Deferred.succeed(second, "SIGINT")
      yield* Fiber.join(running)
      assert.deepStrictEqual(linesOf(results), [1])
      const unfinished = yield* Effect.forkChild(completion.writeUnfinished("stopped"), { startImmediately: true })
      for (const write of writing) write()
      yield* Fiber.join(unfinished)
      assert.deepStrictEqual(linesOf(results), [1, 2])
      assert.deepStrictEqual(tags(results), ["Unfinished", "ok"])
      assert.deepStrictEqual([tally.answered, tally.failed], [1, 1])
    }))

  it.effect("a stop of the engine gives the lines that were read a result with its reason", () =>
    Effect.gen(function*() {
      const stopped = new RunStopped({ why: "Unusable", message: "the key was refused" })
      const stop = yield* Deferred.make<never, RunStopped>()
      const { completion, results, run } = setUp(
        5,
        1,
        (item) =>
          item.line === 3
            ? Effect.andThen(Deferred.fail(stop, stopped), Effect.never)
            : Effect.succeed(completed(item)),
        Deferred.await(stop)
      )
      assert.deepStrictEqual(yield* Effect.exit(run), Exit.fail(stopped))
      yield* completion.writeUnfinished(stopped.message)
      const failed = results.filter(({ status }) => status === "failed")
      assert.isAbove(failed.length, 0)
      for (const result of failed) {
        assert.include(result.status === "failed" ? result.error.message : "", "the key was refused")
      }
      assert.deepStrictEqual(linesOf(results), linesOf(results).map((_, index) => index + 1))
    }))

  it.effect("a stop of the engine while the input is read does not count as an error of the input", () =>
    Effect.gen(function*() {
      const stop = yield* Deferred.make<never, RunStopped>()
      const { completion, run, said } = setUp(1, 1, () => Effect.never, Deferred.await(stop), Stream.never)
      const running = yield* Effect.forkChild(Effect.exit(run))
      yield* settle
      yield* Deferred.fail(stop, new RunStopped({ why: "Unusable", message: "no such model" }))
      const exit = yield* Fiber.join(running)
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual(said, [])
      yield* completion.writeUnfinished("no such model")
    }))

  it.effect("a line without a model is given a result as well", () =>
    Effect.gen(function*() {
      const results: Array<Result> = []
      const completion = new Completion(
        settings(1, undefined),
        Stream.fromIterable([{ ...prompt(1), model: "own" }, prompt(2)]),
        { maxPrompts: 4, complete: (item) => Effect.succeed(completed(item)), stopped: Effect.never },
        sinkInto(results),
        new Tally(),
        () => {}
      )
      const exit = yield* Effect.exit(completion.run({ first: Effect.never, second: Effect.never }))
      assert.isTrue(Exit.isFailure(exit))
      yield* completion.writeUnfinished("line 2 names no model")
      assert.deepStrictEqual(linesOf(results), [1, 2])
    }))
})
