import type * as Exit from "effect/Exit"
import { fromHex, toHex } from "./sha256.ts"

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
  /** What the key is looked up by: its hash, in as little memory as there is for it. */
  readonly slot: string
}

// A hash of 256 bits is held as 32 characters of one byte each, which takes half the memory that its hexadecimal takes: the
// largest part of what a kept result costs. Whatever else a `KeyHash` returns is held as it is, behind a mark that makes it
// longer than that.
const packedLength = 32
const unpackedMark = "-".repeat(packedLength + 1)

/** Where the results of a hash are kept. */
export const slotOf = (hash: string): string => fromHex(hash) ?? unpackedMark + hash

/** The hash whose slot it is. */
export const hashOf = (slot: string): string =>
  slot.length === packedLength ? toHex(slot) : slot.slice(unpackedMark.length)
