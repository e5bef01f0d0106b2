import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as LocalModel from "@sluice/local-model/LocalModel"
import { Effect } from "effect"
import * as Tickets from "../../demo/tickets.ts"
import * as Terminal from "../../src/Terminal.ts"
import { allAnswered, resultsIn, resultsOf } from "../support/files.ts"
import { environment, filesOf, run } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

/** Faults for more than a quarter of the prompts, in up to two attempts each, with short times. */
const badDay = {
  seed: 11,
  faults: { rateLimit: 0.08, unavailable: 0.06, reset: 0.05, hang: 0.05, slowStart: 0.03, cut: 0.06 },
  faultyAttempts: 2,
  retryAfterSeconds: 0.2,
  hangMillis: 300,
  slowStartMillis: 300,
  outage: { afterCalls: 80, requests: 40, atMostMillis: 2_000 }
}

/** Answers tickets as in the demo. */
const rules: LoopbackProvider.Answer<LocalModel.LocalModel> = ({ prompt }) =>
  LocalModel.LocalModel.use((model) => model.answer(prompt)).pipe(
    Effect.mapError(({ message }) => new LoopbackProvider.AnswerError({ status: 400, message }))
  )

describe("sluice run with the sample tickets", { timeout: processTimeout }, () => {
  it.live(
    "all tickets are answered despite faults, each with a complete answer that the provider sent for it",
    () =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({
          script: badDay,
          models: ["rules"],
          pace: { firstTokenMillis: 20, tokenMillis: 1, tokensPerChunk: 16 },
          answer: rules
        })
        const { results } = yield* filesOf([])
        const { code, stderr, stdout } = yield* run([Tickets.path, "-o", results], environment(provider))
        assert.strictEqual(code, 0, stderr)

        const tickets = Tickets.read()
        const answers = resultsIn(results)
        allAnswered(answers, tickets.length)
        for (const { id, line } of answers) assert.strictEqual(id, tickets[line - 1]?.id)

        const journal = yield* provider.journal
        const sentAnswers = new Set(
          journal.flatMap(({ answer, prompt }) => answer === undefined ? [] : [`${answer} ${prompt}`])
        )
        for (const result of answers) {
          const text = result.status === "ok" ? result.text : ""
          assert.include(sentAnswers, `${Journal.digest(text)} ${tickets[result.line - 1]?.prompt}`)
        }
        // Every fault of the script occurred.
        const { calls, endings, maxOpen, soonerThanRetryAfter } = Journal.summary(journal)
        for (const ending of ["cut", "reset", "hang", "refused"] as const) assert.isAbove(endings[ending], 0, ending)
        assert.strictEqual(soonerThanRetryAfter, 0)
        assert.isAtMost(maxOpen, 64)

        const different = new Set(tickets.map(({ prompt }) => prompt)).size
        assert.strictEqual(endings.complete, different)
        assert.strictEqual(answers.filter(({ how }) => how === "led").length, different)
        // A request that is reset on a connection which was idle for a second is sent once more within its attempt.
        const attempts = answers.reduce((sum, { attempts }) => sum + attempts, 0)
        assert.isAtLeast(calls, attempts)
        assert.isAtMost(calls, attempts + endings.reset)

        const shared = (how: string) => answers.filter((answer) => answer.how === how).length
        assert.include(stderr, "  answered         204\n")
        assert.include(stderr, "  failed           0\n")
        assert.include(stderr, `  requests         ${attempts}\n`)
        assert.include(
          stderr,
          `  shared           ${shared("joined")} joined a request under way, ${shared("cached")} reused an answer\n`
        )
        assert.match(stderr, /\n {2}failed attempts {2}[^\n]*rate limit: \d+/)
        assert.strictEqual(stdout, "")
      }).pipe(Effect.provide(LocalModel.layer))
  )

  it.live("piped output has no escapes, and the summary fits in 80 columns", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ apiKey: false })
      for (const env of [{}, { NO_COLOR: "1", TERM: "xterm-256color" }]) {
        const ran = yield* run([Tickets.path, "--limit", "40"], { ...environment(provider), ...env })
        assert.strictEqual(ran.code, 0, ran.stderr)
        allAnswered(resultsOf(ran.stdout), 40)
        assert.notInclude(ran.stdout + ran.stderr, "\x1b")
        assert.notInclude(ran.stdout + ran.stderr, "\r")
        assert.match(ran.stderr, /^40\/40 done/)
        for (const line of ran.stderr.split("\n").slice(1)) assert.isAtMost(Terminal.width(line), 80, line)
      }
    }))
})
