import type * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type * as Fiber from "effect/Fiber"

/** Any effect: what an operator of ours runs is handed on as it is, and its types are the operator's to state. */
export type AnyEffect = Effect.Effect<unknown, unknown, unknown>

/**
 * Base of operators whose effect is one object: cheaper than a closure in a suspended effect in another. Its prototype is
 * made once, here; to make one takes 10 us.
 */
export const Primitive: abstract new() => AnyEffect & Evaluated = (() => {
  const Base = function() {}
  Base.prototype = Effectable.Prototype<AnyEffect & Evaluated>({
    label: "Sluice",
    evaluate(fiber) {
      return this.evaluate(fiber)
    }
  })
  // A function that is given a prototype constructs what inherits from it; the compiler knows that of classes only.
  return Base as unknown as abstract new() => AnyEffect & Evaluated
})()

interface Evaluated {
  /** What the object does as an effect, each time that it is run. */
  evaluate(fiber: Fiber.Fiber<unknown, unknown>): AnyEffect
}
