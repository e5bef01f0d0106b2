import type * as Exit from "effect/Exit"

export const KeyTypeId = "~@sluice/core/Deduplicator/Key"

/** What a flight needs to know of the key that it is run for. */
export interface RequestKey<A, E> {
  readonly [KeyTypeId]: {
    /** How many milliseconds the exit is kept; `undefined` where the operation says nothing. */
    readonly timeToLive: ((exit: Exit.Exit<A, E>) => number) | undefined
    /** Why there is no key: whoever uses it dies of that. */
    readonly defect: { readonly error: unknown } | undefined
  }
  readonly operation: string
  readonly id: string
}
