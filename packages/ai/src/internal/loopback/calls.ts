import { CurrentAttempt } from "@sluice/core/RetryPolicy"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { CurrentIdempotencyKey } from "../../IdempotencyKey.ts"
import type * as ScriptedModel from "../../testing/ScriptedModel.ts"
import * as Turn from "../../testing/Turn.ts"
import { Attempts } from "./attempts.ts"
import { type Conversation, countTokens } from "./conversation.ts"
import type * as Scripted from "./scripted.ts"
import type { Pace } from "./speech.ts"
import { Turns } from "./turns.ts"

/** The options of a scripted model, with all defaults. */
export interface Settings {
  readonly turns: Turn.Turns | undefined
  readonly pace: Pace
  readonly streamErrors: "parts" | "failures"
  /** The text of a turn without content. */
  readonly say: (prompt: string) => string
}

/** Starts the calls of a scripted model, and keeps its journal. */
export class Calls {
  private readonly settings: Settings
  private readonly clock: Clock.Clock
  private readonly attempts = new Attempts()
  private readonly turns: Turns
  private calls: Array<Scripted.Draft> = []
  private count = 0
  private openNow = 0
  private began: number

  constructor(settings: Settings, clock: Clock.Clock) {
    this.settings = settings
    this.clock = clock
    this.turns = new Turns(settings.turns)
    this.began = this.now()
  }

  readonly journal: Effect.Effect<ReadonlyArray<ScriptedModel.Call>> = Effect.sync(() =>
    this.calls.map((call) => ({ ...call }))
  )

  readonly open: Effect.Effect<number> = Effect.sync(() => this.openNow)

  readonly clear: Effect.Effect<void> = Effect.sync(() => {
    this.calls = []
    this.count = 0
    this.began = this.now()
    this.attempts.clear()
    this.turns.clear()
  })

  /** Starts a call of the current fiber. */
  begin(method: ScriptedModel.Call["method"], conversation: () => Conversation): Effect.Effect<Scripted.Run> {
    return Effect.withFiber((fiber) =>
      Effect.sync(() =>
        this.add(
          method,
          conversation(),
          fiber.getRef(CurrentAttempt)?.attempt,
          fiber.getRef(CurrentIdempotencyKey)
        )
      )
    )
  }

  private add(
    method: ScriptedModel.Call["method"],
    { digest, messages, model, prompt }: Conversation,
    stated: number | undefined,
    idempotencyKey: string | undefined
  ): Scripted.Run {
    const { streamErrors, pace, say } = this.settings
    const n = ++this.count
    const attempt = this.attempts.next(digest, stated)
    const startedAt = this.now()
    const stream = method === "streamText"
    const turn = this.turns.next({ n, attempt, prompt, model, wire: undefined, stream, at: startedAt - this.began })
    const call: Scripted.Draft = {
      n,
      attempt,
      method,
      model,
      prompt,
      digest,
      ...(turn === undefined ? {} : { turn: turn._tag }),
      startedAt,
      ending: "open",
      ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
      inputTokens: 0,
      outputTokens: 0,
      open: ++this.openNow
    }
    this.calls.push(call)
    return {
      call,
      turn: turn ?? Turn.answer(),
      defaultText: say(prompt),
      inputTokens: countTokens(messages),
      pace,
      streamErrors,
      now: () => this.now(),
      end: (ending) => this.end(call, ending)
    }
  }

  /** Only the first end of a call counts. */
  private end(call: Scripted.Draft, ending: ScriptedModel.Call["ending"]): void {
    if (call.ending !== "open") return
    call.ending = ending
    call.endedAt = this.now()
    this.openNow--
  }

  private now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }
}
