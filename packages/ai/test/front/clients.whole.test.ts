import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Logger } from "effect"
import type * as Http from "node:http"
import type { Wire } from "../../src/internal/front/guard.ts"
import { rawServer } from "../support/rawServer.ts"
import { both, cellHeader, type OfficialClient, ways, wholeClients } from "./clients.ts"
import { frontOf, within } from "./edges.ts"
import { wires } from "./wires.ts"

// Every fault of an answer that is not streamed, for every official client, through every edge. The client has the answer of the
// second attempt, or an error if there is none.

const answers: { readonly [_ in Wire]: string } = {
  chat: JSON.stringify({
    id: "c1",
    object: "chat.completion",
    created: 1_700_000_000,
    model: "m",
    choices: [{ index: 0, message: { role: "assistant", content: "fine" }, finish_reason: "stop" }],
    usage: { prompt_tokens: 3, completion_tokens: 1, total_tokens: 4 }
  }),
  messages: JSON.stringify({
    id: "m1",
    type: "message",
    role: "assistant",
    model: "m",
    content: [{ type: "text", text: "fine" }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: { input_tokens: 3, output_tokens: 1 }
  }),
  responses: JSON.stringify({
    id: "r1",
    object: "response",
    created_at: 1_700_000_000,
    model: "m",
    status: "completed",
    error: null,
    incomplete_details: null,
    output: [{
      id: "i1",
      type: "message",
      role: "assistant",
      status: "completed",
      content: [{ type: "output_text", text: "fine", annotations: [] }]
    }],
    usage: { input_tokens: 3, output_tokens: 1, total_tokens: 4 }
  })
}

const type = { "content-type": "application/json" }
const half = (answer: string): string => answer.slice(0, answer.length / 2)
const error = JSON.stringify({ type: "error", error: { type: "server_error", message: "secret words" } })

interface Fault {
  readonly name: string
  readonly make: (response: Http.ServerResponse, answer: string) => void
  /** The words of the error, if every attempt fails so. */
  readonly words: string
}

const unreadable = "A part of the answer cannot be read."

const faults: ReadonlyArray<Fault> = [
  {
    name: "a cut",
    make: (response, answer) => {
      response.writeHead(200, { ...type, "content-length": answer.length })
      response.write(half(answer), () => response.destroy())
    },
    words: "The answer ended before it was complete."
  },
  {
    name: "a clean end within",
    make: (response, answer) => void response.writeHead(200, type).end(half(answer)),
    words: unreadable
  },
  {
    name: "a reset",
    make: (response) => void response.socket?.resetAndDestroy(),
    words: "The connection to the model's provider failed."
  },
  {
    name: "a stall",
    make: (response, answer) => void response.writeHead(200, type).write(half(answer)),
    words: "The model did not answer in time."
  },
  {
    name: "a body that is not JSON",
    make: (response) => void response.writeHead(200, type).end("<html>"),
    words: unreadable
  },
  {
    name: "an error with status 200",
    make: (response) => void response.writeHead(200, type).end(error),
    words: "The model's provider failed."
  },
  {
    name: "status 503",
    make: (response) => void response.writeHead(503, type).end(error),
    words: "secret words"
  }
]

interface Cell {
  readonly name: string
  readonly client: OfficialClient
  readonly fault: Fault
  /** Whether each attempt fails. */
  readonly always: boolean
}

const cells: ReadonlyArray<Cell> = wholeClients.flatMap((client) =>
  faults.flatMap((fault) =>
    [false, true].map((always) => ({
      name: `${client.name}: ${fault.name}${always ? ", always" : ""}`,
      client,
      fault,
      always
    }))
  )
)

const provider = Effect.gen(function*() {
  const counts = new Map<string, number>()
  const server = yield* rawServer((response, { headers, path }) => {
    const name = String(headers[cellHeader])
    const count = (counts.get(name) ?? 0) + 1
    counts.set(name, count)
    const cell = cells.find((cell) => cell.name === name)
    const answer = answers[wires.find((wire) => wire.path === path)!.wire]
    if (cell !== undefined && (count === 1 || cell.always)) cell.fault.make(response, answer)
    else response.writeHead(200, type).end(answer)
  })
  return { server, requestsOf: ({ name }: Cell) => counts.get(name) ?? 0 }
})

describe("the official clients, without a stream", () => {
  for (const way of ways) {
    it.live(
      `each has the answer of the second attempt, or an error that says what happened, through ${way.name}`,
      () =>
        Effect.gen(function*() {
          assert.strictEqual(cells.length, 7 * 7 * 2)
          const { requestsOf, server } = yield* provider
          // A busy machine takes longer than a short limit.
          const placeOf = (attemptTimeout: Duration.Input) =>
            Effect.flatMap(frontOf(both(server.url), { translate: false, attemptTimeout }), way.place)
          const [patient, short] = [yield* placeOf("40 seconds"), yield* placeOf("5 seconds")]
          const found = yield* Effect.forEach(cells, (cell) =>
            Effect.map(
              Effect.promise(() => cell.client.ask(cell.fault.name === "a stall" ? short : patient, cell.name)),
              (seen) => {
                const requests = requestsOf(cell)
                const isRight = cell.always
                  ? requests === 3 && seen.text === "" && seen.error?.includes(cell.fault.words) === true
                  : requests === 2 && seen.text === "fine" && seen.error === undefined
                return isRight ? [] : [`${cell.name}: ${JSON.stringify({ requests, ...seen })}`]
              }
            ), { concurrency: 16 })
          assert.deepStrictEqual(found.flat(), [])
          // The front warns of equal prompts that come again.
        }).pipe(Effect.scoped, (self) => within(self, "2 minutes"), Effect.provide(Logger.layer([]))),
      150_000
    )
  }
})
