/**
 * How the input of a call becomes a request key: a hash of the input, so that no key holds a prompt.
 *
 * An `operation` (see `Deduplicator`) writes its input in a canonical form, the same bytes for equal inputs and different
 * bytes for different ones, and hands them to the `KeyHash`. Only what it returns is kept.
 *
 * **When to use**
 *
 * The default, SHA-256, is right inside a process. Provide another where keys are seen by others, as in a shared store: a
 * keyed hash (HMAC) keeps a reader of the store from testing guesses of a prompt.
 *
 * **Details**
 *
 * What the canonical form takes for equal:
 *
 * | values | equal |
 * |---|---|
 * | `1`, `"1"`, `1n`, `true`, `[1]` | no: every value carries its type |
 * | `0` and `-0`; `NaN` and `NaN` | yes |
 * | the fields of an object, the entries of a `Map`, the elements of a `Set`, in another order | yes |
 * | the elements of an array in another order | no |
 * | letters that look alike, in other characters (`é` as one or as two) | no |
 * | `{ a: undefined }` and `{}`; `null` and `undefined` | no |
 * | a `Buffer` and a `Uint8Array` of the same bytes | yes; typed arrays of different types, no |
 * | instances of a `Schema.Class` with equal fields; of a class with a `PrimaryKey`, with equal primary keys | yes |
 *
 * Refused with `InvalidKey`: functions, symbols, values that contain themselves, and instances of all other classes, since
 * two that differ only in what is private to them would share an answer. Pick the fields that matter in the operation's
 * `key` function.
 *
 * **Gotchas**
 *
 * - An operation reads the `KeyHash` of the fiber that calls it. Called where no effect runs, it uses the default, and its
 *   key does not meet those made by another hash.
 *
 * **Example** (Keys that a reader cannot guess)
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
 * The input holds something that no key can be made of. A mistake in the program: it arrives as a defect.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidKey extends Schema.Error<InvalidKey>("@sluice/core/InvalidKey")({
  _tag: Schema.tag("InvalidKey"),
  operation: Schema.String,
  /** Where in the key it is, as in `.messages[2].send`. A field only: the names in it may come from a caller's input. */
  path: Schema.String,
  /** What was found there: its kind, not its value. */
  found: Schema.String
}) {
  override get message(): string {
    return `no key for operation ${this.operation}: its input holds ${this.found} (see path); ` +
      "let the operation's key function pick the fields that matter"
  }
}

/**
 * SHA-256 in hexadecimal, computed synchronously: by the runtime where it can (Node, Deno, Bun), else by ourselves.
 *
 * @since 0.1.0
 * @category hashes
 */
export const sha256: (bytes: Uint8Array) => string = (bytes) => toHex(sha256Binary(bytes))

/**
 * The hash that makes request keys. Default `sha256`.
 *
 * **Gotchas**
 *
 * - Two inputs with one hash share one answer: use a cryptographic hash, and all of it.
 * - It has to answer at once. One that returns a promise, or no text, is a defect where the key is used.
 *
 * @since 0.1.0
 * @category references
 */
export const KeyHash: Context.Reference<(canonical: Uint8Array) => string> = Context.Reference(
  "@sluice/core/KeyHash",
  { defaultValue: () => sha256 }
)
