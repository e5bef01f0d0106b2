/** What calls cost. */
import type { CallLog } from "@sluice/ai/CallLog"
import * as Prices from "../run/Prices.ts"
import type { Settings, Target } from "./Settings.ts"

interface Tokens {
  readonly inputTokens: number
  readonly outputTokens: number
}

/** The cost of these tokens at a target, in millionths of a dollar. `undefined` if the price of its model is not known. */
export const ofTarget = (
  { prices }: Pick<Settings, "prices">,
  target: Target,
  asked: string,
  tokens: Tokens
): number | undefined => {
  const { models, model = asked } = target
  const name = models !== undefined && Object.hasOwn(models, asked) ? models[asked] ?? model : model
  const price = prices.of(target, name)
  return price === undefined ? undefined : Prices.costOf(price.price, tokens)
}

/** The cost of all attempts of a call. An attempt without a price counts as free. */
export const ofCall = (settings: Pick<Settings, "prices" | "targets">, { steps }: CallLog, asked: string): number => {
  let sum = 0
  for (const step of steps) {
    if (step._tag !== "Attempt" || step.usage === undefined) continue
    const target = settings.targets.find(({ name }) => name === step.target)
    if (target !== undefined) sum += ofTarget(settings, target, asked, step.usage) ?? 0
  }
  return sum
}
