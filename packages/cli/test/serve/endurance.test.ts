import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readdirSync } from "node:fs"
import type { Socket } from "node:net"
import { connect } from "node:net"
import { folder } from "../support/files.ts"
import { ask, type Gateway, send, start } from "../support/gateway.ts"
import { begin, finish, streamingProvider, word } from "../support/streamingProvider.ts"
import { processTimeout } from "../support/timeouts.ts"
import { memory, metric, snapshot, until, within } from "../support/witness.ts"

/** The same numbers from 0 to 1 in every run. */
const random = (seed: number) => () => {
  seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
  return seed / 2 ** 31
}

/** When a client leaves. Some of these are before the provider has its request. */
const moments = [
  "within its head",
  "within its body",
  "at once",
  "while it waits",
  "at the first bytes",
  "within the stream",
  "at the end"
] as const

const body = (isStream: boolean) =>
  JSON.stringify({ model: "m", stream: isStream, messages: [{ role: "user", content: "x".repeat(20_000) }] })

/** Connects, and rejects when that takes long, as it does when the system drops a connection that waits to be accepted. */
const connected = ({ port }: Pick<Gateway, "port">) =>
  within(
    "a connection",
    Effect.callback<Socket>((resume) => {
      const socket = connect(port, "127.0.0.1", () => resume(Effect.succeed(socket)))
      socket.on("error", () => {})
    })
  )

/** Leaves at this moment. Records when that was, by the number of the client. */
const leave = (
  socket: Socket,
  { token }: Gateway,
  moment: typeof moments[number],
  n: string,
  between: () => number,
  left: Map<string, number>
) =>
  within(
    `client ${n}, which leaves ${moment}`,
    Effect.callback<void>((resume) => {
      const go = () => {
        if (socket.destroyed) return
        left.set(n, performance.now())
        socket.destroy()
        resume(Effect.void)
      }
      const asked = body(Number(n.split("-")[1]) % 4 !== 0)
      const text =
        `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${token}\r\nX-Client: ${n}\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${asked.length}\r\n\r\n${asked}`
      let got = ""
      const last = 1 + Math.floor(between() * 5)
      socket.on("data", (data) => {
        got += data.toString()
        if (moment === "at the first bytes") go()
        if (moment === "within the stream" && got.split("word ").length > last) go()
        if (moment === "at the end" && got.includes("finish_reason")) go()
      })
      // The gateway may close first.
      socket.on("close", () => resume(Effect.void))
      switch (moment) {
        case "within its head":
          return void socket.write(text.slice(0, 60), go)
        case "within its body":
          return void socket.write(text.slice(0, 5_000), go)
        case "at once":
          return void socket.write(text, go)
        case "while it waits":
          socket.write(text)
          return void setTimeout(go, between() * 300)
        default:
          socket.write(text)
      }
    }),
    "40 seconds"
  )

/** Collects the garbage of the gateway, and returns its memory in MB. Node does so before it writes a picture of the heap. */
const collected = (gateway: Gateway, directory: string, round: number) =>
  Effect.gen(function*() {
    gateway.command.process.kill(pictureSignal)
    yield* until(
      "the heap was written",
      Effect.sync(() => readdirSync(directory).filter((file) => file.endsWith(".heapsnapshot")).length === round)
    )
    // It answers again.
    yield* within("the gateway", metric(gateway, "sluice_gateway_requests_in_flight"))
    return memory(gateway).now
  })

const quantile = (values: ReadonlyArray<number>, share: number): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? Infinity

const pictureSignal = "SIGUSR2"

const rounds = Number(process.env["SLUICE_ROUNDS"] ?? 2)

describe("500 clients that leave at random moments", { timeout: processTimeout }, () => {
  it.live("each upstream request closes soon, nothing stays held, and a further round takes no more memory", () =>
    Effect.gen(function*() {
      const between = random(11)
      const receivedAt = new Map<string, number>()
      const closedAt = new Map<string, number>()
      const provider = yield* streamingProvider(({ request, response }) => {
        const client = String(request.headers["x-client"])
        receivedAt.set(client, performance.now())
        response.once("close", () => closedAt.set(client, performance.now()))
        setTimeout(() => {
          if (response.destroyed) return
          begin({ response })
          let words = 0
          const timer = setInterval(() => {
            if (words++ < 12) response.write(word(`word ${words}`))
            else response.end(finish)
          }, 10)
          response.once("close", () => clearInterval(timer))
        }, between() * 200)
      })
      const directory = yield* folder
      const gateway = yield* start(
        directory,
        ["--target", `a=${provider.url}`, "--target", `b=${provider.url}`, "--concurrency", "120"],
        { NODE_OPTIONS: `--heapsnapshot-signal=${pictureSignal}` }
      )
      const levels: Array<number> = []
      const delays: Array<number> = []
      // How long anything takes: the processes of the tests compete for the machine.
      const probes: Array<number> = []
      const probing = Effect.forever(
        Effect.gen(function*() {
          const before = performance.now()
          yield* send(gateway, "/health")
          probes.push(performance.now() - before)
          yield* Effect.sleep(20)
        })
      )
      for (let round = 1; round <= rounds; round++) {
        const left = new Map<string, number>()
        // In ten storms, since the system keeps a limited number of connections that wait to be accepted.
        const storms = Effect.forEach(
          Array.from({ length: 10 }),
          (_, storm) =>
            Effect.forEach(Array.from({ length: 50 }), (_, client) =>
              Effect.flatMap(connected(gateway), (socket) => {
                const moment = moments[Math.floor(between() * moments.length)] ?? "at once"
                return leave(socket, gateway, moment, `${round}-${storm * 50 + client}`, between, left)
              }), { concurrency: "unbounded" }).pipe(Effect.delay(storm * 60)),
          { concurrency: "unbounded" }
        )
        const closed = until("the provider has no open response", Effect.sync(() => provider.open() === 0))
        yield* Effect.raceFirst(Effect.andThen(storms, closed), probing)
        yield* until(
          "no call is in flight",
          Effect.map(metric(gateway, "sluice_gateway_requests_in_flight"), (count) => count === 0)
        )
        // It reads its targets once a second.
        yield* until(
          "the live page shows nothing that is held",
          Effect.map(
            snapshot(gateway),
            ({ flights, head: { inFlight, phases }, targets }) =>
              flights.length + inFlight + phases.queued + phases.waiting + phases.streaming === 0 &&
              targets.every(({ queued, state, used }) => state === "closed" && used === 0 && queued === 0)
          )
        )
        for (const [client, at] of left) {
          const received = receivedAt.get(client)
          // Some leave before the provider has their request.
          if (received !== undefined) delays.push((closedAt.get(client) ?? Infinity) - Math.max(at, received))
        }
        levels.push(yield* collected(gateway, directory, round))
      }
      const [median, most] = [quantile(delays, 0.5), quantile(delays, 0.9)]
      const [usual, slow] = [quantile(probes, 0.5), quantile(probes, 0.9)]
      const figures = `milliseconds: ${median}, ${most}; of a probe: ${usual}, ${slow}; MB: ${levels.join(", ")}`
      assert.isAbove(delays.length, 200 * rounds)
      assert.isBelow(median, 100 + 4 * usual, figures)
      assert.isBelow(most, 1_000 + 4 * slow, figures)
      assert.isBelow(Math.max(...levels), (levels[0] ?? 0) + 25, figures)
    }))

  it.live("clients that leave as probes do not keep the circuit from closing", () =>
    Effect.gen(function*() {
      let isDown = true
      const provider = yield* streamingProvider((received) => {
        if (isDown) return void received.response.writeHead(500).end("{}")
        setTimeout(() => {
          begin(received)
          received.response.end(word("fine") + finish)
        }, 200)
      })
      const gateway = yield* start(yield* folder, ["--target", `a=${provider.url}`])
      const stateIs = (...states: ReadonlyArray<string>) =>
        Effect.map(snapshot(gateway), ({ targets }) => states.includes(targets[0]?.state ?? ""))
      for (let calls = 0; calls < 5; calls++) yield* ask(gateway, gateway.token)
      yield* until("the circuit is open", stateIs("open", "probe"))
      isDown = false
      const sent = provider.received.length
      const between = random(3)
      // Until one is a probe.
      yield* until(
        "a client left as a probe",
        Effect.gen(function*() {
          const socket = yield* connected(gateway)
          yield* leave(socket, gateway, "while it waits", "1-1", () => between() / 3, new Map())
          return provider.received.length > sent + 2
        })
      )
      yield* until(
        "a call is answered",
        Effect.map(ask(gateway, gateway.token, { stream: true }), ({ text }) => text.includes("[DONE]"))
      )
      yield* until("the circuit closes", stateIs("closed", "ramp"))
    }))
})
