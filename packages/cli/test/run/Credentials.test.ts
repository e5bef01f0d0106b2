import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { AiError } from "effect/ai"
import { Credentials } from "../../src/run/Credentials.ts"
import { Fatal } from "../../src/run/Outage.ts"
import { noTurn, PromptState } from "../../src/run/PromptState.ts"
import type { Target } from "../../src/run/Settings.ts"
import { prompt } from "../support/engine.ts"

const target = (name: string, url = "https://one.example/v1"): Target => ({
  name,
  wire: "openai",
  url,
  model: "m",
  apiKey: undefined,
  keySource: `KEY_${name}`
})

const refusal = AiError.make({
  module: "Test",
  method: "streamText",
  reason: new AiError.AuthenticationError({ kind: "InvalidKey", description: "HTTP 401" })
})

const state = (line: number) => new PromptState(prompt(line), noTurn, 0)

const setUp = (...targets: readonly [Target, ...ReadonlyArray<Target>]) => {
  const fatal = new Fatal()
  const unusable: Array<string> = []
  const credentials = new Credentials(targets, fatal, (name, why) => unusable.push(`${name}: ${why}`))
  /** Why the run has stopped. Fails the test if it has not. */
  const stopped = Effect.map(Effect.flip(fatal.wait), ({ message, why }) => `${why}: ${message}`)
  return { credentials, fatal, stopped, unusable }
}

/** Whether the run has not stopped. */
const goesOn = ({ fatal }: ReturnType<typeof setUp>) =>
  Effect.map(Effect.raceFirst(Effect.exit(fatal.wait), Effect.yieldNow), (exit) => assert.isUndefined(exit))

describe("a credential that was good", () => {
  it.effect("the refusal of one prompt does not delay the others, and fails it alone", () =>
    Effect.gen(function*() {
      const one = target("one")
      const tested = setUp(one)
      const { credentials } = tested
      credentials.succeeded(one, 0)
      const own = state(2)
      assert.isAtMost(credentials.refused(one, refusal, own, 10, 20), 1)
      assert.isFalse(credentials.isOfPrompt(one, own))
      assert.strictEqual(credentials.mayAskIn(one, state(3), 20), 0)
      // Another prompt is answered with the same credential, and then this one is refused again.
      credentials.succeeded(one, 30)
      assert.isFalse(credentials.isOfPrompt(one, own))
      credentials.refused(one, refusal, own, 1_020, 1_030)
      assert.isTrue(credentials.isOfPrompt(one, own))
      yield* goesOn(tested)
    }))

  it("a prompt that is the only one left fails alone after three refusals", () => {
    const one = target("one")
    const { credentials } = setUp(one)
    credentials.succeeded(one, 0)
    const own = state(2)
    const verdicts = [10, 1_020, 3_030].map((now) => {
      credentials.refused(one, refusal, own, now, now + 1)
      return credentials.isOfPrompt(one, own)
    })
    assert.deepStrictEqual(verdicts, [false, false, true])
    assert.strictEqual(credentials.restsFor(one, state(3), 3_031), 1_000)
  })

  it.effect("a refused credential is tried by one prompt at a time, after 1, 2, 4 and 8 s, and then the run gives up", () =>
    Effect.gen(function*() {
      const one = target("one")
      const tested = setUp(one)
      const { credentials, stopped } = tested
      credentials.succeeded(one, 0)
      const [first, second, third] = [state(1), state(2), state(3)]
      credentials.refused(one, refusal, first, 10, 20)
      let now = 21
      const rests: Array<number> = []
      for (let times = 0; times < 4; times++) {
        assert.strictEqual(credentials.mayAskIn(one, second, now), 0)
        if (times > 0) assert.strictEqual(credentials.mayAskIn(one, third, now), 250)
        const rest = credentials.refused(one, refusal, second, now, now)
        credentials.ended(one, second)
        rests.push(rest)
        assert.strictEqual(credentials.mayAskIn(one, third, now + 1), rest - 1)
        // A call that was in flight is no further sign.
        assert.strictEqual(credentials.refused(one, refusal, third, now - 1, now), rest)
        assert.isFalse(credentials.isOfPrompt(one, second))
        assert.isTrue(credentials.mayRecover("one"))
        now += rest
      }
      assert.deepStrictEqual(rests, [1_000, 2_000, 4_000, 8_000])
      yield* goesOn(tested)
      credentials.refused(one, refusal, second, now, now)
      assert.match(
        yield* stopped,
        /^Unusable: .*KEY_one.*, 5 times in a row after answers; the remaining prompts were not sent$/
      )
      assert.isFalse(credentials.mayRecover("one"))
    }))

  it("an answer to a later attempt ends the backoff, and one to an earlier attempt does not", () => {
    const one = target("one")
    const { credentials } = setUp(one)
    credentials.succeeded(one, 0)
    credentials.refused(one, refusal, state(1), 10, 20)
    credentials.refused(one, refusal, state(2), 11, 21)
    credentials.succeeded(one, 15)
    const later = 1_100
    assert.strictEqual(credentials.mayAskIn(one, state(3), later), 0)
    assert.strictEqual(credentials.mayAskIn(one, state(4), later), 250)
    credentials.succeeded(one, later)
    assert.strictEqual(credentials.mayAskIn(one, state(4), later), 0)
    assert.strictEqual(credentials.mayAskIn(one, state(5), later), 0)
  })

  it.effect("another target stays in use, and the summary names the one that was given up", () =>
    Effect.gen(function*() {
      const [one, two] = [target("one"), target("two", "https://two.example/v1")]
      const tested = setUp(one, two)
      const { credentials, unusable } = tested
      credentials.succeeded(one, 0)
      let now = 10
      for (let times = 0; times < 6; times++) now += credentials.refused(one, refusal, state(times), now, now)
      assert.match(unusable.join("\n"), /^one: .*5 times in a row/)
      yield* goesOn(tested)
    }))
})

describe("a credential that has not answered", () => {
  it.effect("the first refusal of a credential stops the run", () =>
    Effect.gen(function*() {
      const one = target("one")
      const { credentials, stopped } = setUp(one)
      credentials.failed(one, refusal, state(1))
      assert.match(yield* stopped, /^Unusable: [^;]*KEY_one[^;]*$/)
    }))
})
