/** A proxy between the clients of a test and a server, for faults of the network. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { once } from "node:events"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"

/** What the proxy does to a connection. */
type Mode =
  | "passes"
  /** Closes all connections, and refuses new ones. */
  | "refuses"
  /** Passes each answer on 5 seconds late. */
  | "slow"
  /** Passes requests on. Closes the connection in place of the answer. */
  | "losesReplies"

/** A proxy on a port of its own. */
export interface Proxy {
  readonly port: number
  readonly set: (mode: Mode) => Effect.Effect<void>
  /** Closes all connections. New ones go to another port of this machine. */
  readonly moveTo: (port: number) => Effect.Effect<void>
}

const slowMillis = 5_000

export const startProxy = (target: number): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        let mode: Mode = "passes"
        let port = target
        const clients = new Set<Socket>()
        const hangUp = () => {
          for (const client of clients) client.destroy()
        }
        const server = createServer((client) => {
          clients.add(client)
          const upstream = connect({ port, host: "127.0.0.1" })
          const end = () => {
            clients.delete(client)
            client.destroy()
            upstream.destroy()
          }
          // In order: an answer waits for the earlier ones.
          const late: Array<{ readonly data: Buffer; readonly at: number }> = []
          const sendDue = () => {
            for (let [first] = late; first !== undefined; [first] = late) {
              const wait = first.at - performance.now()
              if (wait > 0) return void setTimeout(sendDue, wait)
              client.write(first.data)
              late.shift()
            }
          }
          client.on("data", (data) => void upstream.write(data))
          upstream.on("data", (data) => {
            if (mode === "losesReplies") return end()
            late.push({ data, at: performance.now() + (mode === "slow" ? slowMillis : 0) })
            if (late.length === 1) sendDue()
          })
          for (const socket of [client, upstream]) socket.on("error", end).on("close", end)
        })
        server.listen(0, "127.0.0.1")
        await once(server, "listening")
        // A server that listens has an address.
        const own = (server.address() as AddressInfo).port
        return {
          server,
          hangUp,
          port: own,
          set: (next: Mode) =>
            Effect.promise(async () => {
              const isBack = mode === "refuses" && next !== "refuses"
              mode = next
              if (next === "refuses") {
                server.close()
                hangUp()
              } else if (isBack) {
                server.listen(own, "127.0.0.1")
                await once(server, "listening")
              }
            }),
          moveTo: (next: number) =>
            Effect.sync(() => {
              port = next
              hangUp()
            })
        }
      }),
      ({ hangUp, server }) =>
        Effect.sync(() => {
          hangUp()
          server.close()
        })
    ),
    ({ moveTo, port, set }) => ({ moveTo, port, set })
  )
