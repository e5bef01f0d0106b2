/** The credentials of a run. Decides whether a refusal concerns one prompt or the credential. */
import type * as AiError from "effect/ai/AiError"
import * as Failure from "./Failure.ts"
import type { Fatal } from "./Outage.ts"
import type { PromptState } from "./PromptState.ts"
import type { Settings, Target } from "./Settings.ts"

/** The delay after the first refusal of a credential that has worked. It doubles with each refusal. */
const firstRestMillis = 1_000
/** After this many refusals in a row, of more than one prompt, a credential has stopped working. They take about 15 seconds. */
const maxRefusals = 5
/** If only one prompt is refused, and this often, the refusal concerns the prompt. */
const maxRefusalsOfOne = 3
/** The delay of a credential that has not answered yet, or has stopped working. */
const longRestMillis = 300_000

/** While one prompt tests a refused credential, the others check its state this often. */
const askingMillis = 250

interface Account {
  hasAnswered: boolean
  /** When the last attempt that was answered began. */
  answeredFrom: number
  /** Consecutive refusals. Those that were in flight together count as one. */
  refusals: number
  refusedAt: number
  restsUntil: number
  /** The first prompt that was refused since the last answer, and whether others were refused too. */
  refused: PromptState | undefined
  isRefusedForSeveral: boolean
  /** The prompt that tests the credential after a delay. The others wait for its outcome. */
  asking: PromptState | undefined
}

/** Targets with the same host and key share an account: a refused key is refused for all of them. */
export const accountOf = (targets: Settings["targets"], own: Target): string => {
  const isSame = ({ keySource, url }: Target) =>
    keySource === own.keySource && new URL(url).host === new URL(own.url).host
  return (targets.find(isSame) ?? own).name
}

/** Decides whether a refused credential, a wrong URL or a wrong model concerns one prompt, or all of them. */
export class Credentials {
  private readonly targets: Settings["targets"]
  private readonly fatal: Fatal
  private readonly onUnusable: (target: string, why: string | undefined) => void
  private readonly accounts = new Map<Target, Account>()
  /** Targets that have answered. Before its first answer, a target's refusal may apply to every prompt. */
  private readonly answered = new Set<Target>()
  private readonly reasons = new Map<Target, string>()

  constructor(
    targets: Settings["targets"],
    fatal: Fatal,
    onUnusable: (target: string, why: string | undefined) => void
  ) {
    this.targets = targets
    this.fatal = fatal
    this.onUnusable = onUnusable
    const byName = new Map<string, Account>()
    for (const target of targets) {
      const name = accountOf(targets, target)
      const account = byName.get(name) ?? newAccount()
      byName.set(name, account)
      this.accounts.set(target, account)
    }
  }

  private of(target: Target): Account {
    let account = this.accounts.get(target)
    if (account === undefined) this.accounts.set(target, account = newAccount())
    return account
  }

  // ---------- attempts

  /**
   * The milliseconds until the prompt may use the credential, or check again. 0: now. After a delay one prompt tests the
   * credential, and the others wait for its outcome.
   */
  mayAskIn(target: Target, state: PromptState, now: number): number {
    const account = this.of(target)
    if (account.refusals === 0 || !account.hasAnswered) return 0
    if (now < account.restsUntil) return account.restsUntil - now
    if (account.asking !== undefined && account.asking !== state) return askingMillis
    account.asking = state
    return 0
  }

  /** The attempt has ended, in any way. */
  ended(target: Target, state: PromptState): void {
    const account = this.of(target)
    if (account.asking === state) account.asking = undefined
  }

  succeeded(target: Target, startedAt: number): void {
    const account = this.of(target)
    account.hasAnswered = true
    account.answeredFrom = Math.max(account.answeredFrom, startedAt)
    // An answer to an attempt that was under way before the refusal says nothing about the credential now.
    if (startedAt >= account.refusedAt) {
      account.refusals = 0
      account.refused = undefined
      account.isRefusedForSeveral = false
    }
    this.answered.add(target)
    if (this.reasons.delete(target)) this.onUnusable(target.name, undefined)
  }

  /** Records a refusal of the credential. Returns the milliseconds until its next use. */
  refused(target: Target, error: AiError.AiError, state: PromptState, startedAt: number, now: number): number {
    const account = this.of(target)
    if (!account.hasAnswered) return longRestMillis
    state.refused(now)
    account.refusedAt = now
    account.refused ??= state
    if (account.refused !== state) account.isRefusedForSeveral = true
    // The refusal of one prompt does not delay the others.
    if (!account.isRefusedForSeveral) return 1
    if (startedAt >= account.restsUntil) {
      account.restsUntil = now + firstRestMillis * 2 ** account.refusals
      account.refusals++
    }
    if (account.refusals < maxRefusals) return Math.max(1, account.restsUntil - now)
    const reason = Failure.fatal(error, contextOf(target, state)) ?? Failure.describe(error).message
    const why = `${reason}, ${maxRefusals} times in a row after answers`
    for (const other of this.targets) if (this.of(other) === account) this.unusable(other, why)
    account.restsUntil = now + longRestMillis
    return longRestMillis
  }

  /** Whether the refusal concerns this prompt: the credential serves other prompts, or no other prompt is refused. */
  isOfPrompt(target: Target, state: PromptState): boolean {
    const { answeredFrom, hasAnswered, isRefusedForSeveral } = this.of(target)
    if (!hasAnswered) return true
    return (state.refusals >= 2 && answeredFrom > (state.refusedSince ?? 0)) ||
      (state.refusals >= maxRefusalsOfOne && !isRefusedForSeveral)
  }

  /** The milliseconds until a refused prompt may be sent again. */
  restsFor(target: Target, { refusals }: PromptState, now: number): number {
    return Math.max(firstRestMillis * 2 ** Math.max(0, refusals - 1), this.of(target).restsUntil - now)
  }

  /** Whether the credential of the target with this name has worked, and has not been given up. */
  mayRecover(name: string): boolean {
    return this.targets.some((target) =>
      target.name === name && this.of(target).hasAnswered && !this.reasons.has(target)
    )
  }

  /** An attempt failed. Before the target's first answer, its error may concern every prompt. */
  failed(target: Target, error: AiError.AiError, state: PromptState): void {
    if (this.answered.has(target) || this.reasons.has(target)) return
    const reason = Failure.fatal(error, contextOf(target, state))
    if (reason !== undefined) this.unusable(target, reason)
  }

  private unusable(target: Target, reason: string): void {
    this.reasons.set(target, reason)
    this.onUnusable(target.name, reason)
    const others = this.targets.filter((other) => !this.reasons.has(other))
    // A target that cannot answer any prompt is no reason to stop while another one may.
    if (others.length > 0) return
    const message = this.targets.length === 1
      ? reason
      : `no target is usable: ${[...this.reasons].map(([{ name }, reason]) => `${name}: ${reason}`).join("; ")}`
    this.fatal.stop("Unusable", this.answered.size === 0 ? message : `${message}; the remaining prompts were not sent`)
  }
}

const newAccount = (): Account => ({
  hasAnswered: false,
  answeredFrom: Number.NEGATIVE_INFINITY,
  refusals: 0,
  refusedAt: Number.NEGATIVE_INFINITY,
  restsUntil: Number.NEGATIVE_INFINITY,
  refused: undefined,
  isRefusedForSeveral: false,
  asking: undefined
})

const contextOf = (
  { apiKey, keySource, model, url, wire }: Target,
  { prompt }: PromptState
): Failure.CallSettings => ({
  url,
  wire,
  model,
  keySource,
  hasKey: apiKey !== undefined,
  isOwnModel: prompt.model !== undefined,
  ownFields: Object.keys(prompt.body ?? {})
})
