import { assert, describe, it } from "@effect/vitest"
import type * as Journal from "@sluice/ai/testing/Journal"
import { Effect } from "effect"
import { allAnswered, lines, resultsIn } from "../support/files.ts"
import { run, setUp } from "../support/provider.ts"

/** For how many minutes, since the limits are those of minutes: SLUICE_MINUTES=10. Limits.test.ts has two short windows. */
const minutes = Number(process.env["SLUICE_MINUTES"] ?? 0)
const limit = { requests: 60, tokens: 3_000 }

const minuteMillis = 60_000

/** The most requests that arrived in any minute. Each of the fullest minutes begins with a request. */
const fullest = (starts: ReadonlyArray<number>): number =>
  Math.max(...starts.map((first) => starts.filter((start) => start >= first && start < first + minuteMillis).length))

const startsOf = (journal: ReadonlyArray<Journal.Entry>): ReadonlyArray<number> =>
  journal.map(({ received }) => received.monotonic)

describe.skipIf(minutes === 0)("sluice run --rpm --tpm, at a strict provider", { concurrent: true }, () => {
  it.live.each<"bucket" | "fixedWindow" | "log">(["bucket", "fixedWindow", "log"])(
    "starts the last call within 3 % of the least time at limits that are enforced by a %s, with no call too many",
    (enforcement) =>
      Effect.gen(function*() {
        const count = minutes * limit.requests
        const { env, prompts, provider, results } = yield* setUp(lines(count), {
          pace: { firstTokenMillis: 200, tokenMillis: 10, tokensPerChunk: 2 },
          answer: () => Effect.succeed({ text: "one two three four five six seven eight nine ten" }),
          limits: { requestsPerMinute: limit.requests, tokensPerMinute: limit.tokens, enforcement }
        })
        const flags = ["--rpm", String(limit.requests), "--tpm", String(limit.tokens), "--max-tokens", "12"]
        const { code, stderr } = yield* run([prompts, "-o", results, "--no-share", ...flags], env)
        assert.strictEqual(code, 0, stderr)
        allAnswered(resultsIn(results), count)
        const journal = yield* provider.journal
        const starts = startsOf(journal)
        const throttled = journal.filter(({ status }) => status === 429).length / journal.length
        const last = (Math.max(...starts) - Math.min(...starts)) / ((minutes - 1) * minuteMillis)
        const figures = `last start ${last}, throttled ${throttled}, fullest minute ${fullest(starts)}`
        assert.isAtMost(fullest(starts), limit.requests, figures)
        assert.isAtMost(throttled, 0.005, figures)
        assert.isAtMost(last, 1.03, figures)
      }),
    (minutes + 3) * minuteMillis
  )
})
