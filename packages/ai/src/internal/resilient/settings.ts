import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { OptionsReader, toMillis } from "@sluice/core/OptionsReader"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { Limits as Limited, Options, Target as TargetWithLayer, TargetOptions } from "../../ResilientModel.ts"
import * as Target from "./target.ts"

/** A layer's options, checked and read. */
export interface Settings {
  readonly name: string
  readonly retry: RetryPolicy.RetryPolicy
  readonly maxRetryAfterMillis: number
  readonly reasks: number
  readonly deadline: Duration.Duration | undefined
  readonly whenAllOpen: "refuse" | "leastBad"
  readonly afterOutput: "fail" | "restart"
  readonly credentialRestMillis: number
  readonly maxHeldParts: number
  readonly maxHeldBytes: number
}

/** What is known of a target before its layer is built. */
export interface Plan {
  readonly options: TargetOptions
  readonly order: number
  readonly weight: number
  readonly limits: Target.Limits
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"] | undefined
  readonly permits: Backpressure.Backpressure["Service"] | undefined
  readonly maxWaitMillis: number | undefined
}

/** What a target's layer gave. */
export interface Member<S> {
  readonly service: S
  readonly provider: string | undefined
  readonly model: string | undefined
}

const defaults = {
  firstTokenTimeout: Duration.minutes(2),
  idleTimeout: Duration.minutes(1),
  attemptTimeout: Duration.minutes(10),
  credentialRest: Duration.minutes(5)
}

// As objects, so that the compiler says which one is missing.
const limitOptions: { readonly [_ in keyof Limited]: true } = {
  firstTokenTimeout: true,
  idleTimeout: true,
  attemptTimeout: true
}
const layerOptions: { readonly [_ in keyof Options]: true } = {
  ...limitOptions,
  targets: true,
  name: true,
  retry: true,
  reasks: true,
  deadline: true,
  whenAllOpen: true,
  afterOutput: true,
  credentialRest: true,
  maxHeldParts: true,
  maxHeldBytes: true
}
const targetOptions: { readonly [_ in keyof TargetWithLayer<never>]: true } = {
  ...limitOptions,
  name: true,
  provider: true,
  model: true,
  credential: true,
  order: true,
  weight: true,
  contextTokens: true,
  breaker: true,
  backpressure: true,
  layer: true
}

// The compiler lets an unknown option through within a target, and options from a file are not compiled.
const onlyKnown = (options: OptionsReader, path: string, given: object, known: object): void => {
  for (const [option, value] of Object.entries(given)) {
    if (value !== undefined && !Object.hasOwn(known, option)) {
      options.refuse(`${path}${option}`, value, `must be one of ${Object.keys(known).join(", ")}`)
    }
  }
}

/** Reads all options, and builds each target's circuit and permits. Fails with all issues. */
export const read = Effect.fnUntraced(function*<S>(
  given: Options,
  targets: ReadonlyArray<TargetWithLayer<S>>
): Effect.fn.Return<
  { readonly settings: Settings; readonly plans: ReadonlyArray<Plan> },
  InvalidOptions,
  CircuitBreakerStore | Scope.Scope
> {
  const options = new OptionsReader("ResilientModel")
  const settings = yield* readSettings(options, given)
  const plans: Array<Plan> = []
  if (!Array.isArray(targets)) options.refuse("targets", targets, "must be a list")
  else if (targets.length === 0) options.refuse("targets", targets, "must not be empty")
  else {
    for (const [index, target] of targets.entries()) {
      plans.push(yield* readTarget(options, given, target, index, targets))
    }
  }
  return yield* options.check({ settings, plans })
})

const readSettings = Effect.fnUntraced(function*(options: OptionsReader, given: Options) {
  const { afterOutput = "fail", deadline, name = "model", reasks = 1, retry = RetryPolicy.exponential() } = given
  const { maxHeldBytes = 256 * 1024, maxHeldParts = 64, whenAllOpen = "refuse" } = given
  const { credentialRest = defaults.credentialRest } = given
  onlyKnown(options, "", given, layerOptions)
  options.nonEmptyString("name", name)
  yield* collect(options, "retry", RetryPolicy.validate(retry))
  return {
    name,
    retry,
    maxRetryAfterMillis: toMillis(retry?.maxRetryAfter ?? 0),
    reasks: options.integer("reasks", reasks, 0, 100),
    deadline: deadline === undefined ? undefined : options.duration("deadline", deadline, 0),
    whenAllOpen: options.oneOf("whenAllOpen", whenAllOpen, ["refuse", "leastBad"]),
    afterOutput: options.oneOf("afterOutput", afterOutput, ["fail", "restart"]),
    credentialRestMillis: options.millis("credentialRest", credentialRest, 0),
    maxHeldParts: options.integer("maxHeldParts", maxHeldParts, 1, 100_000),
    maxHeldBytes: options.integer("maxHeldBytes", maxHeldBytes, 1, 2 ** 30)
  } satisfies Settings
})

const readTarget = Effect.fnUntraced(function*<S>(
  options: OptionsReader,
  all: Options,
  own: TargetWithLayer<S>,
  index: number,
  targets: ReadonlyArray<TargetOptions>
): Effect.fn.Return<Plan, never, CircuitBreakerStore | Scope.Scope> {
  const path = `targets[${index}]`
  if (typeof own !== "object" || own === null) options.refuse(path, own, "must be an object")
  const target = own ?? {}
  const { contextTokens, order = index, weight = 1 } = target
  onlyKnown(options, `${path}.`, target, targetOptions)
  options.nonEmptyString(`${path}.name`, target.name)
  if (targets.findIndex((other) => other?.name === target.name) < index) {
    options.refuse(`${path}.name`, target.name, "must not be the name of another target")
  }
  if (!Layer.isLayer(target.layer)) options.refuse(`${path}.layer`, target.layer, "must be a layer")
  for (const option of ["provider", "model", "credential"] as const) {
    if (target[option] !== undefined) options.nonEmptyString(`${path}.${option}`, target[option])
  }
  if (!Number.isFinite(order)) options.refuse(`${path}.order`, order, "must be a number")
  if (!(Number.isFinite(weight) && weight > 0)) options.refuse(`${path}.weight`, weight, "must be a number above 0")
  if (contextTokens !== undefined) options.integer(`${path}.contextTokens`, contextTokens, 1, 2 ** 40)
  const limit = (option: "firstTokenTimeout" | "idleTimeout" | "attemptTimeout"): Duration.Duration =>
    target[option] === undefined
      ? options.duration(option, all[option] === undefined ? defaults[option] : all[option], 0)
      : options.duration(`${path}.${option}`, target[option], 0)
  const attemptTimeout = limit("attemptTimeout")
  const name = `${all.name ?? "model"}/${target.name}`
  return {
    options: target,
    order,
    weight,
    limits: {
      firstTokenMillis: Duration.toMillis(limit("firstTokenTimeout")),
      idleMillis: Duration.toMillis(limit("idleTimeout")),
      attemptMillis: Duration.toMillis(attemptTimeout),
      attemptTimeout
    },
    breaker: yield* makeBreaker(options, `${path}.breaker`, name, target.breaker),
    permits: yield* makePermits(options, `${path}.backpressure`, name, target.backpressure),
    maxWaitMillis: target.backpressure?.maxWait === undefined ? undefined : toMillis(target.backpressure.maxWait)
  }
})

// Five failures in a row stop calls to a provider that is down. Half of the last 20 stops one that still answers at times.
const defaultTrip = [CircuitBreaker.consecutive(5), CircuitBreaker.failureRate({ rate: 0.5, calls: 20 })]

const makeBreaker = (
  options: OptionsReader,
  path: string,
  name: string,
  given: TargetOptions["breaker"] = {}
) => {
  if (given === false) return Effect.undefined
  if (typeof given === "object" && given !== null) {
    return collect(options, path, CircuitBreaker.make({ trip: defaultTrip, ...given, name }))
  }
  options.refuse(path, given, "must be false or options of a circuit breaker")
  return Effect.undefined
}

const makePermits = (
  options: OptionsReader,
  path: string,
  name: string,
  given: TargetOptions["backpressure"]
) => {
  if (given === undefined) return Effect.undefined
  if (typeof given === "object" && given !== null) {
    return collect(options, path, Backpressure.make({ ...given, name }))
  }
  options.refuse(path, given, "must be options of backpressure")
  return Effect.undefined
}

/** What was built, or `undefined`. Then its issues are added to the others. */
const collect = <A, R>(
  options: OptionsReader,
  path: string,
  self: Effect.Effect<A, InvalidOptions, R>
): Effect.Effect<A | undefined, never, R> =>
  Effect.map(Effect.result(self), (result) => {
    if (Result.isSuccess(result)) return result.success
    for (const { actual, option, requirement } of result.failure.issues) {
      options.refuse(option === "policy" || option === "options" ? path : `${path}.${option}`, actual, requirement)
    }
    return undefined
  })

/** The targets, once their layers are built. */
export const targets = <S>(
  { name }: Settings,
  plans: ReadonlyArray<Plan>,
  members: ReadonlyArray<Member<S>>
): Effect.Effect<ReadonlyArray<Target.Target<S>>> => {
  const credentials = new Map<string, Target.Credential>()
  return Effect.forEach(members, (member, index) => {
    // There is a plan for each member.
    const { options, ...plan } = plans[index] as Plan
    const account = options.credential ?? options.name
    const credential = credentials.get(account) ?? new Target.Credential(account)
    credentials.set(account, credential)
    return Target.make({
      ...plan,
      credential,
      name: options.name,
      key: `${name}/${options.name}`,
      provider: options.provider ?? member.provider ?? options.name,
      model: options.model ?? member.model ?? "unknown",
      service: member.service,
      contextTokens: options.contextTokens
    })
  })
}
