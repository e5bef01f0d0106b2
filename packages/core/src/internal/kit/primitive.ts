import type * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type * as Fiber from "effect/Fiber"

/** An effect of any type. The operators here pass effects on unchanged, and each operator states the types itself. */
export type AnyEffect = Effect.Effect<unknown, unknown, unknown>

interface Evaluated {
  /** Returns what the effect does. Called each time that the effect runs. */
  evaluate(fiber: Fiber.Fiber<unknown, unknown>): AnyEffect
}

/**
 * Base of operators that are one object: cheaper than a closure in a suspended effect. The prototype is made once, here,
 * since making one takes 10 us.
 */
export const Primitive: abstract new() => AnyEffect & Evaluated = (() => {
  const Base = function() {}
  Base.prototype = Effectable.Prototype<AnyEffect & Evaluated>({
    label: "Sluice",
    evaluate(fiber) {
      return this.evaluate(fiber)
    }
  })
  // A function with this prototype is a base class. The compiler knows that of `class` only.
  return Base as unknown as abstract new() => AnyEffect & Evaluated
})()
