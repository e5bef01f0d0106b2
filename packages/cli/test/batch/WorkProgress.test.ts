import { Asker, AskLater } from "@sluice/batch/Asker"
import type { Status } from "@sluice/batch/Batch"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber } from "effect"
import type { View } from "../../src/batch/WorkProgress.ts"
import * as WorkProgress from "../../src/batch/WorkProgress.ts"
import * as Terminal from "../../src/Terminal.ts"

const view = (changes: Partial<View> = {}): View => ({
  now: 10_000,
  answered: 1_234,
  failed: 0,
  inFlight: 16,
  rate: 34.2,
  micros: 0,
  batches: 1,
  waiting: undefined,
  later: undefined,
  open: [],
  isStopping: false,
  ...changes
})

const circuit = { for: "the circuit of main is open", until: 22_000 }
const quota = { for: "HTTP 429 (quota_exceeded)", until: 31_000 }
const open = [{ target: "main", probeAt: 22_000 }]
const idle = { inFlight: 0, rate: 0 }

const states: ReadonlyArray<readonly [state: string, view: View, line: string]> = [
  ["works", view(), "1,234 answered · 34/s · 16 in flight · 1 batch"],
  [
    "works at known prices, and some requests failed",
    view({ failed: 12, micros: 1_204_000, batches: 2, rate: 0.5 }),
    "1,234 answered · 12 failed · 30/min · 16 in flight · $1.20 · 2 batches"
  ],
  ["has not read the batches yet", view({ ...idle, answered: 0, batches: undefined }), "0 answered"],
  ["has no batch", view({ ...idle, batches: 0 }), "no batch to work on · 1,234 answered"],
  ["asks a batch that was not read yet", view({ batches: 0 }), "1,234 answered · 34/s · 16 in flight"],
  ["is between two requests", view({ ...idle, rate: 34.2 }), "1,234 answered · 34/s · 1 batch"],
  [
    "waits for the only circuit",
    view({ ...idle, waiting: circuit, open }),
    "waits: the circuit of main is open, for 12s · 1,234 answered · 1 batch"
  ],
  [
    "waits without a known end",
    view({ ...idle, waiting: { for: "a target refuses its key", until: undefined } }),
    "waits: a target refuses its key · 1,234 answered · 1 batch"
  ],
  [
    "has one of several targets down",
    view({ open }),
    "main down, next try in 12s · 1,234 answered · 34/s · 16 in flight · 1 batch"
  ],
  [
    "probes a target",
    view({ open: [{ target: "main", probeAt: 9_000 }] }),
    "main down, trying · 1,234 answered · 34/s · 16 in flight · 1 batch"
  ],
  [
    "waits for a quota",
    view({ ...idle, later: quota }),
    "waits: HTTP 429 (quota_exceeded), for 21s · 1,234 answered · 1 batch"
  ],
  ["answers others while a request waits", view({ later: quota }), "1,234 answered · 34/s · 16 in flight · 1 batch"],
  ["is past the wait", view({ ...idle, later: { ...quota, until: 9_000 } }), "1,234 answered · 1 batch"],
  [
    "stops while its target is down",
    view({ inFlight: 3, isStopping: true, waiting: circuit, open }),
    "stopping · 1,234 answered · 34/s · 3 in flight · 1 batch"
  ]
]

describe("the progress line of a worker", () => {
  for (const [state, shown, line] of states) {
    it(`the line of a worker that ${state} says so`, () => {
      assert.strictEqual(WorkProgress.render(shown, 200), line)
    })
  }

  it("an outage is visible within 80 columns even with large numbers", () => {
    const down = view({ answered: 1_234_567, failed: 1_234, waiting: circuit })
    assert.include(WorkProgress.render(down, 79), "waits: the circuit of main is open, for 12s")
  })

  it("the line never exceeds the width", () => {
    for (let columns = 0; columns < 100; columns++) {
      const line = WorkProgress.render(view({ failed: 3, waiting: circuit }), columns)
      assert.isAtMost(Terminal.width(line), columns)
    }
  })

  it("control characters in what a worker waits for are escaped", () => {
    const line = WorkProgress.render(view({ waiting: { for: "a\u001b[2Jb", until: undefined } }), 200)
    assert.include(line, "waits: a\\x1b[2Jb")
  })

  it("the line at the end has the totals, and leaves out what is none", () => {
    const totals = { answered: 1_200, failed: 3, micros: 1_204_000, givenBack: 1, millis: 144_000 }
    assert.strictEqual(
      WorkProgress.summary(totals),
      "1,200 answered, 3 failed, $1.20, 1 request in flight given back in 2m 24s."
    )
    assert.strictEqual(
      WorkProgress.summary({ ...totals, givenBack: 0, micros: 0 }),
      "1,200 answered, 3 failed in 2m 24s."
    )
  })

  it("the fields of a log line have what the line shows", () => {
    assert.deepStrictEqual(WorkProgress.fieldsOf(view({ micros: 1_500_000, waiting: circuit })), {
      answered: 1_234,
      failed: 0,
      perSecond: 34.2,
      inFlight: 16,
      costDollars: 1.5,
      batches: 1,
      state: "waits: the circuit of main is open, for 12s"
    })
  })
})

const answer = { kind: "ok", body: "{}", inputTokens: 1, outputTokens: 1, micros: 10 } as const

const asked = (batch: string) => ({
  batch,
  owner: undefined,
  endpoint: undefined,
  key: "k1",
  body: "{}",
  idempotencyKey: `${batch}/1`,
  hasBudget: false
})

describe("WorkProgress", () => {
  it.effect("answers, failures, cost and requests that are given back are counted, and each batch is told once", () =>
    Effect.gen(function*() {
      let now = 0
      const told: Array<string> = []
      const progress = new WorkProgress.WorkProgress(() => now, {
        onBatch: (batch) => void told.push(batch),
        onPutOff: () => {}
      })
      const replies = [
        Effect.succeed(answer),
        Effect.succeed({ ...answer, kind: "failed" } as const),
        Effect.fail(
          new AskLater({ reason: "HTTP 429", isCall: true, retryAfter: Duration.seconds(20), micros: 5 })
        )
      ]
      const never = yield* Deferred.make<void>()
      const watched = progress.watch(Asker.of({
        ask: () => replies.shift() ?? Effect.as(Deferred.await(never), answer),
        waiting: Effect.succeed(circuit)
      }))
      yield* watched.ask(asked("b1"))
      yield* watched.ask(asked("b1"))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(watched.ask(asked("b2")))))
      yield* watched.waiting
      now = 10_000
      const running = yield* Effect.forkChild(watched.ask(asked("b1")), { startImmediately: true })
      const counted = { answered: 1, failed: 1, micros: 25 }
      assert.deepStrictEqual(progress.view(10_000), {
        ...view(counted),
        inFlight: 1,
        rate: 0.2,
        batches: undefined,
        waiting: circuit,
        later: { for: "HTTP 429", until: 20_000 }
      })
      progress.stop()
      yield* Fiber.interrupt(running)
      assert.deepStrictEqual(progress.totals(10_000), { ...counted, givenBack: 1, millis: 10_000 })
      assert.strictEqual(progress.view(10_000).inFlight, 0)
      assert.deepStrictEqual(told, ["b1", "b2"])
    }))

  it.effect("a batch that this process worked on is returned once when it has ended, and no other", () =>
    Effect.gen(function*() {
      const progress = new WorkProgress.WorkProgress(() => 0, { onBatch: () => {}, onPutOff: () => {} })
      const watched = progress.watch(Asker.of({ ask: () => Effect.succeed(answer), waiting: Effect.undefined }))
      yield* watched.ask(asked("mine"))
      const status = (id: string, state: Status["state"]) => ({ id, state }) as Status
      assert.deepStrictEqual(progress.listed([status("mine", "cancelling"), status("new", "validating")]), [])
      assert.strictEqual(progress.view(0).batches, 1)
      const ended = [status("mine", "cancelled"), status("other", "completed")]
      assert.deepStrictEqual(progress.listed(ended), [ended[0]!])
      assert.deepStrictEqual(progress.listed(ended), [])
      assert.strictEqual(progress.view(0).batches, 0)
    }))

  it.effect("the reason of requests that are put off is told at once, and at most once in ten seconds", () =>
    Effect.gen(function*() {
      let now = 0
      const told: Array<readonly [string, string]> = []
      const progress = new WorkProgress.WorkProgress(() => now, {
        onBatch: () => {},
        onPutOff: (batch, reason) => void told.push([batch, reason])
      })
      const refused = Effect.fail(new AskLater({ reason: "HTTP 401", isCall: true }))
      const watched = progress.watch(Asker.of({ ask: () => refused, waiting: Effect.undefined }))
      for (const at of [0, 0, 9_999, 10_000, 10_001]) {
        now = at
        yield* Effect.exit(watched.ask(asked("mine")))
      }
      assert.deepStrictEqual(told, [["mine", "HTTP 401"], ["mine", "HTTP 401"]])
    }))

  it("an open circuit is shown until it closes, or until its probe is long due", () => {
    const progress = new WorkProgress.WorkProgress(() => 0, { onBatch: () => {}, onPutOff: () => {} })
    progress.circuitChanged({ target: "main", to: "Open", openMillis: 5_000 })
    progress.circuitChanged({ target: "other", to: "Open", openMillis: 9_000 })
    assert.deepStrictEqual(progress.view(1_000).open.map(({ target }) => target), ["main", "other"])
    progress.circuitChanged({ target: "main", to: "Closed", openMillis: undefined })
    assert.deepStrictEqual(progress.view(18_000).open, [{ target: "other", probeAt: 9_000 }])
    assert.deepStrictEqual(progress.view(19_000).open, [])
  })
})
