/** Errors of the database, without what they say about its content. */
import * as Effect from "effect/Effect"
import { isSqlError, type SqlError } from "effect/sql/SqlError"
import { BatchStoreError } from "../Batch.ts"
import { reasonOf } from "./reason.ts"

/** Replaces an error of the database, whose message can name values, by one that names the operation. */
export const store = <A, E>(
  operation: string,
  effect: Effect.Effect<A, E | SqlError>
): Effect.Effect<A, Exclude<E, SqlError> | BatchStoreError> =>
  Effect.mapError(effect, (error) =>
    isSqlError(error)
      ? new BatchStoreError({ operation, reason: reasonOf(error), isRetryable: error.isRetryable })
      // What is no SqlError is one of the others.
      : error as Exclude<E, SqlError>)
