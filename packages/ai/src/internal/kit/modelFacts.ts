import type * as Context from "effect/Context"

/** What a model of this package knows of its own requests. */
export interface ModelFacts {
  /** The most tokens of an answer by the configuration of the context. `undefined`: without a limit of its own. */
  readonly maxOutputTokens: (context: Context.Context<never>) => number | undefined
  /** Whether tokens that were read from the provider's cache count against its limits. */
  readonly countsCacheReads: boolean
}

const facts = new WeakMap<object, ModelFacts>()

/** Returns the facts of a model, `undefined` for a model of another package. */
export const factsOf = (service: unknown): ModelFacts | undefined =>
  typeof service === "object" && service !== null ? facts.get(service) : undefined

export const setFacts = <Service extends object>(service: Service, known: ModelFacts): Service => {
  facts.set(service, known)
  return service
}
