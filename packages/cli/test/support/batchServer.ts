import type { Batches } from "@sluice/batch/Batches"
import * as Files from "@sluice/batch/Files"
import { Effect, Layer } from "effect"
import { randomBytes } from "node:crypto"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { machine, type Scripted } from "../../../batch/test/support/machine.ts"
import * as BatchApi from "../../src/serve/BatchApi.ts"
import type { Client } from "../../src/serve/Clients.ts"
import * as Upload from "../../src/serve/Upload.ts"
import * as Keys from "../../src/serve/Keys.ts"

/** A worker with scripted answers, batches and files on the database of a suite. */
export const batchesWith = (scripted: Scripted) => Files.layer.pipe(Layer.provideMerge(machine(scripted)))

/** Tokens of four keys that no other test has. Two keys had the name ann. The token is what the key owns. */
export const newTokens = () => {
  const token = (name: string) => Keys.ownerOf({ name, id: randomBytes(6).toString("hex") })
  return { ann: token("ann"), annAgain: token("ann"), bob: token("bob"), boss: token("boss") }
}

const clientOf = (owner: string): Client => {
  const name = Keys.nameOf(owner)
  return { name, owner, isAdmin: name === "boss", key: undefined, quota: undefined }
}

/** Serves `/v1/files` and `/v1/batches` without a gateway around them, until the scope closes. */
export const serveBatchesWith = Effect.fnUntraced(function*(limits: Upload.Limits) {
  const context = yield* Effect.context<Batches | Files.Files>()
  const server = yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((request, response) => {
        const client = clientOf(request.headers.authorization?.slice("Bearer ".length) ?? "")
        BatchApi.answer(context, request, response, (request.url ?? "").split("?")[0] ?? "", client, limits)
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  )
  const { port } = server.address() as AddressInfo
  return { port, url: `http://127.0.0.1:${port}` }
})

export const serveBatches = Effect.suspend(() => serveBatchesWith({ ...Upload.usual, kept: 2 ** 30 }))
