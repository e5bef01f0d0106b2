/** Replaces `@effect/vitest` in the privacy run. Every effect of a test is observed. */
import * as Real from "@effect/vitest"
import { Effect, Layer } from "effect"
import { observe, observers } from "./observers.ts"

export * from "@effect/vitest"

type Functions = (...args: Array<never>) => unknown

// Titles of tests that must run without a tracer, since a tracer makes spans and reads the clock.
const untraced = new Set([
  "there are no spans without a tracer or with tracing off",
  "a pipeline without timings does not read the clock"
])

// In every form (`it.effect`, `.each(cases)`, `.skipIf(condition)`, `.prop`) the test is a function among the arguments.
const observing = <F extends object>(register: F): F =>
  new Proxy(register, {
    apply: (target, self, args: ReadonlyArray<unknown>) => {
      const observed = args.map((arg) => typeof arg === "function" ? observedTest(arg as Functions) : arg)
      const isTraced = typeof args[0] !== "string" || !untraced.has(args[0])
      const result: unknown = Reflect.apply(target as unknown as Functions, self, isTraced ? observed : args)
      return typeof result === "function" ? observing(result) : result
    },
    get: (target, name, receiver) => {
      const value: unknown = Reflect.get(target, name, receiver)
      return typeof value === "function" ? observing(value) : value
    }
  })

const observedTest = (test: Functions): Functions => {
  const observed: Functions = (...args) => {
    const result = test(...args)
    return Effect.isEffect(result) ? observe(result) : result
  }
  // Vitest reads the fixtures of a test from its source text.
  return Object.defineProperty(observed, "toString", { value: () => test.toString() })
}

const observingMethods = <Methods extends object>(methods: Methods): Methods =>
  new Proxy(methods, {
    get: (target, name, receiver) => {
      const value: unknown = Reflect.get(target, name, receiver)
      if (name === "layer") return observingLayer(value as typeof Real.layer)
      return (name === "effect" || name === "live") && typeof value === "function" ? observing(value) : value
    }
  })

const observingLayer = (layer: typeof Real.layer): typeof Real.layer => (built, options) => {
  const register = layer(Layer.provide(built, observers), options)
  return (...args: ReadonlyArray<unknown>) => {
    const observed = args.map((arg) =>
      typeof arg === "function" ? (methods: object) => (arg as Functions)(observingMethods(methods) as never) : arg
    )
    return Reflect.apply(register, undefined, observed)
  }
}

export const it = observingMethods(Real.it)
export const { effect, live } = it
export const layer = observingLayer(Real.layer)
