/** Sends the tickets with the engine of `sluice run`, in the same format. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Engine from "../src/run/Engine.ts"
import type { Change } from "../src/run/Circuits.ts"
import type { Prompt } from "../src/run/Prompt.ts"
import type { Result } from "../src/run/Result.ts"
import type { Target } from "../src/run/Settings.ts"
import { Tally } from "../src/run/Tally.ts"
import { concurrency } from "./badDay.ts"
import type { Endpoint } from "./Provider.ts"
import type { Ticket } from "./tickets.ts"

export interface Run {
  readonly results: ReadonlyArray<Result>
  readonly tally: Tally
  /** Changes of the circuits, in milliseconds since the start of the run. */
  readonly circuits: ReadonlyArray<Change>
  readonly millis: number
}

export const run = Effect.fnUntraced(function*(
  endpoints: readonly [Endpoint, ...ReadonlyArray<Endpoint>],
  tickets: ReadonlyArray<Ticket>,
  onDone: () => void
) {
  const clock = yield* Clock.Clock
  const startedAt = clock.currentTimeMillisUnsafe()
  const tally = new Tally()
  const circuits: Array<Change> = []
  const [first, ...others] = endpoints.map(targetOf)
  if (first === undefined) return yield* Effect.die("endpoints is empty, against its type")
  const engine = yield* Engine.make(
    {
      targets: [first, ...others],
      allowInsecureKey: false,
      headers: {},
      omit: [],
      temperature: undefined,
      maxTokens: undefined,
      concurrency,
      maxAttempts: 5,
      timeoutMillis: 60_000,
      firstTokenTimeoutMillis: undefined,
      idleTimeoutMillis: 30_000,
      deadlineMillis: undefined,
      noStream: false,
      dedupeTtlMillis: 3_600_000,
      noShare: false,
      maxOutageMillis: 600_000,
      mask: (text) => text
    },
    {
      attemptStarted: () => tally.attemptStarted(),
      attemptFailed: (reason) => tally.attemptFailed(reason),
      paid: (usage) => tally.paid(usage),
      circuitChanged: (change) => circuits.push({ ...change, at: change.at - startedAt }),
      unusable: () => {}
    }
  )
  const complete = ({ id, prompt }: Ticket, index: number) =>
    Effect.suspend(() => {
      tally.promptStarted()
      return Effect.map(engine.complete(promptOf(id, index + 1, prompt)), ({ result }) => {
        tally.promptFinished(result)
        onDone()
        return result
      })
    })
  const results = yield* Stream.fromIterable(tickets).pipe(
    Stream.zipWithIndex,
    Stream.mapEffect(([ticket, index]) => complete(ticket, index), { concurrency: engine.maxPrompts, unordered: true }),
    Stream.runCollect
  )
  return { results, tally, circuits, millis: clock.currentTimeMillisUnsafe() - startedAt } satisfies Run
})

const targetOf = ({ key, url }: Endpoint, index: number): Target => ({
  name: index === 0 ? "first" : "second",
  wire: "openai",
  url,
  model: "rules",
  apiKey: Redacted.make(key),
  keySource: `the demo ${index}`
})

const promptOf = (id: string, line: number, prompt: string): Prompt => ({
  _tag: "Prompt",
  line,
  id,
  messages: [{ role: "user", content: prompt }],
  model: undefined,
  body: undefined
})
