import type * as AiError from "effect/ai/AiError"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import { Trace } from "./CallRecord.ts"
import * as Failure from "./Failure.ts"
import type { Prompt } from "./Prompt.ts"
import type { Target } from "./Settings.ts"

/** The state of one prompt over all its calls. */
export class PromptState {
  readonly prompt: Prompt
  readonly afterAttempt: Effect.Effect<void>
  readonly trace: Trace
  attempts = 0
  target: Target | undefined
  /** Failed attempts that the prompt itself may have caused. */
  ownFailures = 0
  /** The last error that the prompt itself may have caused. */
  ownError: AiError.AiError | undefined

  constructor(prompt: Prompt, afterAttempt: Effect.Effect<void>, now: number) {
    this.prompt = prompt
    this.afterAttempt = afterAttempt
    this.trace = new Trace(now)
  }

  begin(target: Target): void {
    this.attempts++
    this.target = target
  }

  fail(error: AiError.AiError): void {
    if (Failure.isOutage(error)) return
    this.ownFailures++
    this.ownError = error
  }
}

/** The prompt that the fiber processes. */
export const CurrentPrompt: Context.Reference<PromptState | undefined> = Context.Reference<PromptState | undefined>(
  "sluice/run/CurrentPrompt",
  { defaultValue: () => undefined }
)
