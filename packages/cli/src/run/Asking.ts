import type * as AiError from "effect/ai/AiError"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import { Trace } from "./CallRecord.ts"
import * as Failure from "./Failure.ts"
import type { Prompt } from "./Prompt.ts"
import type { Target } from "./Settings.ts"

/** One prompt on its way, over all its calls. */
export class Asking {
  readonly prompt: Prompt
  /** To be run after each try. */
  readonly tried: Effect.Effect<void>
  readonly trace: Trace
  /** Tries that were sent. */
  made = 0
  /** The target of the last one. */
  target: Target | undefined
  /** Tries whose failure may be the prompt's own doing. */
  failedByItself = 0
  ownError: AiError.AiError | undefined

  constructor(prompt: Prompt, tried: Effect.Effect<void>, now: number) {
    this.prompt = prompt
    this.tried = tried
    this.trace = new Trace(now)
  }

  begin(target: Target): void {
    this.made++
    this.target = target
  }

  fail(error: AiError.AiError): void {
    if (Failure.isOutage(error)) return
    this.failedByItself++
    this.ownError = error
  }
}

/** The prompt that the running fiber asks for. */
export const CurrentAsking: Context.Reference<Asking | undefined> = Context.Reference<Asking | undefined>(
  "sluice/run/CurrentAsking",
  { defaultValue: () => undefined }
)
