import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"

/**
 * Listens on 127.0.0.1 until the scope closes, and then closes every connection. Returns the port. Fails with the code
 * of the system, such as EADDRINUSE.
 */
export const listen = (
  port: number,
  onRequest: (request: Http.IncomingMessage, response: Http.ServerResponse) => void
): Effect.Effect<number, string, Scope.Scope> => {
  const listening = Effect.callback<Http.Server, string>((resume) => {
    const server = Http.createServer(onRequest)
    // Closing an idle connection looks like a fault to a client that uses it at that moment.
    server.keepAliveTimeout = 0
    server.requestTimeout = 0
    const onError = (error: NodeJS.ErrnoException) => resume(Effect.fail(error.code ?? error.message))
    server.once("error", onError)
    server.listen(port, "127.0.0.1", () => {
      server.off("error", onError)
      resume(Effect.succeed(server))
    })
  })
  const close = (server: Http.Server): Effect.Effect<void> =>
    Effect.callback<void>((resume) => {
      server.close(() => resume(Effect.void))
      server.closeAllConnections()
    })
  // The server listens on a port, not on a path, so its address is an object.
  return Effect.map(Effect.acquireRelease(listening, close), (server) => (server.address() as AddressInfo).port)
}
