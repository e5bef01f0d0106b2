import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { OptionsReader, toMillis } from "@sluice/core/OptionsReader"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { factsOf } from "../kit/modelFacts.ts"
import { unknownModel } from "./family.ts"
import type { LayerOptions, Price, StreamOptions, Target as TargetWithLayer, TargetOptions } from "./options.ts"
import type { Rest } from "./rest.ts"
import * as Target from "./target.ts"
import { TargetQuota } from "./targetQuota.ts"

/** A layer's options without its targets. Those of an embedding model leave out the options of streams. */
export type Options = Omit<LayerOptions, "targets">

/** A layer's options, checked and read. */
export interface Settings {
  readonly name: string
  readonly retry: RetryPolicy.RetryPolicy
  readonly maxRetryAfterMillis: number
  readonly reasks: number
  readonly deadline: Duration.Duration | undefined
  readonly whenAllOpen: "refuse" | "leastBad"
  readonly retriesHere: number
  readonly answer: "live" | "whole"
  readonly maxWholeBytes: number
  readonly afterOutput: "fail" | "restart" | "continue"
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
  readonly skipsMalformedEvents: boolean
  readonly prefill: boolean
  /** The target's name for each model that it offers besides its own. */
  readonly models: ReadonlyMap<string, string>
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"] | undefined
  readonly permits: Backpressure.Backpressure["Service"] | undefined
  readonly quota: Quota.Quota["Service"] | undefined
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
const streamOptions: { readonly [_ in keyof StreamOptions]-?: true } = {
  firstTokenTimeout: true,
  idleTimeout: true,
  malformedEvent: true
}
export const layerOptions: { readonly [_ in keyof LayerOptions]-?: true } = {
  ...streamOptions,
  attemptTimeout: true,
  targets: true,
  name: true,
  retry: true,
  retriesHere: true,
  reasks: true,
  deadline: true,
  whenAllOpen: true,
  answer: true,
  maxWholeBytes: true,
  afterOutput: true,
  credentialRest: true,
  maxHeldParts: true,
  maxHeldBytes: true
}
export const targetOptions: { readonly [_ in keyof TargetWithLayer<never>]-?: true } = {
  ...streamOptions,
  attemptTimeout: true,
  name: true,
  provider: true,
  model: true,
  credential: true,
  order: true,
  weight: true,
  contextTokens: true,
  models: true,
  prefill: true,
  breaker: true,
  backpressure: true,
  quota: true,
  family: true,
  price: true,
  maxOutputTokens: true,
  layer: true
}

/** Reads all options of a module, and builds each target's circuit and permits. Fails with all issues. */
export const read = Effect.fnUntraced(function*<S>(
  given: Options,
  targets: ReadonlyArray<TargetWithLayer<S>>,
  module: string
): Effect.fn.Return<
  { readonly settings: Settings; readonly plans: ReadonlyArray<Plan> },
  InvalidOptions,
  CircuitBreakerStore | Scope.Scope
> {
  const options = new OptionsReader(module)
  const settings = yield* readSettings(options, given)
  const plans: Array<Plan> = []
  const quotas: Array<KnownQuota> = []
  if (!Array.isArray(targets)) options.refuse("targets", targets, "must be a list")
  else if (targets.length === 0) options.refuse("targets", targets, "must not be empty")
  else {
    for (const [index, target] of targets.entries()) {
      plans.push(yield* readTarget(options, given, target, index, targets, quotas))
    }
  }
  return yield* options.check({ settings, plans })
})

const readSettings = Effect.fnUntraced(function*(options: OptionsReader, given: Options) {
  const { afterOutput = "fail", deadline, name = "model", reasks = 1, retry = RetryPolicy.exponential() } = given
  const { maxHeldBytes = 256 * 1024, maxHeldParts = 64, whenAllOpen = "refuse" } = given
  const { answer = "live", maxWholeBytes = 16 * 2 ** 20, retriesHere = 1 } = given
  const { credentialRest = defaults.credentialRest } = given
  options.onlyKnown("", given, layerOptions)
  if (given.malformedEvent !== undefined) options.oneOf("malformedEvent", given.malformedEvent, ["fail", "skip"])
  options.nonEmptyString("name", name)
  yield* collect(options, "retry", RetryPolicy.validate(retry))
  return {
    name,
    retry,
    maxRetryAfterMillis: toMillis(retry?.maxRetryAfter ?? 0),
    reasks: options.integer("reasks", reasks, 0, 100),
    deadline: deadline === undefined ? undefined : options.duration("deadline", deadline, 0),
    whenAllOpen: options.oneOf("whenAllOpen", whenAllOpen, ["refuse", "leastBad"]),
    retriesHere: options.integer("retriesHere", retriesHere, 0, 100),
    answer: options.oneOf("answer", answer, ["live", "whole"]),
    maxWholeBytes: options.integer("maxWholeBytes", maxWholeBytes, 1, 2 ** 30),
    afterOutput: options.oneOf("afterOutput", afterOutput, ["fail", "restart", "continue"]),
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
  targets: ReadonlyArray<TargetOptions>,
  quotas: Array<KnownQuota>
): Effect.fn.Return<Plan, never, CircuitBreakerStore | Scope.Scope> {
  const path = `targets[${index}]`
  if (typeof own !== "object" || own === null) options.refuse(path, own, "must be an object")
  const target = own ?? {}
  const { contextTokens, order = index, weight = 1 } = target
  options.onlyKnown(`${path}.`, target, targetOptions)
  options.nonEmptyString(`${path}.name`, target.name)
  if (targets.findIndex((other) => other?.name === target.name) < index) {
    options.refuse(`${path}.name`, target.name, "must not be the name of another target")
  }
  if (!Layer.isLayer(target.layer)) options.refuse(`${path}.layer`, target.layer, "must be a layer")
  for (const option of ["provider", "model", "credential", "family"] as const) {
    if (target[option] !== undefined) options.nonEmptyString(`${path}.${option}`, target[option])
  }
  if (!Number.isFinite(order)) options.refuse(`${path}.order`, order, "must be a number")
  if (!(Number.isFinite(weight) && weight > 0)) options.refuse(`${path}.weight`, weight, "must be a number above 0")
  if (contextTokens !== undefined) options.integer(`${path}.contextTokens`, contextTokens, 1, 2 ** 40)
  if (target.maxOutputTokens !== undefined) {
    options.integer(`${path}.maxOutputTokens`, target.maxOutputTokens, 1, 2 ** 40)
  }
  readPrice(options, `${path}.price`, target.price)
  const limit = (option: "firstTokenTimeout" | "idleTimeout" | "attemptTimeout"): Duration.Duration =>
    target[option] === undefined
      ? options.duration(option, all[option] === undefined ? defaults[option] : all[option], 0)
      : options.duration(`${path}.${option}`, target[option], 0)
  const attemptTimeout = limit("attemptTimeout")
  const { malformedEvent = all.malformedEvent ?? "fail" } = target
  if (target.malformedEvent !== undefined) options.oneOf(`${path}.malformedEvent`, malformedEvent, ["fail", "skip"])
  const { prefill = false } = target
  if (typeof prefill !== "boolean") options.refuse(`${path}.prefill`, prefill, "must be true or false")
  const models = readModels(options, `${path}.models`, target.models)
  const name = `${all.name ?? "model"}/${target.name}`
  const quota = yield* makeQuota(options, `${path}.quota`, all.name ?? "model", target, quotas)
  if (quota !== undefined && limitsMoney(quota) && target.price === undefined) {
    options.refuse(`${path}.price`, undefined, "must be set, since the quota limits money")
  }
  const maxWait = target.backpressure?.maxWait ?? target.quota?.maxWait
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
    skipsMalformedEvents: malformedEvent === "skip",
    prefill,
    models,
    breaker: yield* makeBreaker(options, `${path}.breaker`, name, target.breaker, attemptTimeout),
    permits: yield* makePermits(options, `${path}.backpressure`, name, target.backpressure),
    quota,
    maxWaitMillis: maxWait === undefined ? undefined : toMillis(maxWait)
  }
})

/** The names by which calls ask for the models, and the target's own names. */
const readModels = (options: OptionsReader, path: string, given: TargetOptions["models"] = []): Map<string, string> => {
  const models = new Map<string, string>()
  const isNames = typeof given === "object" && given !== null
  const names = !isNames ? [] : Array.isArray(given) ? given.map((name) => [name, name]) : Object.entries(given)
  if (!isNames) options.refuse(path, given, "must be a list of names, or an object from names to the target's names")
  for (const [name, own] of names) {
    if (typeof name === "string" && name !== "" && typeof own === "string" && own !== "") models.set(name, own)
    else options.refuse(path, given, "must have names that are not empty")
  }
  return models
}

// Five failures in a row stop calls to a provider that is down. Half of the last 20 stops one that still answers at times.
const defaultTrip = [CircuitBreaker.consecutive(5), CircuitBreaker.failureRate({ rate: 0.5, calls: 20 })]

// A probe costs one call, so a short outage should be over soon. A provider that stays down gets two probes a minute.
const defaultOpenFor = Schedule.min([Schedule.exponential("5 seconds"), Schedule.spaced("30 seconds")])

const makeBreaker = (
  options: OptionsReader,
  path: string,
  name: string,
  given: TargetOptions["breaker"] = {},
  attemptTimeout: Duration.Duration
) => {
  if (given === false) return Effect.undefined
  if (typeof given === "object" && given !== null) {
    checkSlowAfter(options, path, given, attemptTimeout)
    return collect(options, path, CircuitBreaker.make({ trip: defaultTrip, openFor: defaultOpenFor, ...given, name }))
  }
  options.refuse(path, given, "must be false or options of a circuit breaker")
  return Effect.undefined
}

// With such a limit an attempt times out before it counts as slow, so slow calls would never open the circuit.
const checkSlowAfter = (
  options: OptionsReader,
  path: string,
  { slowAfter = "30 seconds", trip = [] }: CircuitBreaker.CircuitBreakerOptions,
  attemptTimeout: Duration.Duration
): void => {
  const trips: ReadonlyArray<CircuitBreaker.TripPolicy | undefined> = [trip].flat()
  if (!trips.some((trip) => trip?._tag === "SlowCallRate")) return
  if (!(toMillis(slowAfter) >= Duration.toMillis(attemptTimeout))) return
  const requirement = `must be less than \`attemptTimeout\`, ${Duration.format(attemptTimeout)}`
  options.refuse(`${path}.slowAfter`, slowAfter, requirement)
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

const priceOptions: { readonly [_ in keyof Price]-?: true } = { input: true, output: true, cachedInput: true }

const readPrice = (options: OptionsReader, path: string, given: Price | undefined): void => {
  if (given === undefined) return
  const { cachedInput, input, output } = options.object(path, given, priceOptions)
  options.number(`${path}.input`, input ?? Number.NaN, 0, 1e6)
  options.number(`${path}.output`, output ?? Number.NaN, 0, 1e6)
  if (cachedInput !== undefined) options.number(`${path}.cachedInput`, cachedInput, 0, 1e6)
}

/** A quota that further targets of the account share, if their options are equal. */
interface KnownQuota {
  readonly credential: string
  readonly options: NonNullable<TargetOptions["quota"]>
  readonly service: Quota.Quota["Service"]
}

const limitsMoney = ({ limits }: Quota.Quota["Service"]): boolean => limits.some(({ name }) => name === "money")

const makeQuota = Effect.fnUntraced(function*(
  options: OptionsReader,
  path: string,
  name: string,
  { credential, name: target, quota: given }: TargetOptions,
  known: Array<KnownQuota>
): Effect.fn.Return<Quota.Quota["Service"] | undefined, never, Scope.Scope> {
  if (given === undefined) return undefined
  if (typeof given !== "object" || given === null) {
    options.refuse(path, given, "must be options of a quota, or a service of `Quota`")
    return undefined
  }
  // Only a service has it.
  if ("reserve" in given) return given.limits.length === 0 ? undefined : given
  const account = credential ?? target
  const shared = known.find((one) => one.credential === account && Equal.equals(one.options, given))
  if (shared !== undefined) return shared.service
  // Of an untyped caller.
  const { tenantLimits } = given as Quota.QuotaOptions
  if (tenantLimits !== undefined) {
    options.refuse(`${path}.tenantLimits`, tenantLimits, "must be absent, since the calls of a model have no tenant")
  }
  const store = yield* Effect.serviceOption(QuotaStore.QuotaStore)
  const made = Effect.provideService(
    Quota.make({ ...given, name: `${name}/${account}` }),
    QuotaStore.QuotaStore,
    Option.isSome(store) ? store.value : yield* QuotaStore.makeMemory()
  )
  const service = yield* collect(options, path, made)
  if (service !== undefined) known.push({ credential: account, options: given, service })
  return service
})

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

/** The targets, once their layers are built. `hasOutput`: whether the answers have tokens, as those of an embedding do not. */
export const targets = Effect.fnUntraced(function*<S>(
  { name }: Settings,
  plans: ReadonlyArray<Plan>,
  members: ReadonlyArray<Member<S>>,
  hasOutput: boolean
): Effect.fn.Return<ReadonlyArray<Target.Target<S>>, InvalidOptions> {
  const reader = new OptionsReader("ResilientModel")
  const credentials = new Map<string, Target.Credential>()
  const services = new Map<string, { readonly target: string; readonly service: Quota.Quota["Service"] }>()
  const rests = new Map<string, Rest>()
  const made: Array<Target.Target<S>> = []
  for (const [index, member] of members.entries()) {
    // There is a plan for each member.
    const { options, quota: service, ...plan } = plans[index] as Plan
    const account = options.credential ?? options.name
    const credential = credentials.get(account) ?? new Target.Credential(account)
    credentials.set(account, credential)
    const model = options.model ?? member.model
    const provider = options.provider ?? member.provider ?? options.name
    const facts = factsOf(member.service)
    const quota = service === undefined ? undefined : new TargetQuota({
      service,
      credential: account,
      family: options.family,
      price: options.price,
      maxOutputTokens: hasOutput ? options.maxOutputTokens : 0,
      facts,
      provider,
      rests
    })
    if (service !== undefined && quota !== undefined) {
      const key = quota.keyOf(model ?? unknownModel)
      const other = services.get(key)
      services.set(key, other ?? { target: options.name, service })
      if (other !== undefined && other.service !== service) {
        const requirement =
          `must equal that of \`${other.target}\`, since both are of the account and model family "${key}"`
        reader.refuse(`targets[${index}].quota`, "other options", requirement)
      }
      const maximum = hasOutput ? facts?.maxOutputTokens(Context.empty()) ?? options.maxOutputTokens : 0
      if (maximum === undefined && limitsMoney(service)) {
        const requirement = "must be set, since the quota limits money and the model's configuration has no maximum"
        reader.refuse(`targets[${index}].maxOutputTokens`, undefined, requirement)
      }
    }
    made.push(
      yield* Target.make({
        ...plan,
        credential,
        quota,
        name: options.name,
        key: `${name}/${options.name}`,
        provider,
        model: model ?? unknownModel,
        // Its own model needs no other name.
        models: model === undefined ? plan.models : new Map([[model, undefined], ...plan.models]),
        service: member.service,
        contextTokens: options.contextTokens
      })
    )
  }
  return yield* reader.check(made)
})
