import Anthropic from "@anthropic-ai/sdk"
import OpenAI from "openai"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import type * as Front from "@sluice/ai/Front"
import { type Answer, json, rawServer } from "../support/rawServer.ts"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { edges, fetched, frontOf, until, within } from "./edges.ts"
import { Sent, Splicer } from "../../src/internal/front/continuation.ts"
import { random } from "./streams.ts"
import { anthropic, chat, type FrontWire, responses } from "./wires.ts"

const at = (url: string, wire: FrontWire, more?: Partial<Front.FrontTarget>): Front.FrontTarget => ({
  name: "a",
  url,
  speaks: wire.speaks,
  breaker: false,
  ...more
})

/** Sends the events and breaks the connection. */
const cut = (text: string): Answer => (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" })
  response.write(text, () => setTimeout(() => response.destroy(), 5))
}

const whole = (wire: FrontWire, ...words: ReadonlyArray<string>): Answer => (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" })
  response.end(wire.head + words.map(wire.word).join("") + wire.finish + wire.end)
}

const jsonOf = (event: string): Record<string, ReturnType<typeof JSON.parse>> =>
  JSON.parse(/^data: (.*)$/m.exec(event)?.[1] ?? "{}")

const eventsOf = (text: string) =>
  text.split("\n\n").filter((event) => event !== "" && !event.includes("[DONE]")).map(jsonOf)

const textOf = (text: string): string =>
  eventsOf(text).map(({ choices, delta }) => choices?.[0]?.delta?.content ?? delta?.text ?? "").join("")

const lastMessage = (body: string) => JSON.parse(body).messages.at(-1)

/** Beginnings of clients' streams. Every one has to be the beginning of one coherent stream. */
const begins = (events: ReturnType<typeof eventsOf>) =>
  events.filter(({ choices, type }) => type === "message_start" || choices?.[0]?.delta?.role !== undefined).length

describe("a target with prefill", () => {
  const answers: ReadonlyArray<readonly [title: string, words: ReadonlyArray<string>]> = [
    ["goes on", [" brown", " fox"]],
    ["repeats the beginning", ["Amber quick", " brown fox"]],
    ["repeats the beginning in pieces and with white space", ["\n", "Amber", " qu", "ick brown", " fox"]]
  ]
  for (const wire of [chat, anthropic]) {
    for (const [title, words] of answers) {
      it.live(`${wire.wire}: a stream that is cut goes on as one stream, if the target ${title}`, () =>
        Effect.gen(function*() {
          const first = yield* rawServer(cut(wire.head + wire.word("Amber ") + wire.word("quick")))
          const second = yield* rawServer(whole(wire, ...words))
          const front = yield* frontOf([at(first.url, wire), at(second.url, wire, { name: "b", prefill: true })])
          for (const edge of edges) {
            const got = yield* within(edge.ask(front, { path: wire.path, body: wire.stream }))
            const events = eventsOf(got.text)
            assert.deepStrictEqual(
              [got.status, got.end, textOf(got.text)],
              [200, "Clean", "Amber quick brown fox"],
              edge.name
            )
            assert.strictEqual(begins(events), 1)
            if (wire === chat) {
              assert.isTrue(got.text.endsWith("data: [DONE]\n\n"))
              assert.strictEqual(
                events.find(({ choices }) => choices?.[0]?.finish_reason)?.["choices"][0].finish_reason,
                "stop"
              )
              assert.deepStrictEqual([...new Set(events.map(({ id }) => id))], ["c1"])
            } else {
              const blocks = events.filter(({ type }) => String(type).startsWith("content_block_"))
              assert.strictEqual(blocks.filter(({ type }) => type === "content_block_start").length, 1)
              assert.strictEqual(blocks.at(-1)?.["type"], "content_block_stop")
              assert.deepStrictEqual([...new Set(blocks.map(({ index }) => index))], [0])
              assert.strictEqual(events.at(-1)?.["type"], "message_stop")
            }
            const { body, headers } = second.requests.at(-1)!
            assert.deepStrictEqual(lastMessage(body), { role: "assistant", content: "Amber quick" })
            // Everything else passes as it is.
            if (wire === chat) assert.include(body, "12345678901234567890")
            assert.notStrictEqual(headers["idempotency-key"], first.requests.at(-1)?.headers["idempotency-key"])
            const log = front.call(got.headers["x-sluice-call"]!)
            assert.deepStrictEqual([log?.result, log?.answeredBy, log?.steps.length], ["Success", "b", 2])
            const [cutStep] = log?.steps ?? []
            assert.strictEqual(cutStep?._tag === "Attempt" ? cutStep.next : "", "Continue")
          }
        }).pipe(Effect.scoped))
    }
  }

  it.live("the official clients read one message", () =>
    Effect.gen(function*() {
      const options = { baseURL: "http://front/v1", apiKey: "-", maxRetries: 0 }
      const messages = [{ role: "user" as const, content: "Hello" }]
      for (const wire of [chat, anthropic]) {
        const first = yield* rawServer(cut(wire.head + wire.word("Amber ") + wire.word("quick")))
        const second = yield* rawServer(whole(wire, "Amber quick", " brown fox"))
        const front = yield* frontOf([at(first.url, wire), at(second.url, wire, { name: "b", prefill: true })])
        const text = yield* Effect.promise(async () => {
          if (wire === chat) {
            const client = new OpenAI({ ...options, fetch: front.fetch })
            const completion = await client.chat.completions.stream({ model: "m", messages }).finalChatCompletion()
            return completion.choices[0]?.message.content
          }
          const client = new Anthropic({ ...options, baseURL: "http://front", fetch: front.fetch })
          const message = await client.messages.stream({ model: "m", max_tokens: 9, messages }).finalMessage()
          return message.content.map((block) => block.type === "text" ? block.text : block.type).join("|")
        })
        assert.strictEqual(text, "Amber quick brown fox", wire.wire)
      }
    }).pipe(Effect.scoped))

  it.live("translated: a stream goes on at a target with the other API", () =>
    Effect.gen(function*() {
      for (const [client, target] of [[chat, anthropic], [anthropic, chat]] as const) {
        const first = yield* rawServer(cut(client.head + client.word("Amber quick")))
        const second = yield* rawServer(whole(target, "Amber quick", " brown", " fox"))
        const front = yield* frontOf([at(first.url, client), at(second.url, target, { name: "b", prefill: true })])
        // Without the numbers that have no equal in the other API.
        const body = JSON.stringify({
          model: "m",
          max_tokens: 9,
          stream: true,
          messages: [{ role: "user", content: "Hi" }]
        })
        const got = yield* within(fetched.ask(front, { path: client.path, body }))
        assert.deepStrictEqual([textOf(got.text), got.end], ["Amber quick brown fox", "Clean"], client.wire)
        assert.strictEqual(begins(eventsOf(got.text)), 1)
        const last = lastMessage(second.requests[0]!.body)
        assert.strictEqual(last.role, "assistant")
        assert.include(JSON.stringify(last.content), "Amber quick")
      }
    }).pipe(Effect.scoped))

  it.live("a second cut goes on too, and an attempt that fails first is replaced", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response, received, n) => {
        const answer = [
          cut(chat.head + chat.word("one ")),
          ((response) => json(response, 503, { error: { message: "busy" } })) satisfies Answer,
          cut(chat.head + chat.word("one two ")),
          whole(chat, "three")
        ][n - 1]
        answer?.(response, received, n)
      })
      const front = yield* frontOf([at(provider.url, chat, { prefill: true })], {
        retry: RetryPolicy.exponential({ baseDelay: "1 milli", maxAttempts: 4 })
      })
      const got = yield* within(fetched.ask(front, { path: chat.path, body: chat.stream }))
      assert.strictEqual(textOf(got.text), "one two three")
      assert.strictEqual(provider.requests.length, 4)
      assert.strictEqual(lastMessage(provider.requests[3]!.body).content, "one two")
    }).pipe(Effect.scoped))

  it.live("a stream whose continuation fails ends with the error event, and nothing stays held", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response, received, n) =>
        n === 1
          ? cut(chat.head + chat.word("one"))(response, received, n)
          : json(response, 503, { error: { message: "secret" } })
      )
      const front = yield* frontOf([at(provider.url, chat, { prefill: true, backpressure: { capacity: 1 } })])
      const got = yield* within(fetched.ask(front, { path: chat.path, body: chat.stream }))
      assert.strictEqual(textOf(got.text), "one")
      assert.match(got.text, /data: \{"error":\{[^\n]*\}\n\n$/)
      assert.notInclude(got.text, "secret")
      const [target] = yield* front.targets
      assert.strictEqual(target?.permits?.running, 0)
    }).pipe(Effect.scoped))

  it.live("a client that leaves while its answer is continued, and a front that closes, free everything", () =>
    Effect.gen(function*() {
      for (const ends of ["client", "front"] as const) {
        let closed = false
        const first = yield* rawServer(cut(chat.head + chat.word("one")))
        const second = yield* rawServer((response) => {
          response.on("close", () => {
            closed = true
          })
        })
        const scope = yield* Scope.make()
        const front = yield* Scope.provide(
          frontOf([
            at(first.url, chat),
            at(second.url, chat, { name: "b", prefill: true, backpressure: { capacity: 1 } })
          ]),
          scope
        )
        const leaving = new AbortController()
        const text = yield* Effect.forkScoped(
          Effect.promise(() =>
            front.fetch(`http://front${chat.path}`, { method: "POST", body: chat.stream, signal: leaving.signal })
              .then((response) => response.text())
              .catch((error: unknown) => String(error))
          ),
          { startImmediately: true }
        )
        yield* within(until(() => second.requests.length === 1))
        if (ends === "client") leaving.abort()
        else yield* Scope.close(scope, Exit.void)
        assert.include(yield* within(Fiber.join(text)), ends === "client" ? "AbortError" : "backpressure_shed")
        yield* within(until(() => closed))
        assert.isTrue(closed, ends)
        const targets = yield* front.targets
        assert.strictEqual(targets[1]?.permits?.running, 0, ends)
        yield* Scope.close(scope, Exit.void)
      }
    }).pipe(Effect.scoped))

  const tool = `data: ${
    JSON.stringify({
      id: "c1",
      choices: [{ index: 0, delta: { tool_calls: [{ index: 0, function: { name: "f" } }] } }]
    })
  }\n\n`
  const refused: ReadonlyArray<readonly [title: string, wire: FrontWire, sent: string, body: string]> = [
    ["with a tool call", chat, chat.head + chat.word("one") + tool, chat.stream],
    ["with several choices", chat, chat.head + chat.word("one"), chat.stream.replace("{", "{\"n\":2,")],
    ["of responses", responses, responses.head + responses.word("one"), responses.stream],
    [
      "whose prompt ends with an answer",
      chat,
      chat.head + chat.word("one"),
      JSON.stringify({
        model: "m",
        stream: true,
        messages: [{ role: "user", content: "a" }, { role: "assistant", content: "b" }]
      })
    ]
  ]
  for (const [title, wire, sent, body] of refused) {
    it.live(`a stream ${title} does not go on`, () =>
      Effect.gen(function*() {
        const provider = yield* rawServer(cut(sent))
        const front = yield* frontOf([at(provider.url, wire, { prefill: true })])
        const got = yield* within(fetched.ask(front, { path: wire.path, body }))
        assert.include(got.text, "truncated_stream")
        assert.strictEqual(provider.requests.length, 1)
      }).pipe(Effect.scoped))
  }
})

describe("Splicer", () => {
  for (const wire of [chat, anthropic]) {
    it(`${wire.wire}: the client has each text once, wherever the first stream is cut and however the second one is split`, () => {
      const draw = random(7)
      const pieces = (text: string) => {
        const split: Array<string> = []
        for (let at = 0; at < text.length;) {
          const length = 1 + draw(9)
          split.push(text.slice(at, at + length))
          at += length
        }
        return split.map(wire.word).join("")
      }
      // Words that differ, so that no text repeats by itself.
      const text = Array.from({ length: 12 }, (_, n) => `w${n}ö`).join(" ")
      for (let round = 0; round < 500; round++) {
        const at = 1 + draw(text.length - 2)
        const before = Buffer.from(wire.head + pieces(text.slice(0, at)))
        const sent = new Sent(1e6)
        sent.add(before)
        const partial = sent.partial(wire === chat ? "chat" : "messages")!
        const { prefill } = partial.answer
        const repeats = draw(2) === 1
        const splicer = new Splicer(wire === chat ? "chat" : "messages", partial)
        const second = wire.head + pieces(repeats ? text : text.slice(prefill.length)) + wire.finish + wire.end
        // Whole events, as the guard passes them on.
        const events = second.split("\n\n").filter((event) => event !== "").map((event) => `${event}\n\n`)
        const after = events.map((event) => Buffer.from(splicer.feed(Buffer.from(event)) ?? "").toString())
        const all = before.toString() + after.join("")
        assert.strictEqual(textOf(all), text, JSON.stringify({ at, repeats }))
        assert.strictEqual(begins(eventsOf(all)), 1)
      }
    })
  }

  it("chat: a stream that is larger than its bound does not go on", () => {
    const sent = new Sent(10)
    sent.add(Buffer.from(chat.head + chat.word("one")))
    assert.isUndefined(sent.partial("chat"))
  })

  it("messages: a text that had ended stays, and a second block follows with its own number", () => {
    const sent = new Sent(1e6)
    const stop = `event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n`
    sent.add(Buffer.from(anthropic.head + anthropic.word("one") + stop))
    const splicer = new Splicer("messages", sent.partial("messages")!)
    const tool = [
      { type: "content_block_start", index: 1, content_block: { type: "tool_use", id: "t", name: "f", input: {} } },
      { type: "content_block_delta", index: 1, delta: { type: "input_json_delta", partial_json: "{}" } },
      { type: "content_block_stop", index: 1 }
    ].map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join("")
    const out = splicer.feed(Buffer.from(anthropic.head + anthropic.word("one two") + stop + tool + anthropic.end))
    const shown = eventsOf(Buffer.from(out ?? "").toString()).map(({ index, type }) => [type, index])
    assert.deepStrictEqual(shown, [
      ["content_block_start", 1],
      ["content_block_delta", 1],
      ["content_block_stop", 1],
      ["content_block_start", 2],
      ["content_block_delta", 2],
      ["content_block_stop", 2],
      ["message_stop", undefined]
    ])
  })
})
