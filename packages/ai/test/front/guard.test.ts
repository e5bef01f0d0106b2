import { assert, describe, it } from "@effect/vitest"
import { errorEnding, errorEvent, Guard, type GuardOptions, type Wire } from "../../src/internal/front/guard.ts"

const data = (value: object) => `data: ${JSON.stringify(value)}\n\n`
const named = (type: string, more: object = {}) => `event: ${type}\n${data({ type, ...more })}`

const chunk = (delta: object, finish: unknown = null, index = 0) =>
  data({ id: "c", choices: [{ index, delta, finish_reason: finish }] })
const role = chunk({ role: "assistant", content: "", refusal: null, tool_calls: [] })
const hello = chunk({ content: "hello" })
const stop = chunk({}, "stop")
const done = "data: [DONE]\n\n"
const usage = data({ id: "c", choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } })

const start = named("message_start", { message: { content: [], usage: { input_tokens: 3 } } })
const block = (content_block: object) => named("content_block_start", { index: 0, content_block })
const delta = (delta: object) => named("content_block_delta", { index: 0, delta })
const textDelta = delta({ type: "text_delta", text: "hello" })
const stopReason = (stop_reason: string) =>
  named("message_delta", { delta: { stop_reason }, usage: { output_tokens: 4 } })
const messageStop = named("message_stop")

const responseText = named("response.output_text.delta", { delta: "hello", sequence_number: 7 })
const completed = named("response.completed", { response: { usage: { input_tokens: 3, output_tokens: 4 } } })

const fed = (wire: Wire, text: string, options?: GuardOptions) => {
  const guard = new Guard(wire, options)
  const out = guard.feed(Buffer.from(text))
  return { guard, passed: out === undefined ? "" : Buffer.from(out).toString() }
}

const failed = (guard: Guard) => guard.failure?._tag

describe("Guard", () => {
  describe("holds until the first output", () => {
    const preambles: ReadonlyArray<readonly [Wire, string]> = [
      ["chat", role],
      ["chat", chunk({ role: "assistant" })],
      ["chat", chunk({ content: null, reasoning: "", annotations: [], audio: {} })],
      ["chat", chunk({}) + ": OPENROUTER PROCESSING\n\n"],
      // Azure's event about the prompt.
      ["chat", data({ choices: [], prompt_filter_results: [{ prompt_index: 0 }] })],
      ["chat", usage],
      ["messages", start + named("ping")],
      ["messages", block({ type: "text", text: "" }) + block({ type: "thinking", thinking: "", signature: "" })],
      ["messages", delta({ type: "text_delta", text: "" }) + delta({ type: "input_json_delta", partial_json: "" })],
      ["messages", named("content_block_stop")],
      ["responses", named("response.created") + named("response.queued") + named("response.in_progress")],
      ["responses", named("response.output_item.added", { item: { type: "message" } })],
      ["responses", named("response.output_item.added", { item: { type: "reasoning" } })],
      ["responses", named("response.content_part.added") + named("response.reasoning_summary_part.added")],
      ["responses", named("response.output_text.delta", { delta: "" }) + named("keepalive")]
    ]
    for (const [wire, text] of preambles) {
      it(`${wire}: ${JSON.stringify(text)} is no output`, () => {
        const { guard, passed } = fed(wire, text)
        assert.deepStrictEqual([guard.hasOutput, passed, failed(guard)], [false, text, undefined])
      })
    }
    const outputs: ReadonlyArray<readonly [Wire, string]> = [
      ["chat", hello],
      ["chat", chunk({ tool_calls: [{ index: 0, id: "t", function: { name: "f", arguments: "" } }] })],
      ["chat", chunk({ function_call: { name: "f" } })],
      ["chat", chunk({ reasoning_content: "so" })],
      ["chat", chunk({ refusal: "no" })],
      ["chat", chunk({ unknown: 0 })],
      ["chat", data({ choices: [{ index: 0, message: { content: "whole" } }] })],
      ["chat", stop],
      ["messages", textDelta],
      ["messages", delta({ type: "signature_delta", signature: "s" })],
      ["messages", delta({ type: "citations_delta", citation: { url: "u" } })],
      ["messages", block({ type: "tool_use", id: "t", name: "f", input: {} })],
      ["messages", block({ type: "redacted_thinking", data: "x" })],
      ["messages", block({ type: "text", text: "first" })],
      ["messages", named("newer_event")],
      ["messages", stopReason("end_turn")],
      ["responses", responseText],
      ["responses", named("response.output_item.added", { item: { type: "function_call" } })],
      ["responses", named("response.newer_event")],
      ["responses", completed]
    ]
    for (const [wire, text] of outputs) {
      it(`${wire}: ${JSON.stringify(text)} is output`, () => {
        const { guard, passed } = fed(wire, text)
        assert.deepStrictEqual([guard.hasOutput, passed, failed(guard)], [true, text, undefined])
      })
    }
  })

  describe("knows when an answer is complete", () => {
    type Row = readonly [
      title: string,
      wire: Wire,
      text: string,
      is: "Incomplete" | "Complete" | "Over",
      options?: GuardOptions
    ]
    const rows: ReadonlyArray<Row> = [
      ["text alone", "chat", role + hello, "Incomplete"],
      ["a finish reason", "chat", role + hello + stop, "Complete"],
      ["a finish reason with the last text", "chat", chunk({ content: "all" }, "length"), "Complete"],
      ["`[DONE]`", "chat", hello + stop + usage + done, "Over"],
      ["one finish reason of two", "chat", hello + stop, "Incomplete", { choices: 2 }],
      ["both finish reasons", "chat", hello + stop + chunk({}, "stop", 1), "Complete", { choices: 2 }],
      ["the same finish reason twice", "chat", hello + stop + stop, "Incomplete", { choices: 2 }],
      [
        "both finish reasons in one event",
        "chat",
        data({
          choices: [{ index: 0, delta: {}, finish_reason: null }, { index: 1, delta: {}, finish_reason: "stop" }, {
            index: 0,
            delta: {},
            finish_reason: "stop"
          }]
        }),
        "Complete",
        { choices: 2 }
      ],
      ["a choice that nobody asked for", "chat", chunk({ content: "b" }, null, 1) + stop, "Incomplete"],
      ["`[DONE]` of a server that ignores `n`", "chat", hello + stop + done, "Over", { choices: 2 }],
      ["text after the finish reason", "chat", stop + hello, "Incomplete"],
      // Such a server shows the end only by `[DONE]`.
      [
        "a finish reason with each piece",
        "chat",
        chunk({ content: "a" }, "stop") + chunk({ content: "b" }, "stop"),
        "Incomplete"
      ],
      [
        "`[DONE]` after a finish reason with each piece",
        "chat",
        chunk({ content: "a" }, "stop") + chunk({ content: "b" }, "stop") + done,
        "Over"
      ],
      ["an empty piece after the finish reason", "chat", hello + stop + role, "Complete"],
      [
        "a finish reason with spaces of Python",
        "chat",
        hello + "data: {\"choices\": [{\"delta\": {}, \"finish_reason\" : \"stop\"}]}\n\n",
        "Complete"
      ],
      [
        "a finish reason of two",
        "chat",
        hello +
        "data: {\"choices\":[{\"finish_reason\":null,\"delta\":{}},{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "Complete"
      ],
      [
        "words of a finish reason in a text",
        "chat",
        hello + chunk({ content: "\"finish_reason\":\"stop\"" }),
        "Incomplete"
      ],
      [
        "a tool call about a finish reason",
        "chat",
        hello + chunk({ tool_calls: [{ function: { arguments: "{\"finish_reason\":\"stop\"}" } }] }),
        "Incomplete"
      ],
      ["text alone", "messages", start + textDelta, "Incomplete"],
      ["a stop reason", "messages", textDelta + stopReason("end_turn"), "Complete"],
      ["message_stop", "messages", textDelta + stopReason("tool_use") + messageStop, "Over"],
      [
        "a delta without a stop reason",
        "messages",
        textDelta + named("message_delta", { delta: {} }),
        "Incomplete"
      ],
      ["text after the stop reason", "messages", stopReason("end_turn") + textDelta, "Incomplete"],
      ["text alone", "responses", responseText, "Incomplete"],
      ["the end of all texts", "responses", responseText + named("response.output_item.done"), "Incomplete"],
      ["response.completed", "responses", responseText + completed, "Over"],
      ["response.incomplete", "responses", responseText + named("response.incomplete", { response: {} }), "Over"],
      [
        "response.completed without a name",
        "responses",
        responseText + data({ type: "response.completed", response: {} }),
        "Over"
      ]
    ]
    for (const [title, wire, text, is, options] of rows) {
      it(`${wire}: ${title} with ${options?.choices ?? 1} choices: ${is}`, () => {
        const { guard, passed } = fed(wire, text, options)
        assert.deepStrictEqual([guard.isComplete, guard.isOver], [is !== "Incomplete", is === "Over"])
        assert.deepStrictEqual([passed, failed(guard)], [text, undefined])
      })
    }
  })

  describe("does not pass on a failure, nor the bytes after it", () => {
    type Row = readonly [title: string, wire: Wire, before: string, failure: string, tag: string, isRaised?: boolean]
    const error = { type: "server_error", message: "overloaded" }
    const rows: ReadonlyArray<Row> = [
      ["an error", "chat", hello, data({ error }), "Error", true],
      ["an error in a choice", "chat", hello, data({ choices: [{ delta: { content: "" }, error }] }), "Error", false],
      [
        "an error beside the choices",
        "chat",
        hello,
        data({ choices: [{ delta: {}, finish_reason: null }], error }),
        "Error",
        true
      ],
      ["an error that is a text", "chat", hello, data({ error: "overloaded" }), "Error", false],
      ["an error by its name", "chat", hello, `event: error\ndata: {"code":500,"message":"x"}\n\n`, "Error", false],
      ["an error without a wrapper", "chat", hello, data({ object: "error", message: "x" }), "Error", false],
      ["an error in a list", "chat", hello, `data: [{"error":{"message":"x"}}]\n\n`, "Error", false],
      ["the finish reason `error`", "chat", hello, chunk({}, "error"), "Error", false],
      ["a tool call that the provider discarded", "chat", hello, chunk({}, "MALFORMED_FUNCTION_CALL"), "Error", false],
      ["`[DONE]` without a finish reason", "chat", hello, done, "Unfinished"],
      ["`[DONE]` at once", "chat", "", done, "Unfinished"],
      ["half of the JSON", "chat", hello, "data: {\"choices\":[{\"delta\":{\"content\":\"a\n\n", "Malformed"],
      ["a page", "chat", "", "data: <html>\n\n", "Malformed"],
      ["JSON that is no event", "chat", hello, "data: 7\n\n", "Malformed"],
      ["choices that are no list", "chat", hello, data({ choices: "a" }), "Malformed"],
      ["an index that no choice has", "chat", hello, chunk({}, "stop", 4000), "Malformed"],
      ["an error", "messages", textDelta, named("error", { error }), "Error", true],
      // Anthropic's clients ignore an event without a name.
      ["an error without a name", "messages", textDelta, data({ type: "error", error }), "Error", false],
      [
        "an error in a delta",
        "messages",
        textDelta,
        named("message_delta", { delta: { error } }),
        "Error",
        false
      ],
      ["message_stop without a stop reason", "messages", textDelta, messageStop, "Unfinished"],
      ["half of the JSON", "messages", textDelta, "event: content_block_delta\ndata: {\"type\":\n\n", "Malformed"],
      [
        "an error of OpenAI, which has no inner one",
        "responses",
        responseText,
        named("error", { code: "x", message: "y" }),
        "Error",
        false
      ],
      ["an error with an inner one", "responses", responseText, named("error", { error }), "Error", true],
      [
        "response.failed",
        "responses",
        responseText,
        named("response.failed", { response: { error } }),
        "Error",
        false
      ],
      ["`[DONE]` without an end", "responses", responseText, done, "Unfinished"]
    ]
    for (const [title, wire, before, failure, tag, isRaised] of rows) {
      it(`${wire}: ${title}`, () => {
        const { guard, passed } = fed(wire, before + failure + before)
        assert.deepStrictEqual([passed, failed(guard), guard.isComplete], [before, tag, false])
        assert.isUndefined(guard.feed(Buffer.from(before + done)))
        assert.isUndefined(guard.end())
        if (guard.failure?._tag !== "Error") return assert.isUndefined(guard.failedEvent)
        assert.strictEqual(Buffer.from(guard.failedEvent!).toString(), failure)
        assert.strictEqual(guard.failure.isRaised, isRaised)
        const last = Buffer.from(errorEnding(guard, { message: "m", code: "c" })).toString()
        assert.strictEqual(last.startsWith(failure), true)
        assert.strictEqual(last.includes("\"m\""), !guard.failure.isRaised)
      })
    }

    it("chat: `[DONE]` with one finish reason of two", () => {
      const text = hello + chunk({ content: "b" }, null, 1) + stop
      const { guard, passed } = fed("chat", text + done, { choices: 2 })
      assert.deepStrictEqual([passed, failed(guard), guard.isComplete], [text, "Unfinished", false])
    })

    it("keeps the provider's error as it sent it", () => {
      const { guard } = fed("chat", data({ error: { message: "x", code: 503, more: [1] } }))
      assert.deepStrictEqual(guard.failure, {
        _tag: "Error",
        error: { message: "x", code: 503, more: [1] },
        isRaised: true
      })
    })

    it("takes an empty error for none", () => {
      const { guard } = fed(
        "chat",
        data({ error: null, choices: [] }) + data({ error: "", choices: [] }) + data({ error: {}, choices: [] })
      )
      assert.isUndefined(guard.failure)
    })
  })

  describe("leaves out what would turn a complete answer into an error", () => {
    const rows: ReadonlyArray<readonly [Wire, string, string]> = [
      ["chat", hello + stop, data({ error: { message: "late" } })],
      ["messages", textDelta + stopReason("end_turn"), named("error", { error: { message: "late" } })],
      ["responses", completed, named("error", { message: "late" })]
    ]
    for (const [wire, text, late] of rows) {
      it(`${wire}: an error after the end`, () => {
        const { guard, passed } = fed(wire, text + late)
        assert.deepStrictEqual([passed, guard.isComplete, guard.isOver, failed(guard)], [text, true, true, undefined])
      })
    }

    it("an event after the end that cannot be read", () => {
      const { guard, passed } = fed("chat", hello + stop + "data: {\"cho\n\n" + usage + done)
      assert.deepStrictEqual([passed, guard.isOver], [hello + stop + usage + done, true])
    })
  })

  it("counts tokens wherever an answer has them", () => {
    const counts = (wire: Wire, text: string) => {
      const { inputTokens, outputTokens } = fed(wire, text).guard.usage
      return [inputTokens.total, inputTokens.cacheRead, outputTokens.total]
    }
    assert.deepStrictEqual(counts("chat", hello + stop + usage + done), [3, undefined, 4])
    assert.deepStrictEqual(
      counts(
        "chat",
        hello +
          data({
            choices: [{
              delta: {},
              finish_reason: "stop",
              usage: { prompt_tokens: 3, completion_tokens: 4, prompt_tokens_details: { cached_tokens: 2 } }
            }]
          })
      ),
      [3, 2, 4]
    )
    assert.deepStrictEqual(counts("messages", start + textDelta + stopReason("end_turn")), [3, undefined, 4])
    assert.deepStrictEqual(counts("responses", responseText + completed), [3, undefined, 4])
  })

  describe("knows why an answer ended", () => {
    const ended = (type: string, response: object) => responseText + named(type, { response })
    const streams: ReadonlyArray<readonly [Wire, string, string | undefined]> = [
      ["chat", hello, undefined],
      ["chat", hello + stop + done, "stop"],
      ["chat", hello + chunk({}, "MAX_TOKENS"), "length"],
      ["chat", hello + chunk({}, "tool_calls") + stop, "tool-calls"],
      ["chat", hello + stop + chunk({}, "length"), "length"],
      ["messages", start + textDelta, undefined],
      ["messages", start + textDelta + stopReason("end_turn"), "stop"],
      ["messages", start + textDelta + stopReason("refusal"), "content-filter"],
      ["responses", responseText, undefined],
      ["responses", responseText + completed, "stop"],
      ["responses", ended("response.completed", { output: [{ type: "function_call" }] }), "tool-calls"],
      [
        "responses",
        ended("response.incomplete", { status: "incomplete", incomplete_details: { reason: "content_filter" } }),
        "content-filter"
      ],
      ["responses", ended("response.incomplete", { status: "incomplete" }), "length"]
    ]
    for (const [wire, text, reason] of streams) {
      it(`${wire}: ${JSON.stringify(text.slice(-120))} ends with ${reason}`, () => {
        assert.strictEqual(fed(wire, text).guard.reason, reason)
      })
    }
    const wholes: ReadonlyArray<readonly [Wire, object, string | undefined]> = [
      ["chat", { choices: [{ message: { content: "a" }, finish_reason: "length" }] }, "length"],
      ["chat", { choices: [{ message: { content: "a" } }] }, undefined],
      ["messages", { content: [], stop_reason: "tool_use" }, "tool-calls"],
      ["responses", { status: "completed", output: [] }, "stop"],
      ["responses", { status: "queued" }, undefined]
    ]
    for (const [wire, answer, reason] of wholes) {
      it(`${wire}: ${JSON.stringify(answer)} ends with ${reason}`, () => {
        const guard = new Guard(wire)
        guard.whole({ ...answer })
        assert.strictEqual(guard.reason, reason)
      })
    }
  })

  describe("leaves out the token counts that the client did not ask for", () => {
    const text = role + hello + stop + usage + done
    it("drops exactly that event, however the bytes are cut", () => {
      for (let size = 1; size < text.length; size++) {
        const guard = new Guard("chat", { dropUsage: true })
        let passed = ""
        for (let at = 0; at < text.length; at += size) {
          const out = guard.feed(Buffer.from(text.slice(at, at + size)))
          if (out !== undefined) passed += Buffer.from(out).toString()
        }
        assert.strictEqual(passed, role + hello + stop + done, `pieces of ${size}`)
        assert.strictEqual(guard.usage.outputTokens.total, 4)
      }
    })

    it("keeps counts beside a choice", () => {
      const last = data({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }], usage: { prompt_tokens: 3 } })
      assert.strictEqual(fed("chat", hello + last, { dropUsage: true }).passed, hello + last)
    })
  })

  describe("reads every form of an event", () => {
    const finish = JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }, null, 1)
    const forms: ReadonlyArray<readonly [title: string, text: string]> = [
      ["carriage returns", hello.replaceAll("\n", "\r") + stop.replaceAll("\n", "\r")],
      ["carriage returns and line feeds", hello.replaceAll("\n", "\r\n") + stop.replaceAll("\n", "\r\n")],
      ["mixed line ends", `${hello.trim()}\n\r\n${stop.trim()}\r\n\r${stop.trim()}\n\n`],
      ["a byte order mark", `\uFEFF${stop}`],
      ["a byte order mark before a comment", `\uFEFF: hi\n${stop}`],
      ["no space", stop.replace("data: ", "data:")],
      ["several lines of data", `${finish.split("\n").map((line) => `data: ${line}`).join("\n")}\n\n`],
      ["comments and other fields", `: hi\nid: 7\nretry: 10\n${stop.trim()}\nevent: x\n: bye\n\n`],
      ["empty events", `\n\n\n: hi\n\ndata\n\ndata:\n\nevent: x\n\n${stop}\n\n\n`],
      ["keep-alives as data", `data: : hi\n\n`.replace(": hi", " ") + stop]
    ]
    for (const [title, text] of forms) {
      it(title, () => {
        for (const size of [1, 2, 3, 7, 1000]) {
          const guard = new Guard("chat")
          const bytes = Buffer.from(text)
          const passed: Array<Uint8Array> = []
          for (let at = 0; at < bytes.length; at += size) {
            const out = guard.feed(bytes.subarray(at, at + size))
            if (out !== undefined) passed.push(out)
          }
          assert.deepStrictEqual([Buffer.concat(passed).toString(), guard.isComplete, failed(guard)], [
            text,
            true,
            undefined
          ])
        }
      })
    }

    it("passes on an event as soon as its blank line begins", () => {
      const guard = new Guard("chat")
      const event = hello.replaceAll("\n", "\r")
      assert.strictEqual(Buffer.from(guard.feed(Buffer.from(event))!).toString(), event)
    })

    it("gives an event of Anthropic the name that its clients need", () => {
      const unnamed = textDelta.replace(/^event.*\n/, "")
      const end = data({ type: "message_delta", delta: { stop_reason: "end_turn" } })
      const { guard, passed } = fed("messages", start + unnamed + unnamed + textDelta + end)
      assert.strictEqual(passed, start + textDelta + textDelta + textDelta + `event: message_delta\n${end}`)
      assert.isTrue(guard.isComplete)
    })

    it("adds no line that a provider has put into a type", () => {
      const odd = data({ type: "ping\nevent: error" })
      assert.strictEqual(fed("messages", odd).passed, odd)
    })
  })

  describe("bounds what it keeps", () => {
    it("fails on an event that is too large, whole or in part", () => {
      const large = chunk({ content: "a".repeat(2000) })
      for (const text of [large, large.slice(0, 1500), hello + large]) {
        const { guard } = fed("chat", text, { maxEventBytes: 1000 })
        assert.deepStrictEqual(guard.failure, { _tag: "TooLarge", maxBytes: 1000 })
      }
      assert.isUndefined(fed("chat", large, { maxEventBytes: 3000 }).guard.failure)
    })

    it("takes an event beyond the bound for content, also after the end", () => {
      const { guard } = fed("chat", hello + stop + "data: ".padEnd(2000, "a"), { maxEventBytes: 1000 })
      assert.deepStrictEqual([failed(guard), guard.isComplete], ["TooLarge", false])
    })

    it("copies an event of a million bytes in small pieces only a few times", () => {
      const guard = new Guard("chat")
      const text = Buffer.from(chunk({ content: "a".repeat(1_000_000) }))
      const before = process.cpuUsage()
      let passed: Uint8Array | undefined
      for (let at = 0; at < text.length; at += 16) passed = guard.feed(text.subarray(at, at + 16)) ?? passed
      assert.isTrue(text.equals(passed!))
      // A copy with each piece takes most of a minute.
      assert.isBelow(process.cpuUsage(before).user / 1_000, 5_000)
    })

    it("refuses JSON that is nested without end", () => {
      const { guard } = fed("chat", `data: {"error":${"[".repeat(100_000)}${"]".repeat(100_000)}}\n\n`)
      assert.strictEqual(failed(guard), "Malformed")
    })
  })

  describe("ends a stream", () => {
    type Row = readonly [
      title: string,
      wire: Wire,
      text: string,
      passed: string | undefined,
      isComplete: readonly [closed: boolean, lost: boolean]
    ]
    const twice = chunk({ content: "a" }, "stop") + chunk({ content: "b" }, "stop")
    const rows: ReadonlyArray<Row> = [
      ["after text", "chat", hello, undefined, [false, false]],
      ["after a finish reason", "chat", hello + stop, undefined, [true, true]],
      ["in a finish reason without its blank line", "chat", hello + stop.trim(), `${stop.trim()}\n\n`, [true, true]],
      ["in `[DONE]` without its blank line", "chat", hello + stop + "data: [DONE]\n", "data: [DONE]\n\n\n", [
        true,
        true
      ]],
      ["in half of the token counts", "chat", hello + stop + usage.slice(0, 30), undefined, [true, true]],
      ["in half of more text", "chat", hello + stop + hello.slice(0, -10), undefined, [false, false]],
      ["in half of a finish reason", "chat", hello + stop.slice(0, -10), undefined, [false, false]],
      ["after finish reasons with each piece", "chat", twice, undefined, [true, false]],
      ["after text that follows a finish reason", "chat", stop + hello, undefined, [false, false]],
      [
        "in a stop reason without its blank line",
        "messages",
        textDelta + stopReason("end_turn").trim(),
        `${stopReason("end_turn").trim()}\n\n`,
        [true, true]
      ],
      ["in half of another block", "messages", textDelta + stopReason("end_turn") + textDelta.slice(0, 25), undefined, [
        false,
        false
      ]],
      ["in half of message_stop", "messages", textDelta + stopReason("end_turn") + "event: mess", undefined, [
        true,
        true
      ]],
      ["after text", "responses", responseText, undefined, [false, false]],
      [
        "in response.completed without its blank line",
        "responses",
        responseText + completed.trim(),
        `${completed.trim()}\n\n`,
        [true, true]
      ]
    ]
    for (const [title, wire, text, passed, isComplete] of rows) {
      it(`${wire}: ${title}`, () => {
        for (const isLost of [false, true]) {
          const { guard } = fed(wire, text)
          const last = guard.end(isLost)
          assert.strictEqual(last === undefined ? undefined : Buffer.from(last).toString(), passed)
          assert.strictEqual(guard.isComplete, isComplete[isLost ? 1 : 0])
        }
      })
    }

    it("reads an error without its blank line", () => {
      const { guard } = fed("chat", hello + "data: {\"error\":{\"message\":\"x\"}}")
      assert.isUndefined(guard.end())
      assert.strictEqual(failed(guard), "Error")
      assert.strictEqual(
        Buffer.from(errorEnding(guard, { message: "m", code: "c" })).toString(),
        data({ error: { message: "x" } })
      )
    })

    it("adds what a complete answer lacks", () => {
      assert.strictEqual(fed("chat", stop).guard.ending, done)
      assert.strictEqual(fed("chat", stop + done).guard.ending, "")
      assert.strictEqual(fed("chat", stop + data({ error: { message: "late" } })).guard.ending, done)
      assert.strictEqual(fed("messages", stopReason("end_turn")).guard.ending, messageStop)
      assert.strictEqual(fed("messages", stopReason("end_turn") + messageStop).guard.ending, "")
      assert.strictEqual(fed("responses", completed).guard.ending, "")
    })
  })

  describe("reads a whole answer", () => {
    const rows: ReadonlyArray<readonly [Wire, object, string | undefined]> = [
      ["chat", { choices: [{ message: { content: "a" }, finish_reason: "stop" }] }, undefined],
      ["chat", { choices: [{ message: { content: "a" } }] }, undefined],
      ["chat", { choices: [{ message: { content: "a" }, finish_reason: "error" }] }, "Error"],
      ["chat", { choices: [{ message: { content: "a" } }, { index: 1, error: { message: "x" } }] }, "Error"],
      ["chat", { choices: [] }, "Malformed"],
      ["chat", { ok: true }, "Malformed"],
      ["messages", { content: [], stop_reason: "end_turn" }, undefined],
      ["messages", { content: [], stop_reason: "error" }, "Error"],
      ["messages", { type: "message" }, "Malformed"],
      ["responses", { status: "completed", error: null, output: [] }, undefined],
      ["responses", { status: "queued" }, undefined],
      ["responses", { status: "failed", error: { message: "x" } }, "Error"],
      ["responses", {}, "Malformed"]
    ]
    for (const [wire, answer, tag] of rows) {
      it(`${wire}: ${JSON.stringify(answer)} has ${tag ?? "no"} failure`, () => {
        const guard = new Guard(wire)
        guard.whole({ ...answer })
        assert.strictEqual(failed(guard), tag)
      })
    }
  })

  describe("ends an incomplete answer", () => {
    const words = { message: "The \"model\"\nstopped.", code: "idle_timeout" }

    it("with the error event of each wire", () => {
      const error = { message: words.message, type: "sluice_error", code: words.code, param: null }
      assert.strictEqual(errorEvent("chat", words), data({ error }))
      assert.strictEqual(
        errorEvent("messages", words),
        named("error", { error: { type: "api_error", message: words.message } })
      )
      assert.strictEqual(
        errorEvent("responses", { ...words, sequence: 8 }),
        named("error", { code: words.code, message: words.message, param: null, sequence_number: 8, error })
      )
    })

    it("without the provider's words about the server's credential", () => {
      const { guard } = fed("chat", hello + data({ error: { message: "Incorrect API key: sk-secret" } }))
      const end = Buffer.from(errorEnding(guard, { message: "m", code: "credential_refused" })).toString()
      assert.strictEqual(end, errorEvent("chat", { message: "m", code: "credential_refused" }))
    })

    it("with the next number of a stream of responses", () => {
      const number = (guard: Guard) =>
        /"sequence_number":(\d+)/.exec(Buffer.from(errorEnding(guard, words)).toString())?.[1]
      assert.strictEqual(number(fed("responses", responseText).guard), "8")
      assert.strictEqual(number(fed("responses", responseText + ": hi\n\n" + responseText.slice(0, 40)).guard), "8")
      assert.strictEqual(number(fed("responses", "").guard), "0")
      // Without numbers, the count of events is as good as any.
      assert.strictEqual(number(fed("responses", named("response.created")).guard), "1")
    })

    it("so that an official client would read it even after half an event", () => {
      const { guard, passed } = fed("chat", hello + hello.slice(0, 20))
      const text = passed + Buffer.from(errorEnding(guard, words)).toString()
      assert.deepStrictEqual(
        text.split("\n\n").filter((each) => each !== "").map((each) => Object.keys(JSON.parse(each.slice(6)))[0]),
        ["id", "error"]
      )
    })
  })
})
