import { Effect } from "effect"
import type { SqlClient } from "effect/sql"

/** A client that does something before its first statement of this form, as another process could. */
export const before = <S extends SqlClient.SqlClient>(
  client: S,
  form: RegExp,
  something: Effect.Effect<unknown, unknown>
): S => {
  let isDone = false
  const hooked: S = new Proxy(client, {
    apply: (target, self, args) => {
      const statement: Effect.Effect<unknown> = Reflect.apply(target, self, args)
      // A part of another statement stays as it is.
      if (!Array.isArray(args[0]) || !form.test(args[0].join("?"))) return statement
      return Effect.suspend(() => {
        if (isDone) return statement
        isDone = true
        return Effect.andThen(Effect.orDie(something), statement)
      })
    },
    get: (target, name): unknown => name === "withoutTransforms" ? () => hooked : Reflect.get(target, name)
  })
  return hooked
}
