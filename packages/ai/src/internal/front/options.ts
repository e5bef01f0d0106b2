import { type Known, OptionsReader } from "@sluice/core/OptionsReader"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type { CallOptions, LayerOptions, StreamOptions, Target, TargetOptions } from "../resilient/options.ts"
import { layerOptions, targetOptions } from "../resilient/settings.ts"
import type { Bounds } from "../wire/bounds.ts"
import type * as Headers from "../wire/headers.ts"
import type { Routes } from "./models.ts"
import type { Speaks } from "./route.ts"
import * as Upstream from "./upstream.ts"

/**
 * Options for one target of a front.
 *
 * @since 0.1.0
 * @category models
 */
export interface FrontTarget extends Omit<TargetOptions, "malformedEvent"> {
  /** The base URL, up to the version: `https://api.openai.com/v1`. */
  readonly url: string
  /** The API that it has. */
  readonly speaks: Speaks
  /**
   * The endpoints that it has. Default: `"chat"`, `"responses"` and `"embeddings"` for OpenAI's API, `"messages"` for Anthropic's.
   */
  readonly endpoints?: ReadonlyArray<Upstream.Endpoint> | undefined
  readonly apiKey?: Redacted.Redacted | undefined
  /** The header that carries `apiKey`. Default: `authorization` for OpenAI's API, `x-api-key` for Anthropic's. */
  readonly keyHeader?: string | undefined
  /** Whether the key may be sent unencrypted to another machine. Default false. */
  readonly allowInsecureKey?: boolean | undefined
  /** Headers of every request, in place of the client's headers of the same name. */
  readonly headers?: Headers.Custom | undefined
  /** The model that it is asked for, whatever the client asks for. Default: the model that the client asks for. */
  readonly model?: string | undefined
  /**
   * The models that it offers, and no others but `model`: a list of names, or an object from the names that clients use to the
   * target's own names. Default: every model.
   */
  readonly models?: TargetOptions["models"]
  /**
   * Whether it continues a partial answer that is the last message of the prompt. Then a stream that breaks after its output continues
   * with this target, and the client notices nothing. Default false.
   *
   * Set it only for a provider and a model that you have tried. Many servers begin a new answer instead, and some refuse such a prompt.
   * For streamed chat completions and messages of text. A stream with a tool call, reasoning or several choices ends with an error, and so
   * does one of the responses API, which has no such prompt. The request and the bytes of a stream are kept until it ends, up to
   * `maxWholeBytes`.
   */
  readonly prefill?: TargetOptions["prefill"]
}

/**
 * Options for `layer`, `layerStore` and `make`. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface FrontOptions
  extends
    Omit<CallOptions, "reasks">,
    Omit<StreamOptions, "malformedEvent">,
    Pick<LayerOptions, "answer" | "maxHeldBytes" | "maxWholeBytes">
{
  /** At least one. */
  readonly targets: ReadonlyArray<FrontTarget>
  /**
   * The targets of each model, in order: from the model that clients ask for to the names of targets. A name that ends with `*`
   * matches all models with this prefix. Other models are refused. Default: each target decides by its `models`.
   *
   * An object in place of a name has targets that share the calls by weight: `[{ main: 1, azure: 3 }, "backup"]`. Names beside each
   * other share them as their targets say by `order` and `weight`.
   */
  readonly models?: Routes | undefined
  /**
   * Whether chat completions and messages are translated into each other for targets with the other API. A request with a field that
   * has no equal there is refused. Default true.
   */
  readonly translate?: boolean | undefined
  /**
   * Fields at the top of a request that a translation may leave out where they have no equal, such as `"thinking"` and
   * `"context_management"`. The header `x-sluice-omitted` names those that were. Default: none, so that such requests are refused.
   */
  readonly omittable?: ReadonlyArray<string> | undefined
  /**
   * How often a client that waits for the first output of a stream gets a comment, so that no proxy closes its connection as idle.
   * After the first comment the status is 200, and a refusal is an error event. Default: never.
   */
  readonly heartbeat?: Duration.Input | undefined
  /**
   * Whether streams of chat completions are asked for their token counts if the client does not ask for them. The event with the
   * counts is then not passed on. Default false: the request passes as it is.
   */
  readonly countUsage?: boolean | undefined
  /**
   * Whether identical requests in flight share one call, also streams. A client that joins reads the answer from its beginning.
   * Requests with different keys of clients are never shared. Default false.
   */
  readonly dedupe?: boolean | undefined
  /** The largest body of a request, in bytes. Default 32 Mi. */
  readonly maxBodyBytes?: number | undefined
  /** The largest whole answer, in bytes. Default 16 Mi. */
  readonly maxAnswerBytes?: number | undefined
  /** How many logs of calls are kept for `GET /sluice/calls/ID`: the last ones. Default 1,000. */
  readonly keptCalls?: number | undefined
}

const own: { readonly [_ in Exclude<keyof FrontOptions, keyof LayerOptions>]-?: true } = {
  models: true,
  translate: true,
  dedupe: true,
  omittable: true,
  heartbeat: true,
  countUsage: true,
  maxBodyBytes: true,
  maxAnswerBytes: true,
  keptCalls: true
}
const { afterOutput: _a, malformedEvent: _m, maxHeldParts: _p, reasks: _r, targets: _t, ...shared } = layerOptions
const known: Known<FrontOptions> = { targets: true, ...own, ...shared }

const ownOfTarget: { readonly [_ in Exclude<keyof FrontTarget, keyof TargetOptions>]-?: true } = {
  url: true,
  speaks: true,
  endpoints: true,
  apiKey: true,
  keyHeader: true,
  allowInsecureKey: true,
  headers: true
}
const { layer: _l, malformedEvent: _e, ...sharedOfTarget } = targetOptions
const knownOfTarget: Known<FrontTarget> = { ...ownOfTarget, ...sharedOfTarget }

/** The options of a front, as they were read. */
export interface Read {
  /** For the engine. */
  readonly shared: Omit<LayerOptions, "targets">
  readonly targets: ReadonlyArray<Target<Upstream.Upstream, never, never>>
  readonly routes: Routes | undefined
  readonly heartbeatMillis: number | undefined
  readonly countsUsage: boolean
  readonly translates: boolean
  readonly dedupes: boolean
  readonly omittable: ReadonlyArray<string>
  readonly maxBodyBytes: number
  readonly keptCalls: number
  readonly bounds: Bounds
}

const maxBound = 2 ** 30

/** They are sent in a header. */
const isField = /^\w+$/

/** Reads the options that the engine does not read. Fails with all issues. */
export const read = Effect.fnUntraced(function*(given: FrontOptions) {
  const options = new OptionsReader("Front")
  const {
    countUsage = false,
    heartbeat,
    keptCalls = 1000,
    maxAnswerBytes = 16 * 2 ** 20,
    maxBodyBytes = 32 * 2 ** 20
  } = options.object("options", given, known)
  const { dedupe = false, omittable = [], translate = true } = given
  if (typeof countUsage !== "boolean") options.refuse("countUsage", countUsage, "must be true or false")
  if (typeof dedupe !== "boolean") options.refuse("dedupe", dedupe, "must be true or false")
  if (!Array.isArray(omittable) || !omittable.every((name) => typeof name === "string" && isField.test(name))) {
    options.refuse("omittable", omittable, "must be a list of names of fields")
  }
  if (typeof translate !== "boolean") options.refuse("translate", translate, "must be true or false")
  const targets: Array<Target<Upstream.Upstream, never, never>> = []
  const list = Array.isArray(given.targets) ? given.targets as FrontOptions["targets"] : []
  if (list.length === 0) options.refuse("targets", given.targets, "must be a list of at least one target")
  for (const [index, target] of list.entries()) {
    const path = `targets[${index}]`
    if (Object.keys(options.object(path, target, knownOfTarget)).length === 0) continue
    options.oneOf(`${path}.speaks`, target.speaks, ["openai", "anthropic"])
    readEndpoints(options, `${path}.endpoints`, target)
    const upstream = yield* Effect.result(Upstream.make(target))
    if (Result.isSuccess(upstream)) {
      targets.push({
        ...pick(target, sharedOfTarget),
        layer: Layer.succeed(Upstream.UpstreamService, upstream.success)
      })
    } else {
      for (const { actual, option, requirement } of upstream.failure.issues) {
        options.refuse(`${path}.${option}`, actual, requirement)
      }
    }
  }
  readRoutes(options, given.models, list)
  return yield* options.check<Read>({
    shared: pick(given, shared),
    targets,
    routes: given.models,
    heartbeatMillis: heartbeat === undefined ? undefined : options.millis("heartbeat", heartbeat, 1),
    countsUsage: countUsage,
    translates: translate,
    dedupes: dedupe,
    omittable,
    maxBodyBytes: options.integer("maxBodyBytes", maxBodyBytes, 1, maxBound),
    keptCalls: options.integer("keptCalls", keptCalls, 0, 1_000_000),
    bounds: {
      answerSize: options.integer("maxAnswerBytes", maxAnswerBytes, 1, maxBound),
      eventSize: 2 ** 20,
      jsonDepth: 128
    }
  })
})

const endpoints: ReadonlyArray<string> = ["chat", "responses", "embeddings", "messages"] satisfies ReadonlyArray<
  Upstream.Endpoint
>

const readEndpoints = (options: OptionsReader, path: string, { endpoints: given, speaks }: FrontTarget): void => {
  if (given === undefined) return
  if (!Array.isArray(given) || given.length === 0) return options.refuse(path, given, "must be a list, and not empty")
  for (const endpoint of given as ReadonlyArray<Upstream.Endpoint>) {
    if (!endpoints.includes(endpoint) || (endpoint === "messages") !== (speaks === "anthropic")) {
      options.refuse(path, endpoint, "must be endpoints of the API that the target speaks")
    }
  }
}

const readRoutes = (options: OptionsReader, routes: Routes | undefined, list: FrontOptions["targets"]): void => {
  if (routes === undefined) return
  if (typeof routes !== "object" || routes === null) return options.refuse("models", routes, "must be an object")
  for (const [asked, steps] of Object.entries(routes)) {
    const path = `models["${asked}"]`
    if (!Array.isArray(steps) || steps.length === 0) {
      options.refuse(path, steps, "must be a list of names of targets, and not empty")
      continue
    }
    const seen = new Set<string>()
    for (const step of steps as Routes[string]) {
      for (const name of readStep(options, path, step)) {
        if (seen.has(name)) options.refuse(path, name, "must name each target once")
        seen.add(name)
        if (list.every((target) => target?.name !== name)) {
          options.refuse(path, name, `must be names of targets: ${list.map((target) => target?.name).join(", ")}`)
        }
      }
    }
  }
}

/** The names of a step. */
const readStep = (options: OptionsReader, path: string, step: Routes[string][number]): ReadonlyArray<string> => {
  if (typeof step !== "object" || step === null) return [step]
  const shares = Object.entries(step)
  if (shares.length === 0) options.refuse(path, step, "must have targets where it has weights")
  for (const [name, weight] of shares) {
    if (!(Number.isFinite(weight) && weight > 0)) options.refuse(`${path}.${name}`, weight, "must be a number above 0")
  }
  return shares.map(([name]) => name)
}

/** The fields of an object that are named. */
const pick = <A extends object, K extends object>(from: A, names: K): Pick<A, keyof A & keyof K> =>
  // Each of them is a field of both.
  Object.fromEntries(Object.entries(from).filter(([name]) => Object.hasOwn(names, name))) as Pick<A, keyof A & keyof K>
