import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"
import * as Journal from "../../src/run/Journal.ts"
import * as RunResult from "../../src/run/Result.ts"
import { folder } from "../support/files.ts"
import { answered, failed } from "../support/results.ts"

const request = "0123456789abcdef"

const ok = (line: number, id = `p${line}`, text = "fine"): string =>
  RunResult.encode(answered({ line, id, text }), request)

const scan = (content: string | Buffer) =>
  Effect.flatMap(folder, (directory) =>
    Effect.promise(async () => {
      const path = join(directory, "results.jsonl")
      writeFileSync(path, content)
      const handle = await open(path)
      try {
        return await Journal.scan(handle, path).catch((error: unknown) => {
          if (error instanceof Journal.JournalError) return error
          throw error
        })
      } finally {
        await handle.close()
      }
    }))

const whole = `${ok(1)}${ok(2)}`

describe("Journal", () => {
  it.live("the last result of a line counts, and an answer is never replaced by a failure", () =>
    Effect.gen(function*() {
      const notSent = failed({ line: 4, error: { tag: "NotSent", message: "not sent", retryAfter: undefined } })
      const journal = yield* scan([
        ok(1),
        RunResult.encode(failed({ line: 2 }), request),
        RunResult.encode(failed({ line: 3 }), request),
        ok(3),
        RunResult.encode(notSent, request),
        RunResult.encode(failed({ line: 1 }), request),
        // A line that is no prompt has no request.
        RunResult.encode(failed({ line: 6 }))
      ].join(""))
      if (journal instanceof Journal.JournalError) return assert.fail(journal.message)
      const { place } = journal
      assert.deepStrictEqual([1, 2, 3, 4, 5, 6].map((line) => place.stateOf({ line })), [
        "ok",
        "failed",
        "ok",
        "unsent",
        "new",
        "failed"
      ])
      assert.deepStrictEqual([place.count("ok"), place.count("failed"), place.count("unsent")], [2, 2, 1])
    }))

  it.live("ids of every kind are compared as the input has them, also if they are longer than a chunk", () =>
    Effect.gen(function*() {
      const ids = [
        "plain",
        "a \"quoted\\\" one",
        "Zoë 🚰\u2028\u0000",
        `{"line":9,"status":"ok"`,
        "x".repeat(2_000),
        "y".repeat(3e6),
        ""
      ]
      const journal = yield* scan(ids.map((id, index) => ok(index + 1, id, "z".repeat(index * 400_000))).join(""))
      if (journal instanceof Journal.JournalError) return assert.fail(journal.message)
      assert.deepStrictEqual(
        ids.map((id, index) => journal.place.compare({ line: index + 1 }, id, request)),
        ids.map(() => "same")
      )
      assert.strictEqual(journal.place.compare({ line: 1 }, "other", request), "other")
      assert.strictEqual(journal.place.compare({ line: 1 }, undefined, request), "other")
      assert.strictEqual(journal.place.compare({ line: 1 }, "plain", "0123456789abcdee"), "changed")
      assert.strictEqual(journal.torn, 0)
    }))

  const tail = Buffer.from(ok(3, "p3", "é")).subarray(0, -1)
  const halfCharacter = tail.subarray(0, tail.indexOf(0xc3) + 1)

  it.live.each<readonly [name: string, tail: string | Buffer]>([
    ["zeros", Buffer.alloc(5_000)],
    ["zeros and a line feed", Buffer.concat([Buffer.alloc(5_000), Buffer.from("\n")])],
    ["the beginning of a result and zeros", Buffer.concat([tail.subarray(0, 40), Buffer.alloc(99)])],
    [
      "the beginning of a result, zeros and a line feed",
      Buffer.concat([tail.subarray(0, 40), Buffer.alloc(9), Buffer.from("\n")])
    ],
    ["half a character", halfCharacter],
    ["the opening", `{"line":`],
    ["one byte", "{"],
    ["a result of 3 MB without its end", ok(3, "p3", "x".repeat(3e6)).slice(0, -3)]
  ])("a tail of %s is cut off", ([, tail]) =>
    Effect.gen(function*() {
      const journal = yield* scan(Buffer.concat([Buffer.from(whole), Buffer.from(tail)]))
      if (journal instanceof Journal.JournalError) return assert.fail(journal.message)
      assert.deepStrictEqual([journal.end, journal.torn, journal.needsLineFeed], [
        Buffer.byteLength(whole),
        Buffer.byteLength(tail),
        false
      ])
      assert.strictEqual(journal.place.count("ok"), 2)
    }))

  it.live("a last result that lacks only its line feed is kept", () =>
    Effect.gen(function*() {
      const journal = yield* scan(whole.slice(0, -1))
      if (journal instanceof Journal.JournalError) return assert.fail(journal.message)
      assert.deepStrictEqual([journal.end, journal.torn, journal.needsLineFeed], [whole.length - 1, 0, true])
      assert.strictEqual(journal.place.count("ok"), 2)
    }))

  it.live.each<readonly [name: string, content: string | Buffer, line: number]>([
    ["another file without a line feed", "notes of mine", 1],
    ["another file", "notes\nof mine\n", 1],
    ["another line in the middle", `${ok(1)}oops\n${ok(2)}`, 2],
    ["another line at the end", `${whole}oops\n`, 3],
    ["a blank line", `${ok(1)}\n${ok(2)}`, 2],
    ["zeros in the middle", `${ok(1)}${"\0".repeat(99)}\n${ok(2)}`, 2],
    ["zeros within a result in the middle", `${ok(1)}${ok(2, "p2", "a")}`.replace("main", "ma\0n") + ok(3), 1],
    ["a torn result in the middle", `${ok(1)}${ok(2).slice(0, 60)}\n${ok(3)}`, 2],
    ["two results in one line", `${ok(1)}${ok(2).slice(0, 60)}${ok(3).slice(0, -2)}\n`, 2],
    ["an answer without a request", `${ok(1)}${RunResult.encode(answered({ line: 2 }))}`, 2],
    ["line 0", ok(0), 1]
  ])("%s is refused with its line number", ([, content, line]) =>
    Effect.gen(function*() {
      const refused = yield* scan(content)
      assert.instanceOf(refused, Journal.JournalError)
      assert.include(refused instanceof Journal.JournalError ? refused.message : "", `its line ${line} is no result`)
    }))

  it.live("an empty file has no results", () =>
    Effect.gen(function*() {
      const journal = yield* scan("")
      if (journal instanceof Journal.JournalError) return assert.fail(journal.message)
      assert.deepStrictEqual([journal.end, journal.torn, journal.place.lastLine], [0, 0, 0])
    }))
})
