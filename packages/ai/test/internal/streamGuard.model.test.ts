import { assert, it } from "@effect/vitest"
import { Arbitrary, Clock, Effect, Fiber, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { yields } from "@sluice/testing/InterruptionProbe"
import { guarded, type Limits, type Step, summaryOf, Upstream } from "../support/scripted.ts"

// Steps take multiples of 10 ms. Limits end 5 ms after one and deadlines 3 ms, so that no two events fall on the same moment and
// their order does not matter.
const letters = [
  "d",
  "d",
  "d",
  "dd",
  "s",
  "s",
  "u",
  "us",
  "sd",
  "ds",
  "du",
  "f",
  "f",
  "fu",
  "df",
  "dfu",
  "sf",
  "e",
  "de",
  "se",
  "fe",
  "dfue",
  "sudse"
]
const steps: ReadonlyArray<Step> = [
  ...letters,
  ...["fail", "die", "yield", "hang", 10, 10, 20, 40, 80, 160] as const
]
const firsts = [undefined, 5, 35, 95, 205]
const idles = [undefined, 15, 55, 105]
const deadlines = [undefined, 3, 63, 153, 403]
const bounds = [undefined, 1, 2, 3, 5]
const delays = [0, 0, 10, 60]

interface Case {
  readonly script: ReadonlyArray<Step>
  readonly limits: Limits
  readonly connectMillis: number
  readonly perChunkMillis: number
  readonly isEmptyFine: boolean
}

const oneOf = <A>(values: ReadonlyArray<A>): Arbitrary.Arbitrary<A> =>
  Arbitrary.map(
    Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: values.length - 1 }))),
    // The index is within the array.
    (index) => values[index] as A
  )

const cases: Arbitrary.Arbitrary<Case> = Arbitrary.map(
  Arbitrary.all([
    Arbitrary.array(oneOf(steps), { maxLength: 14 }),
    Arbitrary.all([oneOf(firsts), oneOf(idles), oneOf(deadlines)]),
    Arbitrary.all([oneOf(bounds), oneOf(bounds)]),
    Arbitrary.all([oneOf(delays), oneOf(delays), oneOf([true, false])])
  ]),
  (
    [script, [firstTokenMillis, idleMillis, deadlineAt], [parts, bytes], [connectMillis, perChunkMillis, isEmptyFine]]
  ) => ({
    script,
    limits: {
      ...(firstTokenMillis === undefined ? {} : { firstTokenMillis }),
      ...(idleMillis === undefined ? {} : { idleMillis }),
      ...(deadlineAt === undefined ? {} : { deadlineAt }),
      ...(parts === undefined ? {} : { maxHeldParts: parts }),
      ...(bytes === undefined ? {} : { maxHeldBytes: bytes * 100 })
    },
    connectMillis,
    perChunkMillis,
    isEmptyFine
  })
)

/** The expected result and its time, by a plain loop over the events in time. */
const reference = ({ connectMillis, isEmptyFine, limits, perChunkMillis, script }: Case): string => {
  const { deadlineAt = Infinity, firstTokenMillis = Infinity, idleMillis = Infinity } = limits
  const most = Math.min(limits.maxHeldParts ?? Infinity, (limits.maxHeldBytes ?? Infinity) / 100)
  const out: Array<string> = []
  let held = ""
  let [now, parts, isCommitted, hasBegun, isComplete] = [0, 0, false, false, false]
  let pulledAt = 0
  const over = (end: string) => [...out, isComplete && end !== "dies: broken" ? "end" : end].join(" | ") + ` at ${now}`
  /** Advances the time within a pull. Returns the result if the stream ends before. */
  const pass = (millis: number): string | undefined => {
    const silentAt = hasBegun ? pulledAt + idleMillis : firstTokenMillis
    const limitAt = Math.min(silentAt, deadlineAt)
    if (now + millis < limitAt) {
      now += millis
      return undefined
    }
    if (limitAt === Infinity) return [...out, "never"].join(" | ")
    now = Math.max(now, limitAt)
    return over(deadlineAt < silentAt ? "late" : `silent ${hasBegun ? "idle" : "first"} after ${parts}`)
  }
  const truncated = () => over(`truncated after ${parts}, ${isCommitted ? "some" : "nothing"} handed on`)
  if (connectMillis > 0) {
    const end = pass(connectMillis)
    if (end !== undefined) return end
  }
  for (const step of [...script, "end"]) {
    if (now >= deadlineAt) return over("late")
    let end: string | undefined
    if (typeof step === "number") end = pass(step)
    // A pull that yields is late at once if the consumer has used up the time for the first output.
    else if (step === "yield") end = pass(0)
    else if (step === "hang") end = pass(Infinity)
    else if (step === "fail") end = over("failed")
    else if (step === "die") end = over("dies: broken")
    else if (step === "end") end = truncated()
    if (end !== undefined) return end
    if (typeof step === "number" || step === "yield") continue
    let stop: string | undefined
    let good = ""
    for (const part of step) {
      if (part === "e") stop = "error part"
      else if (part === "f" && !isComplete && !hasBegun && !isEmptyFine) stop = "empty"
      if (stop !== undefined) break
      parts++
      if (part === "d" || part === "f") hasBegun = isCommitted = true
      if (part === "f") isComplete = true
      good += part
      if ((held + good).length >= most) isCommitted = true
    }
    held += good
    if (isCommitted && held !== "") {
      out.push(held)
      held = ""
      now += perChunkMillis
    }
    if (stop !== undefined) return over(stop)
    pulledAt = now
  }
  return truncated()
}

const run = Effect.fnUntraced(function*({ connectMillis, isEmptyFine, limits, perChunkMillis, script }: Case) {
  const upstream = new Upstream()
  const chunks: Array<string> = []
  const start = yield* Clock.currentTimeMillis
  const { deadlineAt, ...rest } = limits
  const shifted = deadlineAt === undefined ? rest : { ...rest, deadlineAt: start + deadlineAt }
  const stream = guarded(
    upstream,
    script,
    isEmptyFine ? { ...shifted, empty: () => undefined } : shifted,
    connectMillis
  )
  const fiber = yield* Stream.runForEachArray(stream, (chunk) => {
    chunks.push(chunk.join(""))
    return perChunkMillis === 0 ? Effect.void : Effect.sleep(perChunkMillis)
  }).pipe(
    Effect.exit,
    Effect.flatMap((exit) =>
      Effect.map(Clock.currentTimeMillis, (now) => `${summaryOf(chunks, exit)} at ${now - start}`)
    ),
    Effect.forkChild
  )
  // The clock advances in small steps, and the fibers run between them, so that each event is handled at its own time.
  for (let i = 0; i < 1000 && fiber.pollUnsafe() === undefined; i++) {
    for (const millis of [3, 2, 5]) {
      yield* yields(20)
      if (fiber.pollUnsafe() === undefined) yield* TestClock.adjust(millis)
    }
  }
  const exit = fiber.pollUnsafe()
  yield* Fiber.interrupt(fiber)
  assert.strictEqual(upstream.open, 0)
  for (const fiber of upstream.fibers) assert.isDefined(fiber.pollUnsafe())
  return exit === undefined ? [...chunks, "never"].join(" | ") : yield* exit
})

it.effect.prop(
  "a guarded stream has the result of a plain loop over its events",
  [cases],
  ([each]) => Effect.map(run(each), (actual) => assert.strictEqual(actual, reference(each))),
  { arbitrary: { runs: 1000 }, timeout: 60_000 }
)
