import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Schema from "effect/Schema"
import { InvalidKey, KeyHash, sha256 } from "../../KeyHash.ts"
import type { Classify } from "../../Outcome.ts"
import { NoCanonicalForm, withCanonical } from "../hashing/canonical.ts"
import { fromHex, sha256 as sha256Binary, toHex } from "../hashing/sha256.ts"

export const KeyTypeId = "~@sluice/core/Deduplicator/Key"

/** What the compiler says if an effect fails with an error that its operation does not declare. */
export type UndeclaredError = "Declare every error of the effect in the second type argument of operation<A, E>()"

/** `UndeclaredError` if an effect with errors `E2` does not fit a key with errors `E`. */
export type Declares<E, E2> = [E2] extends [E] ? unknown : UndeclaredError

/** Never set. The compiler names the property in its message about a key with other errors than the effect. */
type ErrorsOf<E> = { readonly [Property in UndeclaredError]?: (error: E) => E }

/** The part of a key that flights read. */
export interface RequestKey<in out A, in out E> extends ErrorsOf<E> {
  readonly [KeyTypeId]: {
    /** Never set. It carries the type of the result. */
    readonly result?: (result: A) => A
    /**
     * For how many milliseconds an exit of the key's types is cached. `undefined`: the deduplicator's default.
     */
    readonly timeToLive: ((exit: Exit.Exit<unknown, unknown>) => number) | undefined
    /** Returns the size of a success in bytes. `undefined`: results do not count. */
    readonly size?: ((value: unknown) => number) | undefined
    /** The classifiers before the `Classifier` of the caller that leads. A success that they call a failure is not cached. */
    readonly classify?: Classify<unknown, unknown> | undefined
    /** For results that leave the process. `undefined`: none does. */
    readonly codec?: Schema.Codec<Exit.Exit<unknown, unknown>, Schema.Json> | undefined
    /** Why there is no key. Using it is a defect with this error. */
    readonly defect: { readonly error: unknown } | undefined
  }
  readonly operation: string
  /** The hash, in the form that takes the least memory: the key of the cache. */
  readonly slot: string
  /** The hash of the tenant, if results can leave the process. */
  readonly tenant?: string | undefined
}

// A hash of 256 bits is held as 32 characters of one byte each, half the memory of its hexadecimal, which is the largest part
// of a cached result. Any other hash is held as it is, behind a mark that makes it longer than that.
const packedLength = 32
const unpackedMark = "-".repeat(packedLength + 1)

/** The slot of a hash. */
export const slotOf = (hash: string): string => fromHex(hash) ?? unpackedMark + hash

/** The hash of a slot. */
export const hashOf = (slot: string): string =>
  slot.length === packedLength ? toHex(slot) : slot.slice(unpackedMark.length)

/** The slot of a call, by the `KeyHash` of the running fiber. Throws `InvalidKey`, and whatever the hash throws. */
export const slotFor = (operation: string, tenant: string | undefined, value: unknown): string => {
  const hash = Fiber.getCurrent()?.getRef(KeyHash) ?? sha256
  try {
    // The default hash does not keep the bytes, which are reused. Another hash may, and gets a copy.
    return withCanonical(
      [operation, tenant, value],
      (bytes) => hash === sha256 ? sha256Binary(bytes) : slotOf(stringOf(hash(bytes.slice())))
    )
  } catch (error) {
    throw error instanceof NoCanonicalForm
      ? new InvalidKey({ operation, path: error.path, found: error.found })
      : error
  }
}

// A promise, for one, would be the same string for every input, and so the same key.
const stringOf = (hash: unknown): string => {
  if (typeof hash !== "string" || hash === "") {
    throw new TypeError(`KeyHash has to return a non-empty string, and returned a ${typeof hash}`)
  }
  return hash
}
