/** The tickets through the engine of `sluice run`, over the same wire. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Engine from "../src/run/Engine.ts"
import type { Circuit } from "../src/run/Progress.ts"
import type { Prompt } from "../src/run/Prompt.ts"
import type { Result } from "../src/run/Result.ts"
import { Tally } from "../src/run/Tally.ts"
import { concurrency } from "./badDay.ts"
import type { Ticket } from "./tickets.ts"

/** A change of the circuit, in milliseconds since the run began. */
export interface Change {
  readonly at: number
  readonly circuit: Circuit
}

export interface Run {
  readonly results: ReadonlyArray<Result>
  readonly tally: Tally
  readonly circuit: ReadonlyArray<Change>
  readonly millis: number
}

export const run = Effect.fnUntraced(function*(
  provider: { readonly url: string; readonly key: string },
  tickets: ReadonlyArray<Ticket>,
  onDone: () => void
) {
  const clock = yield* Clock.Clock
  const startedAt = clock.currentTimeMillisUnsafe()
  const tally = new Tally()
  const circuit: Array<Change> = []
  const engine = yield* Engine.make(
    {
      url: provider.url,
      model: "rules",
      apiKey: Redacted.make(provider.key),
      keySource: "the demonstration",
      allowInsecureKey: false,
      temperature: undefined,
      maxTokens: undefined,
      concurrency,
      maxAttempts: 5,
      timeoutMillis: 60_000,
      dedupeTtlMillis: 3_600_000,
      noShare: false,
      maxOutageMillis: 600_000
    },
    {
      called: () => tally.called(),
      attemptFailed: (reason) => tally.attemptFailed(reason),
      circuit: (state) => circuit.push({ at: clock.currentTimeMillisUnsafe() - startedAt, circuit: state })
    }
  )
  const ask = ({ id, prompt }: Ticket, index: number) =>
    Effect.suspend(() => {
      tally.started()
      return Effect.tap(engine.ask(promptOf(id, index + 1, prompt)), (result) =>
        Effect.sync(() => {
          tally.finished(result)
          onDone()
        }))
    })
  const results = yield* Stream.fromIterable(tickets).pipe(
    Stream.zipWithIndex,
    Stream.mapEffect(([ticket, index]) => ask(ticket, index), { concurrency: engine.places, unordered: true }),
    Stream.runCollect
  )
  return { results, tally, circuit, millis: clock.currentTimeMillisUnsafe() - startedAt } satisfies Run
})

const promptOf = (id: string, line: number, prompt: string): Prompt => ({
  _tag: "Prompt",
  line,
  id,
  messages: [{ role: "user", content: prompt }],
  model: undefined,
  temperature: undefined,
  maxTokens: undefined,
  body: undefined
})
