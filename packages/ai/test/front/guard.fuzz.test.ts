import { assert, describe, it } from "@effect/vitest"
import { Guard } from "../../src/internal/front/guard.ts"
import { cutAnywhere, makeStream, random } from "./streams.ts"

const streams = 20_000
const shards = 4

/** What the guard does with a stream whose connection is lost after some of its bytes, and what it should do. */
const run = (seed: number) => {
  const below = random(seed * 7919)
  // The first numbers of neighbouring seeds are alike.
  for (let i = 0; i < 5; i++) below(2)
  const made = makeStream(below)
  const bytes = Buffer.from(made.events.map(({ text }) => text).join(""))
  const lost = below(3) === 0 ? below(bytes.length + 1) : bytes.length

  const expected = { length: 0, hasOutput: false, isComplete: false, failure: undefined as string | undefined }
  let at = 0
  for (const { kind, text } of made.events) {
    at += Buffer.byteLength(text)
    // The line feed of the last line end may be missing.
    if (at > lost && !(made.isCrlf && at === lost + 1)) break
    if (kind === "Error" || kind === "Malformed") {
      expected.failure = kind
      break
    }
    expected.length = Math.min(at, lost)
    if (kind === "Output" || kind === "Finish") expected.hasOutput = true
    if (kind === "Finish") expected.isComplete = true
  }

  const guard = new Guard(made.wire, { choices: made.choices })
  const passed: Array<Uint8Array> = []
  for (const piece of cutAnywhere(bytes.subarray(0, lost), below)) {
    const out = guard.feed(piece)
    if (out !== undefined) passed.push(Uint8Array.from(out))
    // Whatever becomes of the piece must not change what was passed on.
    piece.fill(0)
  }
  const all = Buffer.concat(passed)
  return {
    expected,
    actual: {
      length: all.length,
      hasOutput: guard.hasOutput,
      isComplete: guard.isComplete,
      failure: guard.failure?._tag as string | undefined
    },
    isSame: all.equals(bytes.subarray(0, all.length)),
    events: made.events
  }
}

describe("Guard", () => {
  for (let shard = 0; shard < shards; shard++) {
    it(`passes on the bytes of whole events unchanged and knows how each stream ended, part ${shard + 1}`, () => {
      for (let seed = shard; seed < streams; seed += shards) {
        const { actual, events, expected, isSame } = run(seed)
        if (!isSame || JSON.stringify(actual) !== JSON.stringify(expected)) {
          assert.deepStrictEqual(
            { isSame, ...actual },
            { isSame: true, ...expected },
            `${seed}: ${JSON.stringify(events)}`
          )
        }
      }
    })
  }
})
