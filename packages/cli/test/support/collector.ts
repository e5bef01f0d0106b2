import { Effect } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

/** A collector of OTLP, which keeps what it gets by path. Stops with the scope. */
export const collector = Effect.acquireRelease(
  Effect.promise(() =>
    new Promise<{ readonly url: string; readonly got: Map<string, string>; readonly close: () => void }>((resolve) => {
      const got = new Map<string, string>()
      const server = createServer((request, response) => {
        const chunks: Array<Buffer> = []
        request.on("data", (chunk: Buffer) => chunks.push(chunk))
        request.on("end", () => {
          const path = request.url ?? ""
          got.set(path, (got.get(path) ?? "") + Buffer.concat(chunks).toString("latin1"))
          response.end()
        })
      })
      server.listen(0, "127.0.0.1", () =>
        // It listens on a port, so its address is no path.
        resolve({
          got,
          url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
          close: () => server.close()
        }))
    })
  ),
  ({ close }) => Effect.sync(close)
)
