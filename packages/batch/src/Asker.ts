/**
 * Asks one request of a batch. This is the only part of a batch that knows models.
 *
 * **When to use**
 *
 * Provide it to `Worker`. The `sluice` command provides one over `ResilientModel`; in tests, provide a function.
 *
 * **Gotchas**
 *
 * - A request may be asked again after its process died. Send `idempotencyKey`; a provider that honours it is paid once.
 * - Do not retry for long inside `ask`. Fail with `AskLater`, so that other requests get the slot.
 *
 * **Example** (An asker without a model)
 *
 * ```ts
 * import * as Asker from "@sluice/batch/Asker"
 * import { Effect, Layer } from "effect"
 *
 * export const Echo = Layer.succeed(
 *   Asker.Asker,
 *   Asker.Asker.of({
 *     ask: ({ body }) => Effect.succeed({ kind: "ok", body, inputTokens: 1, outputTokens: 1, micros: 0 }),
 *     waiting: Effect.succeed(undefined)
 *   })
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Request, Waiting } from "./Batch.ts"

/**
 * A request, and the batch that it belongs to.
 *
 * @since 0.1.0
 * @category models
 */
export interface Asked extends Request {
  readonly batch: string
  /** Whose batch it is, as the submitter said. */
  readonly owner: string | undefined
  readonly endpoint: string | undefined
  /**
   * Send it as the idempotency key. It is that of no other request, and stays the same for each attempt, also after a process died.
   * `retry` of failed requests changes it, since a provider may repeat the failure that it answered to a key.
   */
  readonly idempotencyKey: string
  /** Whether the batch has a `maxCost`. It is kept only if `micros` of each answer is what the answer cost. */
  readonly hasBudget: boolean
}

/**
 * The final answer to a request: `failed` if asking it again is of no use.
 *
 * @since 0.1.0
 * @category models
 */
export interface Answer {
  readonly kind: "ok" | "failed"
  /** Stored as the body of the result. One of more than 64 Mi characters is not stored, and its request has `failed`. */
  readonly body: string
  readonly inputTokens: number
  readonly outputTokens: number
  /** The cost in millionths of a dollar, also of a failed request. More than a million dollars is stored as a million. */
  readonly micros: number
}

/**
 * The request was not answered now, and another time can be better: a rate limit, an open circuit, a network.
 *
 * @since 0.1.0
 * @category errors
 */
export class AskLater extends Schema.Error<AskLater>("@sluice/batch/AskLater")({
  _tag: Schema.tag("AskLater"),
  /** Shown if the request is given up after too many rounds. A text of the provider does not belong here. */
  reason: Schema.String,
  /** When to come back. 1 second if it is not known. */
  retryAfter: Schema.optional(Schema.DurationFromMillis),
  /**
   * Whether a call was made. If not, the request is tried again in place; otherwise its ticket is put back, which is counted.
   */
  isCall: Schema.Boolean,
  /** What the call cost nevertheless, in millionths of a dollar. */
  micros: Schema.optional(Schema.Number)
}) {
  override get message(): string {
    return this.reason
  }
}

/**
 * Asks the requests of batches.
 *
 * **Details**
 *
 * - `ask` ends with an answer, or with `AskLater`. A defect, and an answer of another form, is stored as a failed result.
 * - `waiting` says whether calls make sense now. While it returns a reason, the worker takes no requests and starts no calls. It is
 *   read ten times a second, so it must be cheap. A defect counts as no reason.
 * - `stop` runs once, when the worker stops. After it, an `ask` that makes no call, such as one that waits before a retry, should fail with
 *   `AskLater` and `isCall: false`: another worker then asks the request at once. Without `stop`, such requests are awaited like calls.
 *
 * @since 0.1.0
 * @category services
 */
export class Asker extends Context.Service<Asker, {
  readonly ask: (asked: Asked) => Effect.Effect<Answer, AskLater>
  readonly waiting: Effect.Effect<Waiting | undefined>
  readonly stop?: Effect.Effect<void> | undefined
}>()("@sluice/batch/Asker") {}
