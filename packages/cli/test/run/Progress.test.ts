import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Live from "../../src/run/Live.ts"
import type { View } from "../../src/run/Progress.ts"
import * as Progress from "../../src/run/Progress.ts"
import * as Terminal from "../../src/Terminal.ts"

const view = (changes: Partial<View> = {}): View => ({
  now: 10_000,
  done: 1200,
  failed: 0,
  total: 5000,
  running: 16,
  failedAttempts: 4,
  shared: 30,
  rate: 34.2,
  open: [],
  targets: 1,
  ...changes
})

describe("Progress", () => {
  it("the line shows prompts done, rate and time left", () => {
    assert.strictEqual(
      Progress.render(view(), 200),
      "1,200/5,000 done · 34/s · 16 running · 4 failed attempts · 30 shared · 1m 51s left"
    )
  })

  it("a rate below one a second is shown by the minute", () => {
    assert.include(Progress.render(view({ rate: 0.2 }), 200), " · 12/min · ")
    assert.include(Progress.render(view({ rate: 1.26 }), 200), " · 1.3/s · ")
  })

  it("the cost is shown with what is expected at the end, as far as that is known", () => {
    const cost = { spent: 1_234_567, expected: 5_144_000 }
    assert.include(Progress.render(view({ cost }), 200), " · 16 running · $1.23 of about $5.14 · ")
    assert.include(Progress.render(view({ cost: { ...cost, expected: undefined } }), 200), " · $1.23 · ")
  })

  it("an open circuit is shown with the time until its probe", () => {
    assert.include(Progress.render(view({ open: [{ target: "main", probeAt: 22_000 }] }), 200), "next try in 12s")
    assert.include(Progress.render(view({ open: [{ target: "main", probeAt: 9_000 }] }), 200), "provider down, trying")
  })

  it("of several targets, those that are down are named, and time left is shown while one is up", () => {
    const open = [{ target: "main", probeAt: 22_000 }]
    const some = Progress.render(view({ open, targets: 2 }), 200)
    assert.include(some, "main down, next try in 12s")
    assert.include(some, "left")
    const all = Progress.render(view({ open: [...open, { target: "other", probeAt: 9_000 }], targets: 2 }), 200)
    assert.include(all, "main down, next try in 12s · other down, trying")
    assert.notInclude(all, "left")
  })

  it("one failed attempt is singular", () => {
    assert.include(Progress.render(view({ failedAttempts: 1 }), 200), "· 1 failed attempt ·")
  })

  it("an outage is visible within 80 columns even with large numbers", () => {
    const down = view({ done: 1_234_567, total: 9_999_999, failed: 1_234, open: [{ target: "main", probeAt: 10_999 }] })
    assert.include(Progress.render(down, 79), "provider down, next try in 999ms")
  })

  it("time left is not shown if it is unknown", () => {
    assert.notInclude(Progress.render(view({ open: [{ target: "main", probeAt: 11_000 }] }), 200), "left")
    assert.notInclude(Progress.render(view({ total: undefined }), 200), "left")
    assert.notInclude(Progress.render(view({ rate: 0 }), 200), "left")
  })

  it("the line never exceeds the width", () => {
    for (let columns = 0; columns < 100; columns++) {
      assert.isAtMost(Terminal.width(Progress.render(view({ failed: 3 }), columns)), columns)
    }
  })

  it("the rate is that of the last ten seconds, not of the whole run", () => {
    const pace = new Progress.Pace(0)
    assert.strictEqual(pace.rate(1000, 50), 50)
    for (let second = 2; second <= 40; second++) pace.rate(second * 1000, 50 + second)
    assert.strictEqual(pace.rate(41_000, 91), 1)
  })
})

const line: Live.Line = (_, columns) => Progress.render(view(), columns)

const screen = (mode: Live.Screen["mode"]) => {
  const written: Array<string> = []
  return { written, mode, columns: () => 40, write: (text: string) => void written.push(text) }
}

describe("Live", () => {
  it.effect("a live line is drawn ten times per second within the width, and the cursor is restored", () =>
    Effect.gen(function*() {
      const terminal = screen("live")
      const done = yield* Deferred.make<void>()
      const running = yield* Effect.forkChild(Live.during(Deferred.await(done), terminal, line))
      yield* TestClock.adjust("1 second")
      const drawn = terminal.written.filter((text) => text.includes("1,200"))
      assert.strictEqual(drawn.length, 11)
      for (const text of drawn) assert.isAtMost(Terminal.width(text.replace("\r\x1b[K", "")), 39)
      yield* Deferred.succeed(done, undefined)
      yield* Fiber.join(running)
      assert.strictEqual(terminal.written[0], "\x1b[?25l")
      assert.strictEqual(terminal.written.at(-1), "\r\x1b[K\x1b[?25h")
    }))

  it.effect("the cursor is restored after a failure and an interruption", () =>
    Effect.gen(function*() {
      const failing = screen("live")
      assert.strictEqual(yield* Effect.flip(Live.during(Effect.fail("no"), failing, line)), "no")
      assert.strictEqual(failing.written.at(-1), "\r\x1b[K\x1b[?25h")
      const endless = screen("live")
      const running = yield* Effect.forkChild(Live.during(Effect.never, endless, line))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(running)
      assert.strictEqual(endless.written.at(-1), "\r\x1b[K\x1b[?25h")
    }))

  it.effect("plain lines are written every ten seconds and at the end, without escapes", () =>
    Effect.gen(function*() {
      const pipe = screen("plain")
      const running = yield* Effect.forkChild(Live.during(Effect.sleep("25 seconds"), pipe, line))
      yield* TestClock.adjust("25 seconds")
      yield* Fiber.join(running)
      assert.strictEqual(pipe.written.length, 3)
      for (const text of pipe.written) assert.strictEqual(text, `${Progress.render(view(), 200)}\n`)
    }))

  it.effect("nothing is written in mode off", () =>
    Effect.gen(function*() {
      const off = screen("off")
      yield* Live.during(Effect.void, off, line)
      assert.deepStrictEqual(off.written, [])
    }))

  it("the live line needs a terminal that it does not share, without NO_COLOR, TERM=dumb or --quiet", () => {
    const given = { quiet: false, isTerminal: true, isShared: false, env: {} }
    assert.strictEqual(Live.modeOf(given), "live")
    assert.strictEqual(Live.modeOf({ ...given, isTerminal: false }), "plain")
    assert.strictEqual(Live.modeOf({ ...given, isShared: true }), "plain")
    assert.strictEqual(Live.modeOf({ ...given, env: { NO_COLOR: "1" } }), "plain")
    assert.strictEqual(Live.modeOf({ ...given, env: { NO_COLOR: "" } }), "live")
    assert.strictEqual(Live.modeOf({ ...given, env: { TERM: "dumb" } }), "plain")
    assert.strictEqual(Live.modeOf({ ...given, quiet: true }), "off")
  })
})
