import { Context, type Duration, Effect, Layer, type Scope } from "effect"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Front from "@sluice/ai/Front"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"

export type Service = Front.Front["Service"]

/** What a client got. */
export interface Got {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
  /** How the body ended: in order, or with a lost connection. */
  readonly end: "Clean" | "Broken"
}

/** A request of a client, with JSON. */
export interface Asking {
  readonly path: string
  readonly body?: string | undefined
  readonly method?: string | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** A way to the front. */
export interface Edge {
  readonly name: string
  readonly ask: (front: Service, asking: Asking) => Effect.Effect<Got, never, Scope.Scope>
}

export const quick: Omit<Front.FrontOptions, "targets"> = {
  retry: RetryPolicy.exponential({ baseDelay: "1 milli" }),
  idleTimeout: "500 millis",
  firstTokenTimeout: "2 seconds"
}

/** A front over these targets, with quick retries and short limits. */
export const frontOf = (
  targets: ReadonlyArray<Front.FrontTarget>,
  options?: Partial<Front.FrontOptions>
): Effect.Effect<Service, InvalidOptions, Scope.Scope> =>
  Effect.map(
    Layer.build(
      Front.layer({ ...quick, ...options, targets }).pipe(Layer.provide(HttpTransport.layer({ environment: {} })))
    ),
    (context) => Context.get(context, Front.Front)
  )

/** A server of `node:http` with the front's listener. Returns its port. */
export const served = (front: Service): Effect.Effect<number, never, Scope.Scope> =>
  Effect.suspend(() => listening(Http.createServer(front.listener)))

/** Starts a server, until the scope closes. Returns its port. */
export const listening = (server: Http.Server): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<void>((resume) => {
        server.listen(0, "127.0.0.1", () => resume(Effect.void))
      }),
      () =>
        Effect.callback<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    ),
    () => (server.address() as AddressInfo).port
  )

const sent = { "content-type": "application/json", "x-api-key": "client-key", authorization: "Bearer client-key" }

export const overNode = (port: number, { body = "", headers, method = "POST", path }: Asking): Effect.Effect<Got> =>
  Effect.callback((resume) => {
    const request = Http.request({ port, path, method, agent: false, headers: { ...sent, ...headers } }, (response) => {
      const got = (end: Got["end"]) => {
        const received = Object.fromEntries(
          Object.entries(response.headers).map(([name, value]) => [name, String(value)])
        )
        resume(Effect.succeed({ status: response.statusCode!, headers: received, text, end }))
      }
      let text = ""
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => text += chunk)
      response.on("end", () => got("Clean"))
      response.on("error", () => got("Broken"))
    })
    request.on("error", (error) => resume(Effect.die(error)))
    request.end(body)
    return Effect.sync(() => request.destroy())
  })

const overWeb = (handle: (url: string, init: RequestInit) => Promise<Response>) =>
(
  _: Service,
  { body, headers, method = "POST", path }: Asking
): Effect.Effect<Got> =>
  Effect.promise(async (signal) => {
    const init = { method, headers: { ...sent, ...headers }, signal, ...(body === undefined ? {} : { body }) }
    const response = await handle(`http://front${path}`, init)
    let text = ""
    let end: Got["end"] = "Clean"
    try {
      const decoder = new TextDecoder()
      for await (const chunk of response.body ?? []) text += decoder.decode(chunk, { stream: true })
    } catch {
      end = "Broken"
    }
    return { status: response.status, headers: Object.fromEntries(response.headers), text, end }
  })

export const node: Edge = {
  name: "node:http",
  ask: (front, asking) => Effect.flatMap(served(front), (port) => overNode(port, asking))
}
export const web: Edge = {
  name: "Web handler",
  ask: (front, asking) => overWeb((url, init) => front.handler(new Request(url, init)))(front, asking)
}
export const fetched: Edge = { name: "fetch", ask: (front, asking) => overWeb(front.fetch)(front, asking) }

export const edges = [node, web, fetched]

/** Runs an effect on the real clock, within this time. */
export const within = <A, E, R>(self: Effect.Effect<A, E, R>, limit: Duration.Input = "50 seconds") =>
  Effect.timeout(self, limit)

/** Waits until it holds, at most 10 s, or longer on a busy machine. The assertion after it names the failure. */
export const until = (holds: () => boolean, waits = 0): Effect.Effect<void> =>
  Effect.suspend(() =>
    holds() || waits === 2000 ? Effect.void : Effect.andThen(Effect.sleep("5 millis"), until(holds, waits + 1))
  )
