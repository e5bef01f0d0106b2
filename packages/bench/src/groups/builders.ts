import type * as InvalidOptions from "@sluice/core/InvalidOptions"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Contenders } from "../measure.ts"
import type { ContenderOf, Group, RowIdOf } from "../rows.ts"

/** Builds the contenders of each row of a group. */
export type Builders<G extends Group> = {
  readonly [Id in RowIdOf<G>]: Effect.Effect<
    Contenders<ContenderOf<Id>>,
    InvalidOptions.InvalidOptions,
    Scope.Scope
  >
}
