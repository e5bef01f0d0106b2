/** The front that answers now, and its replacement when the settings change. */
import * as Front from "@sluice/ai/Front"
import type { Transition } from "@sluice/core/CircuitBreaker"
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type { QuotaStore } from "@sluice/core/QuotaStore"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { unwatchFile, watchFile } from "node:fs"
import { resolve } from "node:path"
import type { ServeFlags } from "../options.ts"
import * as Failure from "../run/Failure.ts"
import * as Run from "../run/Settings.ts"
import type { Given } from "../Shell.ts"
import type * as Sources from "../Sources.ts"
import type { Logs } from "./Logs.ts"
import type { Metrics } from "./Metrics.ts"
import * as Settings from "./Settings.ts"

/** A transition of the circuit of a target. */
export interface Change {
  readonly target: string
  readonly to: Transition["to"]
  /** How long an open circuit admits no call. */
  readonly openMillis: number | undefined
}

export interface Options {
  readonly given: Given
  readonly surroundings: Sources.Surroundings
  readonly settings: Settings.Settings
  readonly logs: Logs
  readonly metrics: Metrics
  readonly onTransition: (change: Change) => void
}

type Needs = CircuitBreakerStore | HttpClient.HttpClient | QuotaStore | Scope.Scope

/** A front with its settings. */
export class Current {
  readonly front: Front.Front["Service"]
  readonly settings: Settings.Settings
  private readonly scope: Scope.Closeable
  private calls = 0
  private onUnused: (() => void) | undefined

  constructor(front: Front.Front["Service"], settings: Settings.Settings, scope: Scope.Closeable) {
    this.front = front
    this.settings = settings
    this.scope = scope
  }

  /** A call begins. */
  enter(): void {
    this.calls++
  }

  /** A call has ended. */
  leave(): void {
    this.calls--
    this.check()
  }

  /** Calls the listener when no call runs. No call begins any more. */
  whenUnused(listener: () => void): void {
    this.onUnused = listener
    this.check()
  }

  /** Refuses further calls, and ends those that run with an error. */
  get end(): Effect.Effect<void> {
    return Scope.close(this.scope, Exit.void)
  }

  private check(): void {
    if (this.calls === 0) this.onUnused?.()
  }
}

/** Also finds a file behind a link that is replaced, as in Kubernetes. */
const watchMillis = 1_000

/** Settings that belong to the process. */
const fixed = ["host", "port", "keys", "store", "processes", "logFormat"] as const satisfies ReadonlyArray<
  keyof ServeFlags
>

export class Reloads {
  current: Current
  /** Those that were replaced, and whose calls have not all ended. */
  readonly replaced = new Set<Current>()
  private readonly options: Options
  private readonly context: Context.Context<Needs>
  private readonly quotas: Settings.Quotas
  private last: Promise<void> = Promise.resolve()

  private constructor(options: Options, context: Context.Context<Needs>, quotas: Settings.Quotas, first: Current) {
    this.options = options
    this.context = context
    this.quotas = quotas
    this.current = first
  }

  /** Opens the first front. Reads the file again when it changes, until the scope closes. */
  static make(options: Options): Effect.Effect<Reloads, Run.SettingsError, Needs> {
    return Effect.gen(function*() {
      const context = yield* Effect.context<Needs>()
      const quotas = new Settings.Quotas(options.settings.flags.processes)
      const first = yield* open(options.settings, quotas, options)
      const reloads = new Reloads(options, context, quotas, first)
      yield* Effect.acquireRelease(Effect.sync(() => reloads.watch()), (unwatch) => Effect.sync(unwatch))
      return reloads
    })
  }

  /** Reads the settings again. Unusable ones change nothing. */
  reload(why: string): Promise<void> {
    // One at a time, so that the last settings win.
    this.last = this.last.then(() => Effect.runPromiseWith(this.context)(this.replace(why)))
    return this.last
  }

  /** Ends all calls that run with an error. */
  get end(): Effect.Effect<void> {
    return Effect.forEach([this.current, ...this.replaced], ({ end }) => end, { discard: true })
  }

  private replace(why: string): Effect.Effect<void, never, Needs> {
    const { options, options: { given, logs, metrics, surroundings }, quotas } = this
    return Effect.gen({ self: this }, function*() {
      const opened = yield* Effect.result(
        Effect.flatMap(Settings.read(given, surroundings), (settings) => open(settings, quotas, options))
      )
      if (Result.isFailure(opened)) {
        metrics.reloaded("refused")
        logs.error("reload refused, the old settings stay", { cause: why, why: opened.failure.message })
        return
      }
      const old = this.current
      this.current = opened.success
      this.replaced.add(old)
      old.whenUnused(() => {
        this.replaced.delete(old)
        Effect.runFork(old.end)
      })
      metrics.reloaded("ok")
      const changed = fixed.filter((name) => old.settings.flags[name] !== this.current.settings.flags[name])
      if (changed.length > 0) logs.warn("restart to apply", { settings: changed.join(", ") })
      logs.info("reloaded", { cause: why, targets: this.current.settings.targets.length })
    }).pipe(
      // A defect must not end the calls that run.
      Effect.catchCause(() => Effect.sync(() => logs.error("defect", { cause: why })))
    )
  }

  private watch(): () => void {
    const { given, surroundings: { directory } } = this.options
    const path = resolve(directory, given.get("config")?.[0] ?? "sluice.json")
    watchFile(path, { interval: watchMillis }, (now, before) => {
      if (now.mtimeMs !== before.mtimeMs || now.ino !== before.ino) void this.reload("file changed")
    }).unref()
    return () => unwatchFile(path)
  }
}

/** Opens a front in a scope of its own, which closes at the latest with that of the process. */
const open = (
  settings: Settings.Settings,
  quotas: Settings.Quotas,
  { logs, onTransition }: Pick<Options, "logs" | "onTransition">
): Effect.Effect<Current, Run.SettingsError, Needs> =>
  Effect.gen(function*() {
    const scope = yield* Scope.fork(yield* Scope.Scope)
    const options = yield* Settings.frontOptions(settings, quotas)
    const context = yield* Layer.buildWithScope(Front.layerStore(options), scope).pipe(
      Effect.tapError(() => Scope.close(scope, Exit.void)),
      Effect.mapError((invalid) =>
        new Run.SettingsError({ problems: Failure.unusableTargets(invalid, settings.targets) })
      )
    )
    const front = Context.get(context, Front.Front)
    yield* Effect.forkIn(
      Stream.runForEach(front.transitions, ({ target, transition: { from, openFor, to } }) =>
        Effect.sync(() => {
          const openMillis = openFor === undefined ? undefined : Duration.toMillis(openFor)
          logs[to === "Open" ? "warn" : "info"]("circuit", { target, from, to, openMillis })
          onTransition({ target, to, openMillis })
        })),
      scope
    )
    return new Current(front, settings, scope)
  })
