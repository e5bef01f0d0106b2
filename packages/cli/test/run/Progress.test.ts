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
  retried: 4,
  shared: 30,
  rate: 34.2,
  open: [],
  targets: 1,
  ...changes
})

describe("Progress", () => {
  it("shows how far it is, how fast, and how long it takes", () => {
    assert.strictEqual(
      Progress.render(view(), 200),
      "1,200/5,000 done · 34/s · 16 running · 4 retried · 30 shared · 1m 51s left"
    )
  })

  it("shows a circuit that is open, and the time to its probe", () => {
    assert.include(Progress.render(view({ open: [{ target: "main", probeAt: 22_000 }] }), 200), "probe in 12s")
    assert.include(Progress.render(view({ open: [{ target: "main", probeAt: 9_000 }] }), 200), "provider down, probing")
  })

  it("names the targets that are down where there are several, and promises an end while one is up", () => {
    const open = [{ target: "main", probeAt: 22_000 }]
    const some = Progress.render(view({ open, targets: 2 }), 200)
    assert.include(some, "main down, probe in 12s")
    assert.include(some, "left")
    const all = Progress.render(view({ open: [...open, { target: "other", probeAt: 9_000 }], targets: 2 }), 200)
    assert.include(all, "main down, probe in 12s · other down, probing")
    assert.notInclude(all, "left")
  })

  it("shows an outage on 80 columns, with all that it can have to say", () => {
    const down = view({ done: 1_234_567, total: 9_999_999, failed: 1_234, open: [{ target: "main", probeAt: 10_999 }] })
    assert.include(Progress.render(down, 79), "provider down, probe in 999ms")
  })

  it("promises no end that nobody knows", () => {
    assert.notInclude(Progress.render(view({ open: [{ target: "main", probeAt: 11_000 }] }), 200), "left")
    assert.notInclude(Progress.render(view({ total: undefined }), 200), "left")
    assert.notInclude(Progress.render(view({ rate: 0 }), 200), "left")
  })

  it("never takes more columns than there are", () => {
    for (let columns = 0; columns < 100; columns++) {
      assert.isAtMost(Terminal.width(Progress.render(view({ failed: 3 }), columns)), columns)
    }
  })

  it("measures the pace of the last ten seconds, not of the whole run", () => {
    const pace = new Progress.Pace(0)
    assert.strictEqual(pace.rate(1000, 50), 50)
    for (let second = 2; second <= 40; second++) pace.rate(second * 1000, 50 + second)
    assert.strictEqual(pace.rate(41_000, 91), 1)
  })
})

const screen = (mode: Live.Screen["mode"]) => {
  const written: Array<string> = []
  return { written, mode, columns: () => 40, write: (text: string) => void written.push(text) }
}

describe("Live", () => {
  it.effect("draws ten times a second on a terminal, within its width, and gives the cursor back", () =>
    Effect.gen(function*() {
      const terminal = screen("live")
      const done = yield* Deferred.make<void>()
      const running = yield* Effect.forkChild(Live.during(Deferred.await(done), terminal, () => view()))
      yield* TestClock.adjust("1 second")
      const drawn = terminal.written.filter((text) => text.includes("1,200"))
      assert.strictEqual(drawn.length, 11)
      for (const text of drawn) assert.isAtMost(Terminal.width(text.replace("\r\x1b[K", "")), 39)
      yield* Deferred.succeed(done, undefined)
      yield* Fiber.join(running)
      assert.strictEqual(terminal.written[0], "\x1b[?25l")
      assert.strictEqual(terminal.written.at(-1), "\r\x1b[K\x1b[?25h")
    }))

  it.effect("gives the cursor back after a failure and an interruption", () =>
    Effect.gen(function*() {
      const failing = screen("live")
      assert.strictEqual(yield* Effect.flip(Live.during(Effect.fail("no"), failing, () => view())), "no")
      assert.strictEqual(failing.written.at(-1), "\r\x1b[K\x1b[?25h")
      const endless = screen("live")
      const running = yield* Effect.forkChild(Live.during(Effect.never, endless, () => view()))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(running)
      assert.strictEqual(endless.written.at(-1), "\r\x1b[K\x1b[?25h")
    }))

  it.effect("writes a plain line every ten seconds and at the end, with no escapes", () =>
    Effect.gen(function*() {
      const pipe = screen("plain")
      const running = yield* Effect.forkChild(Live.during(Effect.sleep("25 seconds"), pipe, () => view()))
      yield* TestClock.adjust("25 seconds")
      yield* Fiber.join(running)
      assert.strictEqual(pipe.written.length, 3)
      for (const text of pipe.written) assert.strictEqual(text, `${Progress.render(view(), 200)}\n`)
    }))

  it.effect("is silent when it is off", () =>
    Effect.gen(function*() {
      const off = screen("off")
      yield* Live.during(Effect.void, off, () => view())
      assert.deepStrictEqual(off.written, [])
    }))

  it("draws only on a terminal of its own that wants it", () => {
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
