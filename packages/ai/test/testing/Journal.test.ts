import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import { throughJson } from "../support/json.ts"

const at = (monotonic: number) => ({ epoch: 1_000_000 + monotonic, monotonic })

const entry = (n: number, received: number, ended: number, more: Partial<Journal.Entry> = {}): Journal.Entry => ({
  n,
  digest: "a",
  attempt: 1,
  model: "m",
  down: false,
  received: at(received),
  ended: at(ended),
  ending: "complete",
  inputTokens: 0,
  outputTokens: 0,
  open: 1,
  ...more
})

const refusedFor = (retryAfterMillis: number) => ({ retryAfterMillis, ending: "refused", status: 429 } as const)

const tooSoon = (...entries: ReadonlyArray<Journal.Entry>) => Journal.soonerThanRetryAfter(entries).map(({ n }) => n)

describe("Journal", () => {
  it("soonerThanRetryAfter finds the retries that came before their Retry-After", () => {
    assert.deepStrictEqual(tooSoon(entry(1, 0, 10, refusedFor(1000)), entry(2, 900, 950, { attempt: 2 })), [2])
    assert.deepStrictEqual(tooSoon(entry(1, 0, 10, refusedFor(1000)), entry(2, 1010, 1020, { attempt: 2 })), [])
    assert.deepStrictEqual(tooSoon(entry(1, 0, 10), entry(2, 11, 20, { attempt: 2 })), [])
  })

  it("soonerThanRetryAfter tolerates a timer that fires slightly early", () => {
    assert.deepStrictEqual(tooSoon(entry(1, 0, 10, refusedFor(1000)), entry(2, 1008.5, 1020, { attempt: 2 })), [])
  })

  it("soonerThanRetryAfter ignores the Retry-After of other prompts and other callers", () => {
    assert.deepStrictEqual(
      tooSoon(entry(1, 0, 10, refusedFor(1000)), entry(2, 500, 510, { digest: "b", attempt: 2 })),
      []
    )
    assert.deepStrictEqual(tooSoon(entry(1, 0, 10, refusedFor(1000)), entry(2, 500, 510)), [])
    const first = [entry(1, 0, 10, refusedFor(1000)), entry(2, 600, 610, refusedFor(1000))]
    assert.deepStrictEqual(
      tooSoon(...first, entry(3, 1100, 1200, { attempt: 2 }), entry(4, 1700, 1800, { attempt: 2 })),
      []
    )
    assert.deepStrictEqual(
      tooSoon(...first, entry(3, 1100, 1200, { attempt: 2 }), entry(4, 1200, 1300, { attempt: 2 })),
      [4]
    )
  })

  it("gaps returns the time before each retry", () => {
    const overlapping = [entry(1, 0, 10), entry(2, 5, 20, { digest: "b" }), entry(3, 110, 150), entry(4, 140, 160)]
    assert.deepStrictEqual(Journal.gaps(overlapping), [100, -10])
    assert.deepStrictEqual(Journal.gaps([]), [])
  })

  it("summary and lastByPrompt aggregate the entries", () => {
    const entries = [
      entry(1, 100, 110, { ...refusedFor(500), open: 2 }),
      entry(2, 120, 180, { digest: "b", ending: "cut", fault: "cut", inputTokens: 5, outputTokens: 2, open: 3 }),
      entry(3, 200, 210, { attempt: 2, inputTokens: 4, outputTokens: 6 }),
      entry(4, 220, 225, { digest: "c", down: true, ending: "refused", status: 503 }),
      { ...entry(5, 400, 0, { digest: "d", ending: "open" }), ended: undefined } as unknown as Journal.Entry
    ]
    assert.deepStrictEqual(Journal.summary(entries), {
      calls: 5,
      endings: { complete: 1, cut: 1, reset: 0, hang: 0, refused: 2, clientClosed: 0, open: 1 },
      whileDown: 1,
      soonerThanRetryAfter: 1,
      maxOpen: 3,
      tokensPaid: 17,
      millis: 300
    })
    assert.deepStrictEqual(Journal.summary([]).millis, 0)
    assert.deepStrictEqual(
      Array.from(Journal.lastByPrompt(entries), ([digest, { n }]) => [digest, n]),
      [["a", 3], ["b", 2], ["c", 4], ["d", 5]]
    )
  })

  it("an entry is unchanged after encoding and cloning", () => {
    const whole = entry(1, 0, 1, { prompt: "p", fault: "slowStart", status: 200, firstByte: at(0.5), answer: "x" })
    assert.deepStrictEqual(throughJson(Journal.Entry, whole), whole)
    assert.deepStrictEqual(structuredClone(whole), whole)
  })
})
