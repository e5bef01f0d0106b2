/** The settings of the gateway: flags, variables and the section `serve` of `sluice.json`. */
import type { FrontOptions, FrontTarget } from "@sluice/ai/Front"
import * as Quota from "@sluice/core/Quota"
import type { QuotaStore } from "@sluice/core/QuotaStore"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Arguments from "../Arguments.ts"
import type { Limit } from "../Flag.ts"
import type { Route, Target as GivenTarget } from "../Gateway.ts"
import * as Gateway from "../Gateway.ts"
import * as Nearest from "../Nearest.ts"
import type { ServeFlags } from "../options.ts"
import * as Options from "../options.ts"
import * as Limits from "../run/Limits.ts"
import * as Prices from "../run/Prices.ts"
import * as Run from "../run/Settings.ts"
import type { Given } from "../Shell.ts"
import * as Sources from "../Sources.ts"

export interface Target extends Run.Target {
  readonly models: GivenTarget["models"]
  readonly order: number | undefined
  readonly weight: number | undefined
  readonly prefill: boolean
  readonly concurrency: number | undefined
}

export interface Settings {
  readonly flags: ServeFlags
  readonly targets: ReadonlyArray<Target>
  readonly headers: Run.Settings["headers"]
  readonly routes: ReadonlyArray<Route>
  readonly allowedHosts: ReadonlySet<string>
  readonly prices: Prices.Prices
  /** The file that was read, or would be if it were there. */
  readonly file: string | undefined
}

/** Reads all settings. Fails with what is wrong. */
export const read = (
  given: Given,
  surroundings: Sources.Surroundings
): Effect.Effect<Settings, Run.SettingsError> =>
  Effect.gen(function*() {
    const sources = Sources.read(Options.serve.flags, given, surroundings, "serve")
    if (sources._tag === "Wrong") return yield* Run.refuseAll([sources.message])
    const parsed = Arguments.readAll(Options.serve.flags, sources.given, [])
    if (parsed._tag !== "Parsed") return yield* Run.refuseAll([parsed._tag === "Wrong" ? parsed.message : "unreadable"])
    const flags = parsed.values
    const { env } = surroundings
    const targets = yield* Run.targetsOf(flags, env)
    const names = targets.map(({ name }) => name)
    const routes = flags.routes.flat()
    const problems = [
      ...Run.headerProblems(flags.headers, env),
      ...Limits.problems(flags, names),
      ...flags.concurrency.flatMap(({ target }) =>
        target === undefined || names.includes(target) ? [] : [`--concurrency names ${target}, which is no target`]
      ),
      ...routes.flatMap((route) => routeProblems(route, names)),
      ...(flags.price === undefined || flags.priceFile === undefined ? [] : ["use --price or --price-file, not both"])
    ]
    const [first, ...others] = problems
    if (first !== undefined) return yield* Run.refuseAll([first, ...others])
    const list = yield* Effect.mapError(
      Prices.read(flags.priceFile),
      ({ message }) => new Run.SettingsError({ problems: [message] })
    )
    return {
      flags,
      targets: targets.map((target) => completed(target, flags)),
      headers: Run.headersOf(flags.headers, env),
      routes,
      allowedHosts: new Set(flags.allowHosts),
      prices: new Prices.Prices(flags.price, list),
      file: sources.file?.path
    }
  })

const routeProblems = ({ asked, targets }: Route, names: ReadonlyArray<string>): ReadonlyArray<string> =>
  targets.flatMap((name, index) => {
    if (targets.indexOf(name) < index) return [`models sends ${asked} to ${name} twice`]
    if (names.includes(name)) return []
    const nearest = Nearest.find(name, names)
    const hint = nearest === undefined ? `targets: ${names.join(", ")}` : `did you mean ${nearest}?`
    return [`models sends ${asked} to ${name}, which is no target; ${hint}`]
  })

/** Calls of batches that run at once per target without a limit. */
const usualCalls = 64

/** How many calls of batches run at once, over all targets. */
export const callsAtOnce = ({ targets }: Pick<Settings, "targets">): number =>
  targets.reduce((sum, { concurrency = usualCalls }) => sum + concurrency, 0)

/** The targets that a request for this model can go to. */
export const offering = (
  { routes, targets }: Pick<Settings, "routes" | "targets">,
  asked: string
): ReadonlyArray<Target> => {
  if (routes.length === 0) {
    return targets.filter(({ models }) => models === undefined || Object.hasOwn(models, asked))
  }
  const fitting = routes.filter((route) => Gateway.isOneOf([route.asked], asked))
  const exact = fitting.findLast((route) => route.asked === asked)
  const [longest] = fitting.toSorted((a, b) => b.asked.length - a.asked.length)
  const names = (exact ?? longest)?.targets ?? []
  return targets.filter(({ name }) => names.includes(name))
}

const completed = (target: Run.Target, flags: ServeFlags): Target => {
  const own = flags.targets.find(({ name }) => name === target.name)
  return {
    ...target,
    models: own?.models,
    order: own?.order,
    weight: own?.weight,
    prefill: own?.prefill === true,
    limits: Limits.of(flags, target),
    concurrency: limitOf(flags.concurrency, target.name)
  }
}

/** The limit of a target. One with its name comes before one for all. */
const limitOf = (limits: ReadonlyArray<Limit>, name: string): number | undefined =>
  (limits.findLast(({ target }) => target === name) ?? limits.findLast(({ target }) => target === undefined))?.limit

/** Calls that may wait at a target whose calls at once are limited. */
const queuedCalls = 1_000

/** The quotas of the targets. They live as long as the process, so that a reload forgets no use. */
export class Quotas {
  private readonly quotas = new Map<string, Quota.Quota["Service"]>()
  private readonly processes: number

  constructor(processes: number) {
    this.processes = processes
  }

  /** The quota of a target with these limits. */
  of(
    { limits = [], name }: Target
  ): Effect.Effect<Quota.Quota["Service"] | undefined, never, QuotaStore | Scope.Scope> {
    if (limits.length === 0) return Effect.undefined
    const key = JSON.stringify([name, limits])
    const known = this.quotas.get(key)
    if (known !== undefined) return Effect.succeed(known)
    // The flags were validated.
    return Effect.tap(
      Effect.orDie(Quota.make({ name, limits, maxWait: "30 seconds", processes: this.processes })),
      (quota) => Effect.sync(() => this.quotas.set(key, quota))
    )
  }
}

/** The options of the front. */
export const frontOptions = (
  { flags, headers, routes, targets }: Settings,
  quotas: Quotas
): Effect.Effect<FrontOptions, never, QuotaStore | Scope.Scope> =>
  Effect.map(
    Effect.forEach(targets, (target) =>
      Effect.map(quotas.of(target), (quota): FrontTarget => {
        const { apiKey, concurrency, model, models, name, order, prefill, url, weight, wire } = target
        return {
          name,
          url: wire === "anthropic" ? anthropicBase(url) : url,
          speaks: wire,
          apiKey,
          allowInsecureKey: flags.allowInsecureKey,
          headers,
          model,
          models,
          order,
          weight,
          prefill,
          quota,
          backpressure: concurrency === undefined ? undefined : { capacity: concurrency, queue: queuedCalls }
        }
      })),
    (targets): FrontOptions => ({
      name: "gateway",
      targets,
      models: routes.length === 0
        ? undefined
        : Object.fromEntries(routes.map(({ asked, steps }) => [asked, steps])),
      retry: RetryPolicy.exponential({ maxAttempts: flags.maxAttempts }),
      answer: flags.answer,
      attemptTimeout: flags.timeoutMillis,
      firstTokenTimeout: flags.firstTokenTimeoutMillis,
      idleTimeout: flags.idleTimeoutMillis,
      deadline: flags.deadlineMillis,
      heartbeat: flags.heartbeatMillis,
      dedupe: flags.dedupe,
      // Without the counts of a stream, the use of a key is a guess.
      countUsage: true
    })
  )

/** `sluice run` takes the URL without the version too. */
const anthropicBase = (url: string): string => {
  const parsed = new URL(url)
  const path = parsed.pathname.replace(/\/+$/, "").replace(/\/messages$/, "")
  parsed.pathname = /\/v\d+$/.test(path) ? path : `${path}/v1`
  return parsed.href
}
