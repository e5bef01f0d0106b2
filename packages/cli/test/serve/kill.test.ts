import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { request } from "node:http"
import { folder } from "../support/files.ts"
import { addKey, ask, type Gateway, keys, logsOf, start } from "../support/gateway.ts"
import { begin, finish, type Received, streamingProvider, word } from "../support/streamingProvider.ts"
import { processTimeout } from "../support/timeouts.ts"
import { memory, until, within } from "../support/witness.ts"

/** How a stream ended at the client. */
interface Got {
  readonly text: string
  readonly end: "clean" | "broken"
}

/** Asks for a stream over a connection of its own. */
const stream = (
  { port }: Pick<Gateway, "port">,
  token: string,
  onText: (text: string) => void = () => {}
): Effect.Effect<Got> =>
  Effect.callback((resume) => {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" }
    const options = { port, method: "POST", path: "/v1/chat/completions", headers, agent: false }
    let text = ""
    const over = (end: Got["end"]) => resume(Effect.succeed({ text, end }))
    const asked = request(options, (response) => {
      response.on("data", (data: Buffer) => onText(text += data.toString()))
      response.on("end", () => over("clean"))
      response.on("error", () => over("broken"))
    })
    asked.on("error", () => over("broken"))
    const messages = [{ role: "user", content: "Hello" }]
    asked.end(JSON.stringify({ model: "m", stream: true, max_tokens: 400, messages }))
    return Effect.sync(() => asked.destroy())
  })

/** Runs 200 streams, in storms of 50, and waits until each is at the provider. */
const many = (gateway: Gateway, token: string, received: ReadonlyArray<Received>) =>
  Effect.gen(function*() {
    const before = received.length
    const fibers: Array<Fiber.Fiber<Got>> = []
    for (let storm = 0; storm < 4; storm++) {
      for (let n = 0; n < 50; n++) fibers.push(yield* Effect.forkChild(stream(gateway, token)))
      yield* until("the provider has the requests", Effect.sync(() => received.length >= before + fibers.length))
    }
    return within("the ends of the streams", Effect.forEach(fibers, (fiber) => Fiber.join(fiber)), "40 seconds")
  })

const stop = (gateway: Gateway, signal: "SIGKILL" | "SIGTERM") => {
  gateway.command.process.kill(signal)
  return within("the end of the gateway", Effect.promise(() => gateway.command.ended), "40 seconds")
}

/** Writes the first word of each stream, and keeps the streams open. */
const heldProvider = streamingProvider((received) => {
  begin(received)
  received.response.write(word("one"))
})

const counts = (texts: ReadonlyArray<string>): { readonly [text: string]: number } => {
  const counted: Record<string, number> = {}
  for (const text of texts) counted[text] = (counted[text] ?? 0) + 1
  return counted
}

describe("200 streams of sluice serve", { timeout: processTimeout }, () => {
  it.live("at SIGTERM all of them are finished", () =>
    Effect.gen(function*() {
      const provider = yield* heldProvider
      const gateway = yield* start(yield* folder, ["--target", `a=${provider.url}`])
      const before = memory(gateway).now
      const ends = yield* many(gateway, gateway.token, provider.received)
      assert.isBelow((memory(gateway).now - before) / 200, 0.25, "MB for a stream")
      gateway.command.process.kill("SIGTERM")
      yield* until(
        "the port is closed",
        Effect.map(stream(gateway, gateway.token), ({ end, text }) => end === "broken" && text === "")
      )
      for (const { response } of provider.received) response.end(word("two") + finish)
      const got = yield* ends
      assert.deepStrictEqual(counts(got.map(({ end, text }) => `${end} ${text.slice(-14)}`)), {
        "clean data: [DONE]\n\n": 200
      })
      assert.isTrue(got.every(({ text }) => text.includes("one") && text.includes("two")))
      // A second signal would end it at once.
      const { code, stderr } = yield* within(
        "the end of the gateway",
        Effect.promise(() => gateway.command.ended),
        "40 seconds"
      )
      assert.strictEqual(code, 0, stderr)
      assert.deepStrictEqual(
        counts(logsOf(stderr).filter(({ event }) => event === "request").map(({ result }) => String(result))),
        { ok: 200 }
      )
    }))

  it.live("after --drain-timeout all of them end with an error event, and upstream is closed", () =>
    Effect.gen(function*() {
      const provider = yield* heldProvider
      const gateway = yield* start(yield* folder, ["--target", `a=${provider.url}`, "--drain-timeout", "300ms"])
      const ends = yield* many(gateway, gateway.token, provider.received)
      const ended = yield* stop(gateway, "SIGTERM")
      assert.strictEqual(ended.code, 0, ended.stderr)
      const got = yield* ends
      const last = ({ end, text }: Got) => `${end} ${/data: \{"error".*"code":"(\w+)".*\}\n\n$/.exec(text)?.[1]}`
      assert.deepStrictEqual(counts(got.map(last)), { "clean backpressure_shed": 200 })
      yield* until("upstream is closed", Effect.sync(() => provider.open() === 0))
    }))
})

describe("sluice serve after SIGKILL", { timeout: processTimeout }, () => {
  it.live("clients see a broken connection, and a gateway on the same port has the keys and what they spent", () =>
    Effect.gen(function*() {
      let isHeld = false
      const usage = `data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":900}}\n\n`
      const provider = yield* streamingProvider((received) => {
        begin(received)
        received.response.write(word("one"))
        if (!isHeld) received.response.end(finish.replace("data: [DONE]", `${usage}data: [DONE]`))
      })
      const directory = yield* folder
      const flags = ["--target", `a=${provider.url}`, "--price", "1,1"]
      const token = yield* addKey(directory, "ann", "--max-cost-per-day", "0.005")
      const removed = yield* addKey(directory, "bob")
      const gateway = yield* start(directory, flags)
      for (let calls = 0; calls < 3; calls++) assert.include((yield* stream(gateway, token)).text, "[DONE]")
      assert.strictEqual((yield* keys(directory, "remove", "bob")).code, 0)

      isHeld = true
      const texts = new Map<number, string>()
      const running = yield* Effect.forEach(
        [0, 1, 2],
        (n) => Effect.forkChild(stream(gateway, token, (text) => texts.set(n, text)))
      )
      yield* until("the clients have a part", Effect.sync(() => [0, 1, 2].every((n) => texts.get(n)?.includes("one"))))
      yield* stop(gateway, "SIGKILL")
      const got = yield* within("the ends", Effect.forEach(running, (fiber) => Fiber.join(fiber)))
      assert.deepStrictEqual(got.map(({ end }) => end), ["broken", "broken", "broken"])
      yield* until("upstream is closed", Effect.sync(() => provider.open() === 0))

      isHeld = false
      const again = yield* start(directory, flags, {}, gateway.port)
      assert.strictEqual(again.port, gateway.port)
      assert.include((yield* keys(directory, "list")).stdout, "$0.003 of $0.005")
      assert.strictEqual((yield* ask(again, token, { max_tokens: 3_000 })).status, 429)
      assert.include((yield* stream(again, token)).text, "[DONE]")
      assert.strictEqual((yield* ask(again, removed)).status, 401)
    }))

  it.live("a gateway that is killed again and again always starts, and counts the cost of what it answered", () =>
    Effect.gen(function*() {
      const provider = yield* streamingProvider(({ response }) => {
        response.writeHead(200, { "content-type": "application/json" })
        response.end(
          `{"choices":[{"message":{"content":"fine"},"finish_reason":"stop"}],"usage":${
            JSON.stringify({ prompt_tokens: 0, completion_tokens: 1_000 })
          }}`
        )
      })
      const directory = yield* folder
      const token = yield* addKey(directory, "ann", "--max-cost-per-day", "100")
      const flags = ["--target", `a=${provider.url}`, "--price", "1,1"]
      let port = 0
      let answered = 0
      for (let kills = 0; kills < 3; kills++) {
        const gateway = yield* start(directory, flags, {}, port)
        port = gateway.port
        const calls = yield* Effect.forEach(
          Array.from({ length: 4 }),
          () =>
            Effect.forkChild(Effect.forever(Effect.tap(ask(gateway, token), ({ status }) =>
              Effect.sync(() => {
                if (status === 200) answered++
              }))))
        )
        const enough = answered + 15
        yield* until("some calls were answered", Effect.sync(() => answered >= enough))
        yield* stop(gateway, "SIGKILL")
        yield* within("the calls", Effect.forEach(calls, Fiber.await))
      }
      const { stdout } = yield* keys(directory, "list")
      const dollars = Number(/\$([\d.]+) of/.exec(stdout)?.[1])
      // A call is counted in the turn after its answer, so the last ones of each gateway can be missing.
      assert.isAtLeast(dollars, (answered - 3 * 4) / 1_000)
      assert.isAtMost(dollars, provider.received.length / 1_000)
    }))
})
