/** `sluice serve`: the gateway, until a signal. */
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { isIPv6 } from "node:net"
import * as ExitCode from "../ExitCode.ts"
import { isDatabaseUrl } from "../Flag.ts"
import * as Audit from "../fleet/Audit.ts"
import * as Stores from "../fleet/Stores.ts"
import type { ServeFlags } from "../options.ts"
import * as Run from "../run/Settings.ts"
import * as Say from "../Say.ts"
import type { Given } from "../Shell.ts"
import * as Signals from "../Signals.ts"
import * as Sources from "../Sources.ts"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"
import * as Assets from "./Assets.ts"
import * as Calls from "./Calls.ts"
import * as Changes from "./Changes.ts"
import * as Clients from "./Clients.ts"
import { drain } from "./Drain.ts"
import * as Keys from "./Keys.ts"
import { Live } from "./Live.ts"
import * as Logs from "./Logs.ts"
import { Metrics } from "./Metrics.ts"
import { Pages } from "./Pages.ts"
import * as Paths from "./Paths.ts"
import { Reloads } from "./Reloads.ts"
import { Server } from "./Server.ts"
import { Sessions } from "./Sessions.ts"
import * as Settings from "./Settings.ts"
import * as Telemetry from "./Telemetry.ts"

/** Serves until a signal and returns the exit code. */
export const execute = (given: Given): Promise<number> => {
  const surroundings = Sources.here()
  return Effect.runPromise(
    serve(given, surroundings).pipe(
      Effect.scoped,
      Effect.provide(layer(surroundings.env)),
      Effect.catch((error) =>
        Effect.sync(() => {
          Say.error("sluice serve", ...problemsOf(error))
          return ExitCode.unusable
        })
      )
    )
  )
}

// Without options the transport has none that could be invalid.
const layer = (env: Sources.Surroundings["env"]) =>
  Layer.merge(Layer.orDie(HttpTransport.layer()), Telemetry.layer(env))

const problemsOf = (error: Run.SettingsError | Keys.KeysError): ReadonlyArray<string> =>
  error._tag === "SettingsError" ? error.problems : [error.message]

/** As many as the live page keeps. */
const shownChanges = 20

const serve = Effect.fnUntraced(function*(given: Given, surroundings: Sources.Surroundings) {
  const settings = yield* Settings.read(given, surroundings)
  const format = settings.flags.logFormat ?? (process.stderr.isTTY ? "text" : "json")
  const send = yield* Telemetry.logs(surroundings.env)
  const logs = yield* Effect.acquireRelease(
    Effect.sync(() => new Logs.Logs(format, { send })),
    (logs) => Effect.sync(() => logs.flush())
  )
  return yield* Effect.scoped(serveWith(given, surroundings, settings, logs)).pipe(
    // Its connections close after the last call has been counted.
    Effect.provide(Layer.provideMerge(Stores.layer(settings.flags.store), Logs.layer(logs)))
  )
})

const serveWith = Effect.fnUntraced(function*(
  given: Given,
  surroundings: Sources.Surroundings,
  settings: Settings.Settings,
  logs: Logs.Logs
) {
  const { flags } = settings
  const context = yield* Effect.context<never>()
  const metrics = new Metrics(context)
  const clients = yield* openClients(flags, logs)
  let pages: Pages | undefined
  const reloads = yield* Reloads.make({
    given,
    surroundings,
    settings,
    logs,
    metrics,
    onTransition: () => void pages?.sample()
  })
  const signals = yield* Signals.listenTo(["SIGINT", "SIGTERM"])
  yield* Signals.onHangUp(() => void reloads.reload("SIGHUP"))
  const current = () => reloads.current
  const audit = yield* Audit.Audit
  const live = new Live(Date.now())
  const calls = { current, clients, live, logs, metrics, owners: new Calls.Owners() }
  const sessions = new Sessions(clients)
  const batches = flags.batches === undefined
    ? undefined
    : yield* (yield* Effect.promise(() => import("./Batches.ts"))).open(
      flags.batches,
      calls,
      flags.drainTimeoutMillis,
      signals.second
    )
  const opened = pages = yield* Effect.acquireRelease(
    Effect.sync(() =>
      Pages.open({
        context,
        live,
        clients,
        current,
        audit: Effect.map(audit.recent(shownChanges), (entries) => entries.map(Changes.changeOf)),
        replaced: () => reloads.replaced,
        batches: batches?.rows
      })
    ),
    (pages) => Effect.sync(() => pages.close())
  )
  const paths = { ...calls, audit, pages: opened, sessions, batches }
  const server = yield* Effect.tryPromise({
    try: () =>
      Server.listen({
        host: flags.host,
        port: flags.port,
        allowedHosts: () => reloads.current.settings.allowedHosts,
        client: (request) => clients.find(request.headers) ?? sessions.find(request),
        handle: (client, exchange, sink) => Calls.handle(calls, client, exchange, sink),
        open: Assets.answer,
        own: (request, response, path, client) => Paths.answer(paths, request, response, path, client),
        batches: batches?.answer,
        // The message could quote a request.
        onDefect: (error) => logs.error("defect", { type: error instanceof Error ? error.name : typeof error }),
        onRefused: (code, path) => {
          metrics.refused(code)
          // A live page without its key is no client.
          if (!path.startsWith("/sluice/")) live.refused(code, Date.now())
        },
        onRunning: (count) => metrics.running(count)
      }),
    catch: (error) => new Run.SettingsError({ problems: [cannotListen(flags, error)] })
  })
  process.stdout.write(welcome(settings, server.port, clients))
  logs.info("started", { port: server.port, targets: settings.targets.length })
  const signal = yield* signals.first
  // Their streams are no calls to wait for.
  opened.close()
  const drained = Effect.all([drain(server, reloads, logs, signal), batches?.drain ?? Effect.void], {
    concurrency: "unbounded",
    discard: true
  })
  yield* Effect.raceFirst(drained, Effect.asVoid(signals.second))
  server.destroy()
  yield* lastTurn
  logs.info("stopped")
  return ExitCode.ok
})

/** Lets the calls that have ended write their line of the log. */
const lastTurn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

/** Refuses to be reachable from other machines without a key. */
const openClients = ({ host, keys, processes, store }: ServeFlags, logs: Logs.Logs) =>
  Effect.gen(function*() {
    const clients = yield* Clients.Clients.make({
      place: keys,
      processes,
      isShared: store !== undefined,
      onError: (error) => logs.error("keys", { why: error.message })
    })
    if (store === undefined && isDatabaseUrl(keys)) {
      logs.warn("other gateways do not share the limits of keys; set --store")
    }
    if (clients.hasKeys || isLoopback(host)) return clients
    return yield* Run.refuseAll([
      `other machines can reach --host ${Terminal.escape(host)}, and there is no key in ${
        Terminal.escape(Keys.shown(keys))
      }; sluice keys add NAME adds one`
    ])
  })

const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host)

const cannotListen = ({ host, port }: ServeFlags, error: unknown): string => {
  const code = SystemError.codeOf(error)
  const why = code === "EADDRINUSE"
    ? "the port is in use; set another with --port"
    : code === "EADDRNOTAVAIL" || code === "ENOTFOUND"
    ? "the address is not of this machine; set another with --host"
    : SystemError.describe(error)
  return `cannot listen on ${Terminal.escape(host)}, port ${port}: ${why}`
}

/** Names the targets. Those of equal order share the calls. */
export const inOrder = (targets: ReadonlyArray<Pick<Settings.Target, "name" | "order" | "url">>): string =>
  [...Map.groupBy(targets.map((target, place) => ({ ...target, order: target.order ?? place })), ({ order }) => order)]
    .sort(([a], [b]) => a - b)
    .map(([, equal]) => equal.map(({ name, url }) => `${name} (${UrlSecrets.shown(url)})`).join(" and "))
    .join(", then ")

const welcome = (
  { flags: { host, keys }, targets }: Settings.Settings,
  port: number,
  clients: Clients.Clients
): string => {
  const address = `http://${
    host === "0.0.0.0" || host === "::" ? "localhost" : isIPv6(host) ? `[${host}]` : host
  }:${port}`
  const token = clients.hasKeys ? "..." : clients.token
  return [
    `Gateway at ${address}${isLoopback(host) ? ", reachable from this machine only" : ""}.`,
    `It calls ${inOrder(targets)}.`,
    "",
    clients.hasKeys
      ? `Clients need a key of ${Terminal.escape(Keys.shown(keys))}:`
      : "For clients, in another terminal:",
    `  export OPENAI_BASE_URL=${address}/v1 OPENAI_API_KEY=${token}`,
    `  export ANTHROPIC_BASE_URL=${address} ANTHROPIC_API_KEY=${token}`,
    clients.hasKeys
      ? `Live page, with a key of --admin: ${address}/sluice/`
      : `Live page: ${address}/sluice/#${token}`,
    "Ctrl-C stops it.",
    ""
  ].join("\n")
}
