import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { Limits as Limited, Options, Target as TargetWithLayer, TargetOptions } from "../../ResilientModel.ts"
import * as OptionsCheck from "../options.ts"
import { Credential, type Limits, Target } from "./target.ts"

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
  readonly limits: Limits
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

const module = "ResilientModel"

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
  concurrency: true,
  layer: true
}

// The compiler lets one through within a target, and whoever builds options from a file has none.
const onlyKnown = (checked: OptionsCheck.Options, path: string, own: object, known: object): void => {
  for (const [option, value] of Object.entries(own)) {
    if (value !== undefined && !Object.hasOwn(known, option)) {
      checked.refuse(`${path}${option}`, shown(value), `one of ${Object.keys(known).join(", ")}`)
    }
  }
}

/** Reads everything, and builds each target's circuit and permits. Fails with all that is wrong. */
export const read = Effect.fnUntraced(function*<S>(
  options: Options,
  targets: ReadonlyArray<TargetWithLayer<S>>
): Effect.fn.Return<
  { readonly settings: Settings; readonly plans: ReadonlyArray<Plan> },
  InvalidOptions,
  CircuitBreakerStore | Scope.Scope
> {
  const checked = new OptionsCheck.Options(module)
  const settings = yield* readSettings(checked, options)
  const plans: Array<Plan> = []
  if (!Array.isArray(targets) || targets.length === 0) {
    checked.refuse("targets", shown(targets), "at least one target")
  } else {
    for (const [index, target] of targets.entries()) {
      plans.push(yield* plan(checked, options, target, index, targets))
    }
  }
  return yield* checked.check({ settings, plans })
})

const readSettings = Effect.fnUntraced(function*(checked: OptionsCheck.Options, options: Options) {
  const { afterOutput = "fail", deadline, name = "model", reasks = 1, retry = RetryPolicy.exponential() } = options
  const { maxHeldBytes = 256 * 1024, maxHeldParts = 64, whenAllOpen = "refuse" } = options
  const { credentialRest = defaults.credentialRest } = options
  onlyKnown(checked, "", options, layerOptions)
  text(checked, "name", name)
  yield* gathered(checked, "retry", RetryPolicy.validate(retry))
  return {
    name,
    retry,
    maxRetryAfterMillis: Duration.toMillis(checked.duration("retry.maxRetryAfter", retry?.maxRetryAfter ?? 0)),
    reasks: checked.integer("reasks", reasks, 0, 100),
    deadline: deadline === undefined ? undefined : checked.duration("deadline", deadline),
    whenAllOpen: oneOf(checked, "whenAllOpen", whenAllOpen, ["refuse", "leastBad"]),
    afterOutput: oneOf(checked, "afterOutput", afterOutput, ["fail", "restart"]),
    credentialRestMillis: Duration.toMillis(checked.duration("credentialRest", credentialRest)),
    maxHeldParts: checked.integer("maxHeldParts", maxHeldParts, 1, 100_000),
    maxHeldBytes: checked.integer("maxHeldBytes", maxHeldBytes, 1, 2 ** 30)
  } satisfies Settings
})

const plan = Effect.fnUntraced(function*<S>(
  checked: OptionsCheck.Options,
  all: Options,
  own: TargetWithLayer<S>,
  index: number,
  targets: ReadonlyArray<TargetOptions>
): Effect.fn.Return<Plan, never, CircuitBreakerStore | Scope.Scope> {
  const path = `targets[${index}]`
  const { contextTokens, order = index, weight = 1 } = own
  onlyKnown(checked, `${path}.`, own, targetOptions)
  text(checked, `${path}.name`, own.name)
  if (targets.findIndex(({ name }) => name === own.name) < index) {
    checked.refuse(`${path}.name`, own.name, "a name that no other target has")
  }
  if (!Layer.isLayer(own.layer)) checked.refuse(`${path}.layer`, shown(own.layer), "a layer")
  for (const option of ["provider", "model", "credential"] as const) {
    if (own[option] !== undefined) text(checked, `${path}.${option}`, own[option])
  }
  if (!Number.isFinite(order)) checked.refuse(`${path}.order`, shown(order), "a number")
  if (!(Number.isFinite(weight) && weight > 0)) checked.refuse(`${path}.weight`, shown(weight), "a number above 0")
  if (contextTokens !== undefined) checked.integer(`${path}.contextTokens`, contextTokens, 1, 2 ** 40)
  const limit = (option: "firstTokenTimeout" | "idleTimeout" | "attemptTimeout"): Duration.Duration =>
    own[option] === undefined
      ? checked.duration(option, all[option] === undefined ? defaults[option] : all[option])
      : checked.duration(`${path}.${option}`, own[option])
  const attemptTimeout = limit("attemptTimeout")
  const name = `${all.name ?? "model"}/${own.name}`
  return {
    options: own,
    order,
    weight,
    limits: {
      firstTokenMillis: Duration.toMillis(limit("firstTokenTimeout")),
      idleMillis: Duration.toMillis(limit("idleTimeout")),
      attemptMillis: Duration.toMillis(attemptTimeout),
      attemptTimeout
    },
    breaker: yield* breaker(checked, `${path}.breaker`, name, own.breaker),
    ...(yield* permits(checked, `${path}.concurrency`, name, own.concurrency))
  }
})

// Five in a row stop a provider that is down after a moment. Half of the last 20 stops one that answers now and then.
const defaultTrip = [CircuitBreaker.consecutive(5), CircuitBreaker.failureRate({ rate: 0.5, calls: 20 })]

const breaker = (
  checked: OptionsCheck.Options,
  path: string,
  name: string,
  own: TargetOptions["breaker"] = {}
) => {
  if (own === false) return Effect.undefined
  return isObject(own)
    ? gathered(checked, path, CircuitBreaker.make({ trip: defaultTrip, ...own, name }))
    : refused(checked, path, own, "false or options of a circuit breaker")
}

const permits = Effect.fnUntraced(function*(
  checked: OptionsCheck.Options,
  path: string,
  name: string,
  own: TargetOptions["concurrency"]
) {
  if (own === undefined) return { permits: undefined, maxWaitMillis: undefined }
  const isNumber = typeof own === "number"
  if (!isNumber && !isObject(own)) {
    return {
      permits: yield* refused(checked, path, own, "a number or options of backpressure"),
      maxWaitMillis: undefined
    }
  }
  const options = isNumber ? { capacity: own } : own
  const permits = yield* gathered(checked, path, Backpressure.make({ queue: 10_000, ...options, name }))
  const { maxWait } = options
  return {
    permits,
    maxWaitMillis: maxWait === undefined || permits === undefined ? undefined : Duration.toMillis(maxWait)
  }
})

/** What was built, or nothing: then what is wrong is among what was found. */
const gathered = <A, R>(
  checked: OptionsCheck.Options,
  path: string,
  self: Effect.Effect<A, InvalidOptions, R>
): Effect.Effect<A | undefined, never, R> =>
  Effect.map(Effect.result(self), (result) => {
    if (Result.isSuccess(result)) return result.success
    for (const { actual, allowed, option } of result.failure.issues) {
      checked.refuse(option === "policy" || option === "options" ? path : `${path}.${option}`, actual, allowed)
    }
    return undefined
  })

const refused = (
  checked: OptionsCheck.Options,
  path: string,
  actual: unknown,
  allowed: string
): Effect.Effect<undefined> => {
  checked.refuse(path, shown(actual), allowed)
  return Effect.undefined
}

const text = (checked: OptionsCheck.Options, option: string, value: unknown): void => {
  if (typeof value !== "string" || value === "") checked.refuse(option, shown(value), "a text that is not empty")
}

const oneOf = <const A extends string>(
  checked: OptionsCheck.Options,
  option: string,
  value: A,
  allowed: ReadonlyArray<A>
): A => {
  if (!allowed.includes(value)) checked.refuse(option, shown(value), allowed.join(" | "))
  return value
}

const isObject = (value: unknown): boolean => typeof value === "object" && value !== null

// As a message may have it: what is no text and no number is told by its kind alone.
const shown = (value: unknown): unknown =>
  Array.isArray(value) ? "a list" : isObject(value) || typeof value === "function" ? `a ${typeof value}` : value

/** The targets, now that their layers are built. */
export const targets = <S>(
  { name }: Settings,
  plans: ReadonlyArray<Plan>,
  members: ReadonlyArray<Member<S>>
): ReadonlyArray<Target<S>> => {
  const credentials = new Map<string, Credential>()
  return members.map((member, index) => {
    // One for each.
    const { options, ...plan } = plans[index] as Plan
    const account = options.credential ?? options.name
    const credential = credentials.get(account) ?? new Credential(account)
    credentials.set(account, credential)
    return new Target({
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
