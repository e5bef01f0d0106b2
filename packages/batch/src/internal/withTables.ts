/** Layers that need the tables. */
import type { TablesOutdated } from "@sluice/sql/Migrations"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { migrations } from "../Batches.ts"

/** Fails before the layer is built if the tables are missing. Its first statement would fail otherwise, in the background. */
export const withTables = <A, E, R>(
  layer: Layer.Layer<A, E, R>
): Layer.Layer<A, E | SqlError | TablesOutdated, R | SqlClient> =>
  Layer.unwrap(Effect.as(Effect.withTracerEnabled(migrations.check, false), layer))
