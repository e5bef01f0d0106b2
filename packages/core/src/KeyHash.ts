/**
 * Turns the input of a call into a request key: a hash, so that no key contains a prompt.
 *
 * An `operation` (see `Deduplicator`) writes its input in a canonical form: the same bytes for equal inputs, other bytes for
 * others. The `KeyHash` in the context hashes them. Only the hash is kept.
 *
 * **When to use**
 *
 * The default, SHA-256, is right within a process. Provide a keyed hash (HMAC) if others can read the keys, as in a shared
 * store: they could test guesses of a prompt against a plain hash.
 *
 * **Details**
 *
 * | values | same key? |
 * |---|---|
 * | `1`, `"1"`, `1n`, `true`, `[1]` | no: the type is part of the key |
 * | `0` and `-0`; `NaN` and `NaN` | yes |
 * | the fields of an object, the entries of a `Map` or the elements of a `Set`, in another order | yes |
 * | the elements of an array in another order | no |
 * | characters that look alike but are encoded differently (`é` as one code point or as two) | no |
 * | `{ a: undefined }` and `{}`; `null` and `undefined` | no |
 * | a `Buffer` and a `Uint8Array` of the same bytes | yes |
 * | typed arrays of different types | no |
 * | instances of one `Schema.Class` with equal fields; instances of one class with equal primary keys (`PrimaryKey`) | yes |
 *
 * **Errors**
 *
 * Functions, symbols, circular references, instances of other classes (also of subclasses of `Array`, `Map` or `Date`) and
 * built-in objects with fields of their own have no canonical form: `InvalidKey`, a defect where the key is used. Two instances
 * that differ only in private state would share a result. Select the fields that matter in the operation's `key` function.
 *
 * **Gotchas**
 *
 * - Fields that were added to a typed array or a `Buffer` are neither read nor refused: listing them takes longer than the hash.
 * - An operation uses the `KeyHash` of the calling fiber. Called outside an effect it uses the default, and its key differs
 *   from one made with another hash.
 *
 * **Example** (A keyed hash)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { createHmac } from "node:crypto"
 * import * as Deduplicator from "@sluice/core/Deduplicator"
 * import * as KeyHash from "@sluice/core/KeyHash"
 *
 * const Summary = Deduplicator.operation<string>()("summary", { key: (text: string) => text })
 *
 * const program = Effect.sync(() => Summary("a prompt").id).pipe(
 *   Effect.provideService(KeyHash.KeyHash, (bytes) => createHmac("sha256", "a secret").update(bytes).digest("hex"))
 * )
 *
 * console.log((await Effect.runPromise(program)).length) // => 64
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Schema from "effect/Schema"
import { sha256 as sha256Binary, toHex } from "./internal/hashing/sha256.ts"

/**
 * No key can be made from the input of an operation. A bug in the program, so it is raised as a defect where the key is used.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidKey extends Schema.Error<InvalidKey>("@sluice/core/InvalidKey")({
  _tag: Schema.tag("InvalidKey"),
  operation: Schema.String,
  /** Where in the input, as in `.messages[2].send`. Not in the message, since field names can come from a user. */
  path: Schema.String,
  /** What was found there, such as `a function`. Never the value. */
  found: Schema.String
}) {
  override get message(): string {
    const remedy = this.found === noTenant
      ? "Return a string from the operation's `tenant` function"
      : "Select the fields that matter in the operation's `key` function"
    return `no key for operation ${this.operation}: its input has ${this.found} (see path). ${remedy}`
  }
}

/**
 * The value of `InvalidKey.found` if the operation's `tenant` returned no string.
 *
 * @since 0.1.0
 * @category constants
 */
export const noTenant = "no tenant"

/**
 * Returns the SHA-256 in hexadecimal. Synchronous: uses `node:crypto` in Node, Deno and Bun, and portable code elsewhere.
 *
 * @since 0.1.0
 * @category hashes
 */
export const sha256: (bytes: Uint8Array) => string = (bytes) => toHex(sha256Binary(bytes))

/**
 * The hash function of request keys. Default `sha256`.
 *
 * **Gotchas**
 *
 * - Inputs with the same hash share a result. Use a cryptographic hash and do not truncate it.
 * - It must return a non-empty string synchronously. A promise, or any other value, is a defect where the key is used.
 *
 * @since 0.1.0
 * @category references
 */
export const KeyHash: Context.Reference<(canonical: Uint8Array) => string> = Context.Reference(
  "@sluice/core/KeyHash",
  { defaultValue: () => sha256 }
)
