import * as Asker from "@sluice/batch/Asker"
import * as Batches from "@sluice/batch/Batches"
import * as BatchMachine from "@sluice/batch/BatchMachine"
import { Effect, Layer, Stream } from "effect"

/** An asker that a test scripts, and what it was asked. */
export class Scripted {
  readonly asked: Array<Asker.Asked> = []
  waiting: { readonly for: string; readonly until: number | undefined } | undefined
  answer: (asked: Asker.Asked) => Effect.Effect<Asker.Answer, Asker.AskLater> = ({ body }) => Effect.succeed(ok(body))

  stop: Effect.Effect<unknown> = Effect.void

  readonly layer = Layer.sync(Asker.Asker, () =>
    Asker.Asker.of({
      ask: (asked) =>
        Effect.suspend(() => {
          this.asked.push(asked)
          return this.answer(asked)
        }),
      waiting: Effect.sync(() => this.waiting),
      stop: Effect.suspend(() => Effect.asVoid(this.stop))
    }))
}

export const ok = (body: string, micros = 0): Asker.Answer => ({
  kind: "ok",
  body,
  inputTokens: 3,
  outputTokens: 2,
  micros
})

export const machine = (scripted: Scripted, options?: Partial<BatchMachine.BatchMachineOptions>) =>
  BatchMachine.layer({ inFlight: 50, feeder: { every: "20 millis" }, ...options }).pipe(
    Layer.provide(scripted.layer),
    Layer.provide(Batches.migrations.layer)
  )

export const requests = (count: number) =>
  Stream.range(0, count - 1).pipe(Stream.map((n) => ({ key: `k${n}`, body: `request ${n}` })))

/** As `requests`, added over three seconds, so that a signal of a busy machine hits them. */
export const slowRequests = (count: number) => {
  const pauseEvery = Math.ceil(count / 20)
  return Stream.mapEffect(
    requests(count),
    (request, n) => n % pauseEvery === pauseEvery - 1 ? Effect.as(Effect.sleep(150), request) : Effect.succeed(request)
  )
}
