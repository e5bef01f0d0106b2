/**
 * The money of a run. Reserves the most that an attempt can cost before it is sent, and settles by its usage. An attempt of
 * unknown use stays at its reservation, so the sum spent never exceeds the limit. A mark, which a kill does not lose, is never below
 * what the attempts that were sent can have cost.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Prices from "./Prices.ts"
import { ageOf, costOf, shown } from "./Prices.ts"
import type { Prompt } from "./Prompt.ts"
import * as Samples from "./Samples.ts"
import type { Settings, Target } from "./Settings.ts"

/** The budget has no room for another attempt of a prompt. */
export class OutOfBudget extends Schema.Error<OutOfBudget>("sluice/OutOfBudget")({
  _tag: Schema.tag("OutOfBudget"),
  message: Schema.String
}) {}

/** What an attempt used. `undefined`: it is not known. `nothing`: the provider refused it, so it is free. */
export type Used = { readonly inputTokens: number; readonly outputTokens: number } | "nothing" | undefined

/** An attempt that runs. */
export interface Reservation {
  readonly settle: (used: Used) => void
}

/** The money of one line: reserved for its next attempt, and spent by those that ended. */
export interface Purse {
  readonly prompt: Prompt
  held: number
  spent: number
  /** Whether an attempt was made at a target without a price. */
  isUnknown: boolean
}

/** Keeps an amount that may have been spent, where a kill does not lose it. */
export interface Mark {
  readonly raise: (atMost: number) => Promise<void>
}

interface Waiter {
  readonly purse: Purse
  readonly amount: number
  readonly resume: (canPay: boolean) => void
}

type Options = Pick<Settings, "targets" | "maxTokens" | "maxCost" | "omit"> & {
  readonly prices: Prices.Prices
  /** Called once, when the next line does not fit, and nothing that runs could free enough. */
  readonly onExhausted?: (() => void) | undefined
}

export class Ledger {
  /** In millionths of a dollar, as all amounts here. Infinity without a budget. */
  readonly limit: number
  /** Spent by earlier runs of the same results. */
  before = 0
  /** Spent by attempts that ended, also of earlier runs. */
  spent = 0
  isExhausted = false
  /** Whether an attempt was made with and without a known price. */
  hasPriced = false
  hasUnpriced = false
  /** Called if the mark cannot be raised. Attempts that it does not cover are not sent. */
  onUnmarked: (error: Error) => void = () => {}
  private oldest: Prices.Found | undefined
  /** Of attempts that run, and of lines that wait for theirs. */
  private reserved = 0
  /** Of attempts that run. */
  private running = 0
  /** What may have been spent by the mark. Infinity without one. */
  private marked = Number.POSITIVE_INFINITY
  private mark: Mark | undefined
  private isRaising = false
  /** Attempts that wait until the mark covers them. */
  private uncovered: Array<() => void> = []
  private readonly options: Options
  private readonly waiting = new Set<Waiter>()
  /** Lines without a result. As many as run at once. */
  private readonly purses = new Map<number, Purse>()

  constructor(options: Options) {
    this.options = options
    this.limit = options.maxCost === undefined ? Number.POSITIVE_INFINITY : Math.floor(options.maxCost * 1e6 + 1e-6)
  }

  /** Spent by this run. */
  get spentNow(): number {
    return this.spent - this.before
  }

  /** Says that a price of this run is old. `undefined` if none is. */
  ageOf(now: number): string | undefined {
    return this.oldest === undefined ? undefined : ageOf(this.oldest, now)
  }

  /** Adds what earlier runs of the same results spent. */
  addEarlier(cost: number): void {
    this.before += cost
    this.spent += cost
  }

  /** Uses a mark, from what was spent before. */
  useMark(mark: Mark): void {
    this.mark = mark
    this.marked = this.spent
  }

  /** Waits until the mark covers the attempts that have begun. `undefined` if it does. */
  covered(): Effect.Effect<void> | undefined {
    const isCovered = Math.min(this.limit, this.spent + this.running) <= this.marked
    // Raised early, so that few attempts wait for the disk.
    if (!isCovered || this.spent + 1.25 * this.running > this.marked) this.raise()
    return isCovered ? undefined : Effect.callback((resume) => {
      this.uncovered.push(() => resume(Effect.void))
    })
  }

  /** Why a prompt cannot be paid: it has no price at a target, or no limit of tokens. `undefined` if it can. */
  problemOf(prompt: Pick<Prompt, "body" | "model">): string | undefined {
    for (const target of this.options.targets) {
      const model = prompt.model ?? target.model
      if (model !== undefined && this.options.prices.of(target, model) === undefined) {
        return `no price for model ${model} at ${new URL(target.url).host}; use --price IN,OUT or --price-file`
      }
      if (maxTokensOf(prompt, target, this.options) === undefined) {
        return isLimitOmitted(this.options)
          ? "--max-cost needs a limit of tokens for each answer, which --omit leaves out"
          : "--max-cost needs a limit of tokens for each answer; use --max-tokens"
      }
    }
    return undefined
  }

  open(prompt: Prompt): Purse {
    const purse: Purse = { prompt, held: 0, spent: 0, isUnknown: false }
    this.purses.set(Samples.keyOf(prompt), purse)
    return purse
  }

  /** Ends a line and returns its cost. `undefined` if it is not known. */
  close(line: Pick<Prompt, "line" | "sample">): number | undefined {
    const key = Samples.keyOf(line)
    const purse = this.purses.get(key)
    this.purses.delete(key)
    if (purse !== undefined) this.release(purse)
    if (purse?.isUnknown === true || !(this.hasPriced || this.isPriced)) return undefined
    return purse?.spent ?? 0
  }

  /** Reserves the next attempt of a line at the most expensive target. Waits for running attempts that could free enough. */
  take(purse: Purse): Effect.Effect<void, OutOfBudget> {
    return Effect.suspend(() => {
      if (!this.isLimited) return Effect.void
      const amount = Math.max(...this.options.targets.map((target) => this.mostOf(purse.prompt, target)))
      if (this.waiting.size === 0 && this.hold(purse, amount)) return Effect.void
      return Effect.flatMap(
        this.wait(purse, amount),
        (canPay) => canPay ? Effect.void : Effect.fail(new OutOfBudget({ message: this.refusal }))
      )
    })
  }

  /** Gives back what is reserved for an attempt that was not made. */
  release(purse: Purse): void {
    this.reserved -= purse.held
    purse.held = 0
    this.serve()
  }

  /** Begins an attempt. `undefined` if it does not fit now. */
  begin(purse: Purse, target: Target): Reservation | undefined {
    // Counting the input takes time, which only a budget needs.
    const amount = this.isLimited ? this.mostOf(purse.prompt, target) : 0
    if (purse.held < amount && !this.fits(amount - purse.held)) return undefined
    this.reserved += amount - purse.held
    this.running += amount
    purse.held = 0
    this.serve()
    const model = purse.prompt.model ?? target.model
    const found = model === undefined ? undefined : this.options.prices.of(target, model)
    if (found === undefined) {
      purse.isUnknown = true
      this.hasUnpriced = true
    } else {
      this.hasPriced = true
      if (found.date !== undefined && found.date < (this.oldest?.date ?? "9")) this.oldest = found
    }
    return {
      settle: (used) => {
        const cost = used === "nothing" || found === undefined
          ? 0
          : used === undefined
          ? this.mostOf(purse.prompt, target)
          : costOf(found.price, used)
        this.reserved -= amount
        this.running -= amount
        this.spent += cost
        purse.spent += cost
        this.serve()
      }
    }
  }

  /** Whether the model of a target has a price. A line can name another model. */
  private get isPriced(): boolean {
    return this.options.targets.some((target) =>
      target.model !== undefined && this.options.prices.of(target, target.model) !== undefined
    )
  }

  private get isLimited(): boolean {
    return this.limit !== Number.POSITIVE_INFINITY
  }

  /** Why no further line is sent. */
  get refusal(): string {
    return `the budget of ${shown(this.limit)} is used up: ${
      shown(this.spent)
    } spent, and the next prompt could cost more ` +
      "than the rest"
  }

  private wait(purse: Purse, amount: number): Effect.Effect<boolean> {
    return Effect.callback<boolean>((resume) => {
      const waiter: Waiter = { purse, amount, resume: (canPay) => resume(Effect.succeed(canPay)) }
      this.waiting.add(waiter)
      this.serve()
      return Effect.sync(() => {
        if (this.waiting.delete(waiter)) this.serve()
      })
    })
  }

  /** Serves the lines that wait, in their order, as far as the money goes. */
  private serve(): void {
    for (const waiter of this.waiting) {
      const isHeld = this.hold(waiter.purse, waiter.amount)
      if (!isHeld && this.spent + waiter.amount <= this.limit && !this.isExhausted) return
      this.waiting.delete(waiter)
      if (!isHeld) this.exhausted()
      waiter.resume(isHeld)
    }
  }

  /** Half of what runs ahead, so that it is seldom written, and a kill counts little more than what runs. */
  private get nextMark(): number {
    return Math.min(this.limit, Math.ceil(this.spent + 1.5 * this.running))
  }

  private raise(): void {
    const { mark, nextMark } = this
    if (mark === undefined || this.isRaising) return
    if (nextMark <= this.marked) return this.covers(this.uncovered.splice(0))
    this.isRaising = true
    // After the turn, so that all attempts of one turn are covered at once.
    queueMicrotask(() => {
      const { nextMark: atMost, uncovered } = this
      this.uncovered = []
      const raised = (): void => {
        this.marked = atMost
        this.isRaising = false
        this.covers(uncovered)
        if (this.uncovered.length > 0) this.raise()
      }
      mark.raise(atMost).then(raised, (error: Error) => this.onUnmarked(error))
    })
  }

  private covers(attempts: ReadonlyArray<() => void>): void {
    for (const resume of attempts) resume()
  }

  private exhausted(): void {
    if (this.isExhausted) return
    this.isExhausted = true
    this.options.onExhausted?.()
  }

  private hold(purse: Purse, amount: number): boolean {
    if (!this.fits(amount)) return false
    this.reserved += amount
    purse.held = amount
    return true
  }

  private fits(amount: number): boolean {
    return this.spent + this.reserved + amount <= this.limit
  }

  /** The most that an attempt can cost. Without a limit of tokens: the most of its input. */
  private mostOf(prompt: Prompt, target: Target): number {
    const model = prompt.model ?? target.model
    const found = model === undefined ? undefined : this.options.prices.of(target, model)
    return found === undefined
      ? 0
      : costOf(found.price, {
        inputTokens: mostInputTokens(prompt),
        outputTokens: maxTokensOf(prompt, target, this.options) ?? 0
      })
  }
}

const limits = ["max_tokens", "max_completion_tokens"]

/** Whether a limit of tokens may not be sent. A target gets `--max-tokens` as one of these fields. */
const isLimitOmitted = ({ omit }: Pick<Settings, "omit">): boolean => limits.some((name) => omit.includes(name))

/** The most tokens that an answer can have: by its line, by the flag, or by the wire. `undefined`: without a limit. */
export const maxTokensOf = (
  { body = {} }: Pick<Prompt, "body">,
  { wire }: Pick<Target, "wire">,
  options: Pick<Settings, "maxTokens" | "omit">
): number | undefined => {
  if (isLimitOmitted(options)) return undefined
  const own = limits.map((name) => body[name]).filter((value) => typeof value === "number")
  return own.length > 0
    ? Math.max(...own)
    : options.maxTokens ?? (wire === "anthropic" ? anthropicMaxTokens : undefined)
}

/** The limit that the Anthropic wire sets if there is none. */
const anthropicMaxTokens = 4_096

/** A vendor's chat template adds a few tokens to each message. */
const tokensPerMessage = 16
/** The most that a vendor counts for one image or file, as far as is known. */
const tokensPerFile = 50_000

/** More tokens than any vendor counts for the input: a token has at least one byte. */
export const mostInputTokens = ({ body, messages }: Pick<Prompt, "body" | "messages">): number => {
  let tokens = body === undefined ? 0 : Buffer.byteLength(JSON.stringify(body))
  for (const { content } of messages) {
    tokens += tokensPerMessage
    if (typeof content === "string") tokens += Buffer.byteLength(content)
    else {
      for (const part of content) tokens += part.type === "text" ? Buffer.byteLength(part.text) : tokensPerFile
    }
  }
  return tokens
}
