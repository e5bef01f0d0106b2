import type * as AiError from "effect/ai/AiError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { Trace } from "./CallRecord.ts"
import type { Purse } from "./Ledger.ts"
import type { Prompt } from "./Prompt.ts"
import type { Target } from "./Settings.ts"

/** What the run learns of a prompt while it is completed. */
export interface Turn {
  /** Its call waits for its first attempt. Not called if another line's call serves it. */
  readonly waits: () => void
  /** An attempt is sent. */
  readonly sent: () => void
  /** Runs after each attempt that failed. */
  readonly afterAttempt: Effect.Effect<void>
}

/** The turn of a prompt that nothing waits for. */
export const noTurn: Turn = { waits: () => {}, sent: () => {}, afterAttempt: Effect.void }

/** The state of one prompt over all its calls. */
export class PromptState {
  readonly prompt: Prompt
  readonly turn: Turn
  readonly trace: Trace
  /** Its money. `undefined` if the run counts none. */
  readonly purse: Purse | undefined
  attempts = 0
  target: Target | undefined
  /** Failed attempts that the prompt may have caused: those that count as its own, and all of them. */
  ownFailures = 0
  possibleFailures = 0
  /** The last error that the prompt may have caused. */
  ownError: AiError.AiError | undefined
  /** How often its credential was refused, and when first, in epoch milliseconds. */
  refusals = 0
  refusedSince: number | undefined
  /** The first refusal by a rate limit, in epoch milliseconds. */
  throttledSince: number | undefined
  /** Whether an attempt was not made because the budget had no room for it at that moment. */
  isShort = false

  constructor(prompt: Prompt, turn: Turn, now: number, purse?: Purse) {
    this.prompt = prompt
    this.purse = purse
    this.turn = turn
    this.trace = new Trace(now)
  }

  begin(target: Target): void {
    this.attempts++
    this.target = target
    this.turn.sent()
  }

  /** Counts a failed attempt that the prompt may have caused. `isOwn`: other prompts are answered, or do not fail. */
  failed(isOwn: boolean): void {
    this.possibleFailures++
    if (isOwn) this.ownFailures++
  }

  refused(now: number): void {
    this.refusals++
    this.refusedSince ??= now
  }

  /** Whether the prompt has failed too often for another attempt. */
  hasFailed(maxAttempts: number): boolean {
    return this.ownFailures >= maxAttempts || this.possibleFailures >= maxPossible * maxAttempts
  }
}

/**
 * While no target answers, a failure may be the provider's. Then a prompt gets this many times `--max-attempts` before it
 * fails. Without a bound, prompts that always fail would use up `--max-outage` at the end of a file.
 */
const maxPossible = 2

/** The prompt that the fiber processes. */
export const CurrentPrompt: Context.Reference<PromptState | undefined> = Context.Reference<PromptState | undefined>(
  "sluice/run/CurrentPrompt",
  { defaultValue: () => undefined }
)
