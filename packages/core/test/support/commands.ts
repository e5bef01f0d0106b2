import { Arbitrary, Schema } from "effect"

/** A number from 0 to the maximum. */
export const upTo = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))

/** Draws one of the commands, with a number from 0 to 9 for what it applies to. */
export const draw = <A>(commands: (nth: number) => ReadonlyArray<A>) =>
  Arbitrary.map(
    Arbitrary.schema(Schema.Tuple([upTo(commands(0).length - 1), upTo(9)])),
    ([which, nth]) => commands(nth)[which]!
  )
