import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { rawServer } from "../support/rawServer.ts"
import { type Edge, edges, frontOf, type Got, within } from "./edges.ts"
import { before, type Fault, faults, type Moment, moments, whole, writeFault } from "./faults.ts"
import { type FrontWire, wires } from "./wires.ts"

// Every fault of a provider, at every moment of a stream, on every wire, through every edge. A client must get the whole answer, or
// what came and an error of its own wire. In either case its connection ends in order.

const ask = (edge: Edge, wire: FrontWire, moment: Moment, fault: Fault) =>
  Effect.gen(function*() {
    const provider = yield* rawServer((response, _, n) => {
      response.writeHead(200, { "content-type": "text/event-stream" })
      if (n > 1) {
        response.end(whole(wire))
        return
      }
      writeFault(response, wire, moment, fault)
    })
    // With one permit, a second attempt needs that of the first.
    // A busy machine takes longer than short limits.
    const limits = fault.name === "a stall"
      ? { firstTokenTimeout: "4 seconds", idleTimeout: "500 millis" } as const
      : { firstTokenTimeout: "30 seconds", idleTimeout: "30 seconds" } as const
    const front = yield* frontOf([
      { name: "a", url: provider.url, speaks: wire.speaks, breaker: false, backpressure: { capacity: 1 } }
    ], limits)
    const got = yield* edge.ask(front, { path: wire.path, body: wire.stream })
    const [state] = yield* front.targets
    assert.strictEqual(state?.permits?.running, 0)
    return { got, requests: provider.requests.length }
  }).pipe(Effect.scoped, within)

const check = (wire: FrontWire, moment: Moment, { code, name }: Fault, got: Got, requests: number): void => {
  const cell = `${wire.wire}: ${name} ${moment}`
  assert.strictEqual(got.end, "Clean", cell)
  assert.strictEqual(got.status, 200, cell)
  if (moment === "before output") {
    assert.deepStrictEqual({ requests, text: got.text }, { requests: 2, text: whole(wire) }, cell)
    return
  }
  assert.strictEqual(requests, 1, cell)
  const passed = before(wire, moment)
  assert.isTrue(got.text.startsWith(passed), `${cell}: ${got.text}`)
  const rest = got.text.slice(passed.length)
  if (moment === "after completion") {
    const end = wire.wire === "chat" ? "data: [DONE]\n\n" : wire.end
    assert.strictEqual(rest, end, cell)
    return
  }
  const events = rest.trim().split("\n\n")
  assert.strictEqual(events.length, 1, `${cell}: ${rest}`)
  const isOwn = name === "an error within the stream"
  const json = JSON.parse(/^data: (.*)$/m.exec(rest)?.[1] ?? "") as { readonly error: Record<string, unknown> }
  assert.isString(json.error["message"], cell)
  if (!isOwn && wire.speaks === "openai") assert.strictEqual(json.error["code"], code, cell)
  assert.strictEqual(rest.startsWith("event: error\n"), wire.wire !== "chat", cell)
  assert.isFalse(rest.includes("[DONE]"), cell)
}

describe("the faults of a provider", () => {
  for (const edge of edges) {
    for (const wire of wires) {
      it.live(`streams of ${wire.wire} through ${edge.name} are whole, or end with an error of their wire`, () =>
        Effect.forEach(
          moments.flatMap((moment) => faults.map((fault) => ({ moment, fault }))),
          ({ fault, moment }) =>
            Effect.map(
              ask(edge, wire, moment, fault),
              ({ got, requests }) => check(wire, moment, fault, got, requests)
            ),
          { concurrency: 12 }
        ))
    }
  }
})
