import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Pipeable from "effect/Pipeable"
import * as Result from "effect/Result"
import type { InvalidOptions } from "../../InvalidOptions.ts"
import { OptionsReader } from "../../OptionsReader.ts"
import type { Pipeline, Stage } from "../../Pipeline.ts"
import { withoutStack } from "../../Refusal.ts"
import type { RetryPolicy } from "../../RetryPolicy.ts"
import { timeout } from "../deadline/timeout.ts"
import { type AnyEffect, Primitive } from "../kit/primitive.ts"
import { retryEffect } from "../retry/loop.ts"
import { FailedStage, StageTimeout } from "./errors.ts"
import { checkStage, readStage, type Recover, type Retry } from "./options.ts"
import * as Watch from "./watch.ts"

export const TypeId = "~@sluice/core/Pipeline"

export const isPipeline = (u: unknown): u is Pipeline<never, unknown, unknown, unknown> =>
  typeof u === "function" && TypeId in u

export const fromSteps = <In, Out, E, R>(name: string, stages: ReadonlyArray<Step>): Pipeline<In, Out, E, R> => {
  const plan = new Plan(name, stages)
  const pipeline = (input: In) => new PipelineEffect(plan, input)
  Object.defineProperty(pipeline, "name", { value: name })
  // The list of stages is untyped. `make` and `stage` check each stage against the one before it.
  return Object.assign(pipeline, Pipeable.Prototype, { [TypeId]: TypeId, stages }) as unknown as Pipeline<In, Out, E, R>
}

// Only `fromSteps` builds pipelines, from steps.
export const stepsOf = (self: { readonly stages: ReadonlyArray<Stage> }): ReadonlyArray<Step> =>
  self.stages as ReadonlyArray<Step>

/** Checks the options of a pipeline and of its nested pipelines. Fails with all issues. */
export const validate = (name: unknown, steps: ReadonlyArray<Step>): Effect.Effect<void, InvalidOptions> => {
  const options = new OptionsReader("Pipeline")
  options.string("name", name)
  for (const step of steps) step.check(options, "")
  return options.check(undefined)
}

// ---------- stages

/** Calls a stage. Records it in the watch, if there is one. */
type StageCall = (input: unknown, watch: Watch.StageWatch | undefined) => AnyEffect
type StageFunction = (input: unknown) => AnyEffect
type OnFailure = (cause: Cause.Cause<unknown>) => AnyEffect
type StageId = Omit<FailedStage["Service"], "during">

/** A stage that can run. */
export class Step implements Stage {
  readonly name: string
  readonly run: Stage["run"]
  readonly timeout: Duration.Duration | undefined
  readonly retry: RetryPolicy | undefined
  readonly recovers: boolean
  /** Whether it has no options. */
  readonly isBare: boolean
  readonly call: StageCall
  readonly onFailure: OnFailure
  /** As passed by the caller, for `check`. */
  private readonly raw: { readonly name: unknown; readonly options: unknown }

  constructor(
    pipeline: { readonly name: string; readonly stages: ReadonlyArray<Stage> },
    name: string,
    run: Stage["run"],
    options: unknown
  ) {
    const { recover, retry, timeout } = readStage(options)
    this.raw = { name, options }
    this.name = uniqueName(String(name), pipeline.stages)
    this.run = run
    this.timeout = timeout
    this.retry = retry?.policy
    this.recovers = recover !== undefined
    this.isBare = timeout === undefined && retry === undefined && recover === undefined
    const id = { pipeline: pipeline.name, stage: this.name, index: pipeline.stages.length }
    this.call = withRecovery(withRetry(withTimeout(withWatch(run), this.timeout, id), retry), recover, id)
    this.onFailure = annotate({ ...id, during: "Run" })
  }

  check(options: OptionsReader, path: string): void {
    const at = `${path}${this.name}`
    options.string(`${at}.name`, this.raw.name)
    if (typeof this.run !== "function") {
      options.refuse(`${at}.run`, this.run, "must be a function that returns an Effect")
    }
    checkStage(options, at, this.raw.options)
    if (isPipeline(this.run)) { for (const step of stepsOf(this.run)) step.check(options, `${at}.`) }
  }
}

const uniqueName = (name: string, stages: ReadonlyArray<Stage>): string => {
  const taken = new Set(stages.map((stage) => stage.name))
  let unique = name
  for (let n = 2; taken.has(unique); n++) unique = `${name}#${n}`
  return unique
}

// `Pipeline.stage` checks that a stage takes what the one before it returns.
const functionOf = (run: Stage["run"]): StageFunction => run as StageFunction

const withWatch = (run: Stage["run"]): StageCall => {
  const call = functionOf(run)
  return (input, watch) => {
    if (watch === undefined) return call(input)
    watch.attempts++
    if (!isPipeline(run)) return call(input)
    const nested = watch.nested = new Watch.RunWatch(run.name)
    return watchRun(nested, watchFrom(stepsOf(run), 0, input, nested))
  }
}

const withTimeout = (
  call: StageCall,
  after: Duration.Duration | undefined,
  { pipeline, stage }: StageId
): StageCall => {
  if (after === undefined) return call
  const millis = Duration.toMillis(after)
  return (input, watch) => {
    const effect = call(input, watch)
    if (isResolved(effect)) return effect
    return Effect.withFiber((fiber) => {
      const at = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + millis
      const error = () => {
        if (watch !== undefined) watch.timeouts++
        return withoutStack(() => new StageTimeout({ pipeline, stage, after }))
      }
      return timeout(fiber, effect, { at: () => at, error })
    })
  }
}

const withRetry = (call: StageCall, retry: Retry | undefined): StageCall =>
  retry === undefined
    ? call
    : (input, watch) => retryEffect(Effect.suspend(() => call(input, watch)), retry.policy, retry)

const withRecovery = (call: StageCall, recover: Recover | undefined, id: StageId): StageCall => {
  if (recover === undefined) return call
  const onRecoveryFailure = annotate({ ...id, during: "Recovery" })
  return (input, watch) => {
    const effect = call(input, watch)
    if (isResolved(effect)) return effect
    return Effect.catchCause(effect, (cause) => {
      const found = Cause.findError(cause)
      if (Result.isFailure(found) || Cause.hasDies(cause)) return Effect.failCause(cause)
      const error = found.success
      if (watch !== undefined) watch.recoveredFrom = Watch.tagOf(error)
      return Effect.catchCause(
        Effect.suspend(() => recover(error, input)),
        // A recovery that fails with the error it got keeps the original cause and its annotations.
        (failed) => isOnly(failed, error) ? Effect.failCause(cause) : onRecoveryFailure(failed)
      )
    })
  }
}

const isOnly = ({ reasons: [reason, ...more] }: Cause.Cause<unknown>, error: unknown): boolean =>
  more.length === 0 && reason !== undefined && Cause.isFailReason(reason) && reason.error === error

// Compares prototypes: `Exit.isExit` is slower for effects that are not exits, 100 ns for five stages.
const success: unknown = Object.getPrototypeOf(Exit.void)
const isResolved = (effect: AnyEffect): effect is Exit.Success<unknown> => Object.getPrototypeOf(effect) === success

// `Reason.annotate` does not overwrite, so the annotation of the innermost stage stays.
const annotate = (failed: FailedStage["Service"]): OnFailure => {
  const annotation = Context.make(FailedStage, failed)
  return (cause) =>
    Effect.failCause(Cause.fromReasons(
      cause.reasons.map((reason) => Cause.isInterruptReason(reason) ? reason : reason.annotate(annotation))
    ))
}

// ---------- runs

/** A linked list of stages. */
interface Frame {
  readonly call: StageFunction
  readonly onFailure: OnFailure
  readonly onSuccess: StageFunction
  readonly next: Frame | undefined
}

/** Runs the stages of a pipeline. */
export class Plan {
  private readonly name: string
  private readonly steps: ReadonlyArray<Step>
  private isReady = false
  private first: Frame | undefined

  constructor(name: string, steps: ReadonlyArray<Step>) {
    this.name = name
    this.steps = steps
  }

  run(input: unknown, fiber: Fiber.Fiber<unknown, unknown>): AnyEffect {
    if (Watch.isTraced(fiber)) return this.watch(input, new Watch.RunWatch(this.name))
    return this.isReady ? runFrom(this.first, input) : Effect.flatMap(this.ready(), () => runFrom(this.first, input))
  }

  watch(input: unknown, watch: Watch.RunWatch): AnyEffect {
    return watchRun(watch, Effect.flatMap(this.ready(), () => watchFrom(this.steps, 0, input, watch)))
  }

  // At the first run, since `pipe` builds a pipeline for each stage and most of them never run.
  private ready(): Effect.Effect<void> {
    if (this.isReady) return Effect.void
    return Effect.map(Effect.orDie(validate(this.name, this.steps)), () => {
      this.first = framesOf(this.steps)
      this.isReady = true
    })
  }
}

/** A pipeline called with an input. */
class PipelineEffect extends Primitive {
  private readonly plan: Plan
  private readonly input: unknown

  constructor(plan: Plan, input: unknown) {
    super()
    this.plan = plan
    this.input = input
  }

  override evaluate(fiber: Fiber.Fiber<unknown, unknown>): AnyEffect {
    return this.plan.run(this.input, fiber)
  }
}

// Inlines nested pipelines that have no options.
const framesOf = (steps: ReadonlyArray<Step>): Frame | undefined => {
  const left = [...steps]
  let next: Frame | undefined
  for (let step = left.pop(); step !== undefined; step = left.pop()) {
    if (step.isBare && isPipeline(step.run)) left.push(...stepsOf(step.run))
    else next = frameOf(step, next)
  }
  return next
}

const frameOf = ({ call, isBare, onFailure, run }: Step, next: Frame | undefined): Frame => ({
  call: isBare ? functionOf(run) : (input) => call(input, undefined),
  onFailure,
  onSuccess: (input) => runFrom(next, input),
  next
})

// Stages that return a resolved effect run in a loop. Only other stages take a frame on the fiber's stack.
const runFrom = (first: Frame | undefined, input: unknown): AnyEffect => {
  let value = input
  for (let frame = first; frame !== undefined; frame = frame.next) {
    try {
      const effect = frame.call(value)
      if (!isResolved(effect)) return Effect.matchCauseEffect(effect, frame)
      if (frame.next === undefined) return effect
      value = effect.value
    } catch (defect) {
      // The function threw before it returned an effect.
      return frame.onFailure(Cause.die(defect))
    }
  }
  return Effect.succeed(value)
}

const watchRun = (watch: Watch.RunWatch, stages: AnyEffect): AnyEffect =>
  Watch.watched(stages, {
    name: watch.pipeline,
    attributes: { "sluice.pipeline": watch.pipeline },
    onEnd: (exit, elapsedMillis) => watch.end(exit, elapsedMillis)
  })

/** `runFrom` that measures each stage. */
const watchFrom = (steps: ReadonlyArray<Step>, at: number, input: unknown, run: Watch.RunWatch): AnyEffect => {
  const step = steps[at]
  if (step === undefined) return Effect.succeed(input)
  const watch = run.begin(step.name, at)
  return Effect.matchCauseEffect(
    Watch.watched(Effect.suspend(() => step.call(input, watch)), {
      name: `${run.pipeline}/${step.name}`,
      attributes: { "sluice.pipeline": run.pipeline, "sluice.stage": step.name, "sluice.stage.index": at },
      onEnd: (exit, elapsedMillis) => watch.end(exit, elapsedMillis)
    }),
    { onFailure: step.onFailure, onSuccess: (output) => watchFrom(steps, at + 1, output, run) }
  )
}
