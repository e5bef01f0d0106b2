import { Duration, Effect } from "effect"
import { readFileSync } from "node:fs"
import { get } from "node:http"
import type { Gateway } from "./gateway.ts"
import { send } from "./gateway.ts"

/** Far more than anything needs, since a busy machine can stand still for seconds. */
const usualLimit = "60 seconds"

/** Waits until it holds. Fails with what it is waiting for after the limit. */
export const until = <E, R>(
  what: string,
  holds: Effect.Effect<boolean, E, R>,
  limit: Duration.Input = usualLimit
): Effect.Effect<void, E, R> =>
  Effect.gen(function*() {
    const end = performance.now() + Duration.toMillis(Duration.fromInputUnsafe(limit))
    while (!(yield* holds)) {
      if (performance.now() > end) return yield* Effect.die(new Error(`waited too long until ${what}`))
      yield* Effect.sleep(10)
    }
  })

/** Fails with a text if the effect takes longer. */
export const within = <A, E, R>(what: string, self: Effect.Effect<A, E, R>, limit: Duration.Input = usualLimit) =>
  Effect.timeoutOrElse(self, { duration: limit, orElse: () => Effect.die(new Error(`waited too long for ${what}`)) })

const bearer = ({ token }: Gateway) => ({ authorization: `Bearer ${token}` })

/** A metric of the gateway without labels. */
export const metric = (gateway: Gateway, name: string) =>
  Effect.map(send(gateway, "/metrics", { headers: bearer(gateway) }), ({ text }) => {
    const [, value] = new RegExp(`^${name} (\\S+)$`, "m").exec(text) ?? []
    return Number(value)
  })

/** What the live page gets at its start. */
export interface Snapshot {
  readonly head: {
    readonly calls: number
    readonly inFlight: number
    readonly phases: { readonly queued: number; readonly waiting: number; readonly streaming: number }
  }
  readonly flights: ReadonlyArray<unknown>
  readonly targets: ReadonlyArray<{
    readonly name: string
    readonly state: string
    readonly used: number | null
    readonly queued: number
  }>
}

/** Opens the page's stream of events, and closes it after the snapshot. */
export const snapshot = (gateway: Gateway): Effect.Effect<Snapshot> =>
  within(
    "a snapshot",
    Effect.callback<Snapshot>((resume) => {
      const headers = bearer(gateway)
      const request = get({ port: gateway.port, path: "/sluice/events", headers, agent: false }, (response) => {
        let text = ""
        response.on("error", () => {})
        response.on("data", (data: Buffer) => {
          text += data.toString()
          const [, json] = /^event: snapshot\ndata: (.*)\n\n/m.exec(text) ?? []
          if (json === undefined) return
          request.destroy()
          resume(Effect.succeed(JSON.parse(json)))
        })
      })
      request.on("error", () => {})
      return Effect.sync(() => request.destroy())
    })
  )

/** The memory of the gateway's process in MB: now, and at its highest. Linux has these figures. */
export const memory = ({ command }: Pick<Gateway, "command">): { readonly now: number; readonly peak: number } => {
  const status = readFileSync(`/proc/${command.process.pid}/status`, "utf8")
  const of = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1_024
  return { now: of("VmRSS"), peak: of("VmHWM") }
}
