/** The paths of the gateway itself. */
import { CallLog } from "@sluice/ai/CallLog"
import * as Schema from "effect/Schema"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Audit } from "../fleet/Audit.ts"
import type * as Calls from "./Calls.ts"
import * as Changes from "./Changes.ts"
import type { Client } from "./Clients.ts"
import * as Metrics from "./Metrics.ts"
import type { Pages } from "./Pages.ts"
import * as Refusal from "./Refusal.ts"
import type { Sessions } from "./Sessions.ts"

const callPath = "/sluice/calls/"

const encodeLog = Schema.encodeSync(Schema.toCodecJson(CallLog))

const adminOnly: Refusal.Refusal = {
  status: 403,
  code: "admin_only",
  message: "This path needs an admin key: sluice keys add NAME --admin."
}

const callNotFound: Refusal.Refusal = {
  status: 404,
  code: "call_not_found",
  message: "The call is unknown, still runs, or is no longer kept."
}

export interface Surroundings extends Calls.Surroundings {
  readonly pages: Pages
  readonly sessions: Sessions
  /** `undefined` without batches. */
  readonly batches: Changes.Surroundings["batches"]
  readonly audit: Audit["Service"]
}

/** Answers a path of the gateway. Returns false if there is no such path. */
export const answer = (
  { audit, batches, current, live, logs, metrics, owners, pages, sessions }: Surroundings,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  client: Client
): boolean => {
  if (request.method === "POST" && path === "/sluice/session") {
    if (client.isAdmin) {
      response.writeHead(204, { "set-cookie": sessions.open(client, request), "cache-control": "no-store" })
      response.end()
    } else Refusal.send(response, path, adminOnly)
    return true
  }
  if (/^\/sluice\/(?:targets|batches)\//.test(path) && !client.isAdmin) {
    Refusal.send(response, path, adminOnly)
    return true
  }
  if (Changes.answer({ audit, batches, current, live, logs, pages }, request, response, path, client)) return true
  if (request.method !== "GET") return false
  if (path === "/sluice/events") {
    if (client.isAdmin) pages.add(response, path, request.url?.endsWith("?detail=low") === true ? "low" : "full")
    else Refusal.send(response, path, adminOnly)
    return true
  }
  if (path === "/metrics") {
    if (client.isAdmin) send(response, Metrics.contentType, metrics.text())
    else Refusal.send(response, path, adminOnly)
    return true
  }
  if (path.startsWith(callPath)) {
    const id = path.slice(callPath.length)
    // A client sees no call of another one, nor whether there is one.
    const log = client.isAdmin || owners.get(id) === client.owner ? current().front.call(id) : undefined
    if (log === undefined) Refusal.send(response, path, callNotFound)
    else send(response, "application/json", JSON.stringify(encodeLog(log)))
    return true
  }
  return false
}

const send = (response: ServerResponse, type: string, body: string): void => {
  response.writeHead(200, {
    "content-type": type,
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff"
  })
  response.end(body)
}
