/** Checks of a request by its head alone, before its body is read. */
import type { IncomingMessage } from "node:http"
import { isIP } from "node:net"
import type { Refusal } from "./Refusal.ts"

const hostForm = /^(\[[0-9a-f:.]+\]|[^:/?#@[\]\\]+)(?::\d{1,5})?$/i

/**
 * Refuses a request to another host name. A web page can point a name of its own at this machine (DNS rebinding), but no IP
 * address.
 */
export const host = ({ headers }: IncomingMessage, allowed: ReadonlySet<string>): Refusal | undefined => {
  const [, name = ""] = hostForm.exec(headers.host ?? "") ?? []
  const bare = name.replace(/^\[|\]$/g, "").toLowerCase()
  return isIP(bare) !== 0 || bare === "localhost" || allowed.has(bare)
    ? undefined
    : {
      status: 403,
      code: "host_not_allowed",
      message: "The gateway does not accept this host name. Add it with --allow-host."
    }
}

/** Refuses a request with two hosts, of which a proxy could read the other one. Node keeps the first, and refuses a missing one. */
export const hosts = ({ rawHeaders }: IncomingMessage): Refusal | undefined => {
  let count = 0
  for (let at = 0; at < rawHeaders.length; at += 2) if (rawHeaders[at]?.toLowerCase() === "host") count++
  return count <= 1
    ? undefined
    : { status: 400, code: "invalid_headers", message: "The request has more than one Host header." }
}

/** Refuses paths that an upstream server could resolve to another one. */
export const path = (path: string): Refusal | undefined => {
  const refusal = { status: 400, code: "invalid_path", message: "The path is not valid." }
  if (!path.startsWith("/") || path.includes("\\")) return refusal
  let decoded: string
  try {
    decoded = decodeURIComponent(path)
  } catch {
    return refusal
  }
  return /(?:^|[/\\])\.{1,2}(?:[/\\]|$)|\/\/|\p{Cc}/u.test(decoded) ? refusal : undefined
}

/** Paths whose requests have files. */
const takesFiles = /^\/v1\/(?:files|uploads|audio|images|containers|videos|skills)(?:\/|$)/

export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0

/** Refuses bodies that a web page can send to another origin without asking first. */
export const contentType = (request: IncomingMessage, path: string): Refusal | undefined => {
  const { headers, method } = request
  if (method === "GET" || method === "HEAD" || method === "DELETE") return undefined
  const type = headers["content-type"]?.split(";")[0]?.trim().toLowerCase()
  if (type === "application/json" || (type === undefined && !hasBody(request))) return undefined
  if (type === "multipart/form-data" && takesFiles.test(path)) return undefined
  return { status: 415, code: "unsupported_media_type", message: "The content-type must be application/json." }
}

/** Refuses a change that a web page of another origin sends. Other clients send no origin. */
export const origin = ({ headers }: IncomingMessage): Refusal | undefined =>
  headers.origin === undefined || URL.parse(headers.origin)?.host === headers.host?.toLowerCase() ? undefined : {
    status: 403,
    code: "other_origin",
    message:
      "A page of another origin cannot change anything. Behind a proxy, pass on the host and port of the request."
  }

const methods = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])

/** Refuses OPTIONS among others: without an answer, web pages of other origins cannot send requests with headers of their own. */
export const method = ({ method = "" }: IncomingMessage): Refusal | undefined =>
  methods.has(method) ? undefined : {
    status: 405,
    code: "method_not_allowed",
    message: "The method is not allowed.",
    headers: { allow: [...methods].join(", ") }
  }

export const upgrade = ({ headers }: IncomingMessage): Refusal | undefined =>
  /websocket/i.test(headers.upgrade ?? "")
    ? { status: 426, code: "no_websocket", message: "The gateway has no WebSocket. Use HTTP." }
    : undefined
