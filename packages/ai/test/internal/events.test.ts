import { assert, describe, it } from "@effect/vitest"
import * as Sse from "effect/encoding/Sse"
import { Events } from "../../src/internal/wire/events.ts"

type Cut = readonly [data: string, name: string]

const encoder = new TextEncoder()

/** The events that Effect's parser finds in the text. */
const reference = (bytes: Uint8Array): ReadonlyArray<Cut> => {
  const found: Array<Cut> = []
  const parser = Sse.makeParser((event) => event._tag === "Event" ? found.push([event.data, event.event]) : undefined)
  const decoder = new TextDecoder()
  parser.feed(decoder.decode(bytes, { stream: true }))
  parser.feed(`${decoder.decode()}\n\n`)
  return found
}

const cut = (pieces: Iterable<Uint8Array>, maxSize = 1_000_000): ReadonlyArray<Cut> => {
  const found: Array<Cut> = []
  const events = new Events((data, name) => found.push([data, name]), maxSize)
  for (const piece of pieces) events.feed(piece)
  events.end()
  return found
}

/** A generator of numbers below `n`, the same for each seed. */
const random = (seed: number) => {
  let state = seed + 1
  return (n: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
}

const plain = ["data: {\"a\":\"é😀\"}\n\n", "data:x\n\n", "event: delta\ndata: {}\n\n", "data: \n\n", "data:  two\n\n"]
const others = [
  "data: crlf\r\n\r\n",
  "data: cr\r\r",
  "data: mixed\n\r\n",
  ": comment\n\n",
  "data: one\ndata: two\n\n",
  "id: 7\ndata: x\n\n",
  "retry: 10\n\n",
  "event: alone\n\n",
  "event:\ndata: unnamed\n\n",
  "data\n\n",
  "dato: x\n\n",
  "events: x\ndata: y\n\n",
  "\n",
  "data: half\n",
  "da",
  "{\"error\":1}\n"
]

const piecesOf = (bytes: Uint8Array, below: (n: number) => number): ReadonlyArray<Uint8Array> => {
  const pieces: Array<Uint8Array> = []
  for (let at = 0; at < bytes.length;) {
    const length = 1 + below(below(3) === 0 ? 3 : 40)
    pieces.push(bytes.subarray(at, at + length))
    at += length
  }
  return pieces
}

describe("the cutter of events", () => {
  it("finds what Effect's parser finds, in every form and however the bytes are split", () => {
    for (let seed = 0; seed < 3_000; seed++) {
      const below = random(seed)
      const text = Array.from({ length: 1 + below(6) }, () => {
        const forms = below(3) === 0 ? others : plain
        return forms[below(forms.length)] ?? ""
      }).join("")
      const bytes = encoder.encode(below(10) === 0 ? `\uFEFF${text}` : text)
      assert.deepStrictEqual(cut(piecesOf(bytes, below)), reference(bytes), JSON.stringify(text))
    }
  })

  it("replaces invalid UTF-8 as a TextDecoder does", () => {
    for (let seed = 0; seed < 500; seed++) {
      const below = random(seed)
      const middle = Uint8Array.from({ length: below(12) }, () => 0x80 + below(0x80))
      const bytes = Uint8Array.from([...encoder.encode("data: "), ...middle, ...encoder.encode("\n\ndata: y\n\n")])
      assert.deepStrictEqual(cut(piecesOf(bytes, below)), reference(bytes), String(middle))
    }
  })

  it("emits an event when its blank line arrives, whatever ends its lines", () => {
    for (const end of ["\n", "\r\n", "\r"]) {
      const found: Array<string> = []
      const events = new Events((data) => found.push(data), 1_000)
      for (const piece of ["da", "ta: x", end, end, ...(end === "\r" ? ["d"] : [])]) events.feed(encoder.encode(piece))
      assert.deepStrictEqual(found, ["x"], JSON.stringify(end))
    }
  })

  it("refuses an event that has arrived in part by its characters, not its bytes", () => {
    const events = new Events(() => {}, 100)
    assert.isFalse(events.feed(encoder.encode(`data: ${"é".repeat(90)}`)))
    assert.isFalse(events.feed(encoder.encode("éé")))
    assert.isTrue(events.feed(encoder.encode("éééé")))
  })

  it("reads an event that comes byte by byte in linear time", () => {
    const millisOf = (length: number): number => {
      const bytes = encoder.encode(`data: ${"x".repeat(length)}\n\n`)
      const before = process.cpuUsage()
      cut(Array.from(bytes, (_, at) => bytes.subarray(at, at + 1)))
      const { system, user } = process.cpuUsage(before)
      return (user + system) / 1_000
    }
    millisOf(10_000)
    // A quadratic reader takes 256 times as long for 16 times the length.
    assert.isBelow(millisOf(160_000), 80 * Math.max(1, millisOf(10_000)))
  })

  it("has the beginning of the event that has arrived in part", () => {
    for (const before of ["", "data: x\n\n", ": comment\n\n", "data: x\r\n\r\n"]) {
      const events = new Events(() => {}, 1_000)
      events.feed(encoder.encode(`${before}data: {"ha`))
      events.feed(encoder.encode("lf\""))
      assert.strictEqual(events.half, "data: {\"half\"", before)
    }
  })
})
