/** The inferred types of `Admission`, checked by the compiler. */
import * as Admission from "@sluice/core/Admission"
import * as Outcome from "@sluice/core/Outcome"
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Schema, type Scope } from "effect"
import type { Equal } from "./support/types.ts"

/** Asserts the exact type of an expression and returns the expression. */
const typed =
  <Expected>() => <Actual>(actual: Actual & (Equal<Actual, Expected> extends true ? unknown : never)): Actual => actual

type Acquiring<A, E> = Effect.Effect<Admission.Admitted<A, E>, Admission.Refused, Scope.Scope>

class HttpError extends Schema.TaggedError<HttpError>()("HttpError", { status: Schema.Int }) {}

const ofText: Outcome.Classify<string, HttpError> = (exit) =>
  Exit.isSuccess(exit) && exit.value === "" ? Outcome.failure() : undefined

it.effect("settleExit takes the exits that the classifier of the admission reads, and no others", () =>
  Effect.gen(function*() {
    const admission = yield* Admission.make({})
    const any = typed<Acquiring<unknown, unknown>>()(admission.acquire())
    typed<Acquiring<unknown, unknown>>()(admission.acquire({ permits: 2 }))
    const text = yield* typed<Acquiring<string, HttpError>>()(admission.acquire({ classify: ofText }))
    typed<Admission.Admitted<string, HttpError> | Admission.Refused | undefined>()(
      admission.tryAcquireUnsafe({ classify: ofText })
    )
    yield* text.settleExit(Exit.succeed("text"))
    yield* text.settleExit(Exit.fail(new HttpError({ status: 503 })))
    // @ts-expect-error the classifier reads texts
    yield* text.settleExit(Exit.succeed(7))
    // @ts-expect-error the classifier reads errors
    yield* text.settleExit(Exit.fail("503"))
    yield* (yield* any).settleExit(Exit.fail("any error"))
    const untyped: Admission.Admitted = yield* any
    assert.strictEqual(untyped._tag, "Admitted")
  }).pipe(Effect.scoped))

it.effect("attempts without options have no InvalidOptions among their errors", () =>
  Effect.gen(function*() {
    const admission = yield* Admission.make({})
    const guarded = typed<Effect.Effect<string, "503" | Admission.Refused>>()(
      admission.guard(Effect.succeed("answer") as Effect.Effect<string, "503">, { permits: 1 })
    )
    assert.strictEqual(yield* guarded, "answer")
  }))
