import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type * as Front from "@sluice/ai/Front"
import { rawServer, type Received } from "../support/rawServer.ts"
import { both, cellHeader, clients, fetched, type OfficialClient, type Seen, type Way, ways } from "./clients.ts"
import { frontOf, within } from "./edges.ts"
import { type Fault, faults, type Moment, moments, whole, writeFault } from "./faults.ts"
import { type FrontWire, wires } from "./wires.ts"

// Every fault, at every moment of a stream, for every official client, through every edge: the client has the whole answer, or an
// error with words that say what happened. Requests are counted at the provider.

interface Cell {
  readonly name: string
  readonly client: OfficialClient
  readonly fault: Fault
  readonly moment: Moment
}

const cells: ReadonlyArray<Cell> = clients.flatMap((client) =>
  faults.flatMap((fault) =>
    moments.map((moment) => ({ name: `${client.name}: ${fault.name} ${moment}`, client, fault, moment }))
  )
)

type Words = Readonly<Record<string, string>>

/** The words of each code, as a client shows them. */
const ours: Words = {
  truncated_stream: "The answer ended before it was complete.",
  idle_timeout: "The model stopped in the middle of its answer.",
  provider_error: "The model's provider failed.",
  malformed_event: "A part of the answer cannot be read."
}

/** The error event of a provider with the client's API passes as it is. */
const passed: Words = { ...ours, provider_error: "secret words" }

const pathOf = ({ path }: Received): FrontWire | undefined => wires.find((wire) => wire.path === path)

/** A provider with the fault that the header of a request names, for the first request of each cell. */
const provider = Effect.gen(function*() {
  const counts = new Map<string, number>()
  const server = yield* rawServer((response, received) => {
    const name = String(received.headers[cellHeader])
    const count = (counts.get(name) ?? 0) + 1
    counts.set(name, count)
    const cell = cells.find((cell) => cell.name === name)
    const wire = pathOf(received)
    if (wire === undefined || cell === undefined) return void response.writeHead(404).end()
    response.writeHead(200, { "content-type": "text/event-stream" })
    if (count > 1) response.end(whole(wire))
    else writeFault(response, wire, cell.moment, cell.fault)
  })
  return { server, requestsOf: ({ name }: Cell) => counts.get(name) ?? 0 }
})

interface Expected {
  readonly requests: number
  readonly text: string
  readonly error: string | undefined
}
type Expect = (cell: Cell) => Expected

const retried: Expected = { requests: 2, text: "fine", error: undefined }

/** Streams pass from their first output on. */
const passing = (words: Words): Expect => ({ fault, moment }) =>
  moment === "before output"
    ? retried
    : { requests: 1, text: "one two", error: moment === "within" ? words[fault.code] : undefined }

/** Streams are held until they are complete. */
const holding: Expect = ({ moment }) =>
  moment === "after completion" ? { requests: 1, text: "one two", error: undefined } : retried

/** What is wrong with an answer. `undefined`: nothing. */
const wrong = (expected: Expected, { error, text }: Seen, requests: number): string | undefined => {
  const isRight = requests === expected.requests && text === expected.text &&
    (expected.error === undefined ? error === undefined : error?.includes(expected.error) === true)
  return isRight ? undefined : JSON.stringify({ requests, text, error })
}

/** Asks for cells through a front. Returns what is wrong. */
const wrongOf = (
  way: Way,
  asked: ReadonlyArray<Cell>,
  expect: Expect,
  targets: (url: string) => ReadonlyArray<Front.FrontTarget>,
  options: Partial<Front.FrontOptions>
) =>
  Effect.gen(function*() {
    const { requestsOf, server } = yield* provider
    const front = yield* frontOf(targets(server.url), options)
    const place = yield* way.place(front)
    const found: Array<string> = []
    yield* Effect.forEach(asked, (cell) =>
      Effect.map(Effect.promise(() => cell.client.ask(place, cell.name)), (seen) => {
        const problem = wrong(expect(cell), seen, requestsOf(cell))
        if (problem !== undefined) found.push(`${cell.name}: ${problem}`)
      }), { concurrency: 32, discard: true })
    return found
  }).pipe(Effect.scoped, (self) => within(self, "2 minutes"))

const isStall = ({ fault }: Cell): boolean => fault.name === "a stall"

/** Asks for stalls apart, with short limits. A busy machine takes longer than those for the other cells. */
const check = (
  way: Way,
  asked: ReadonlyArray<Cell>,
  expect: Expect,
  targets: (url: string) => ReadonlyArray<Front.FrontTarget>,
  options?: Partial<Front.FrontOptions>
) =>
  Effect.gen(function*() {
    const long = { firstTokenTimeout: "30 seconds", idleTimeout: "30 seconds" } as const
    const short = { firstTokenTimeout: "5 seconds", idleTimeout: "3 seconds" } as const
    const others = asked.filter((cell) => !isStall(cell))
    const found = [
      ...(yield* wrongOf(way, others, expect, targets, { ...options, ...long })),
      ...(yield* wrongOf(way, asked.filter(isStall), expect, targets, { ...options, ...short }))
    ]
    assert.deepStrictEqual(found, [], `${asked.length - found.length} of ${asked.length} are right`)
  })

describe("the official clients, with a front before a provider that fails", () => {
  for (const way of ways) {
    it.live(`each has the whole answer or an error that says what happened, through ${way.name}`, () => {
      assert.strictEqual(cells.length, 10 * 7 * 3)
      return check(way, cells, passing(passed), both, { translate: false })
    }, 300_000)
  }

  it.live(
    "each has the whole answer of another attempt, where the front holds streams until they are complete",
    () => check(fetched, cells, holding, both, { translate: false, answer: "whole" }),
    300_000
  )

  for (const speaks of ["openai", "anthropic"] as const) {
    it.live(
      `each has the whole answer or an error that says what happened, from a target of ${speaks}'s API alone`,
      () => {
        const wire = speaks === "openai" ? "messages" : "chat"
        const asked = cells.filter(({ client }) => client.wire === wire)
        return check(fetched, asked, passing(ours), (url) => both(url).filter((target) => target.speaks === speaks))
      },
      300_000
    )
  }
})

describe("the official clients without a front", () => {
  /** The clients that report no error, and those that do. */
  const clientsOf = (fault: string, moment: Moment) =>
    Effect.gen(function*() {
      const { server } = yield* provider
      const place = { origin: server.origin, fetch: globalThis.fetch }
      const asked = cells.filter((cell) => cell.fault.name === fault && cell.moment === moment)
      const seen = yield* Effect.forEach(
        asked,
        ({ client, name }) => Effect.promise(() => client.ask(place, name)),
        { concurrency: "unbounded" }
      )
      const names = (isSilent: boolean) =>
        asked.filter((_, index) => (seen[index]?.error === undefined) === isSilent).map(({ client }) => client.name)
      return { silent: names(true), raising: names(false) }
    }).pipe(Effect.scoped)

  it.live("seven of ten report half an answer as a whole one if its stream ends early", () =>
    Effect.gen(function*() {
      const { raising } = yield* clientsOf("a clean end", "within")
      assert.deepStrictEqual(raising, [
        "openai chat .stream()",
        "anthropic .stream()",
        "AI SDK openai-compatible"
      ])
    }))

  it.live("all report an error for a whole answer whose connection is lost after it", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual((yield* clientsOf("a cut", "after completion")).silent, [])
    }))
})
