/** Cookies for the live page, whose stream of events sends no headers of its own. */
import { randomBytes } from "node:crypto"
import type { IncomingMessage } from "node:http"
import type { Client, Clients } from "./Clients.ts"

/** The oldest goes when there are more. */
const maxSessions = 64

export class Sessions {
  private readonly clients: Clients
  /** The key of each session, by its secret. `undefined` is the token of the start. */
  private readonly keys = new Map<string, string | undefined>()

  constructor(clients: Clients) {
    this.clients = clients
  }

  /** Opens a session and returns its cookie. */
  open({ key }: Client, request: IncomingMessage): string {
    const secret = randomBytes(32).toString("base64url")
    this.keys.set(secret, key?.id)
    if (this.keys.size > maxSessions) {
      for (const oldest of this.keys.keys()) {
        this.keys.delete(oldest)
        break
      }
    }
    return `${nameOf(request)}=${secret}; HttpOnly; SameSite=Strict; Path=/sluice`
  }

  /** Finds the client by the cookie. It may read, and change targets and batches from a page, whose browser sends its origin. */
  find(request: IncomingMessage): Client | undefined {
    const { headers: { cookie = "", origin }, method, url = "" } = request
    const isChange = method === "POST" && origin !== undefined && changes.test(url)
    if (!isChange && (method !== "GET" || !url.startsWith("/sluice/"))) return undefined
    const start = `${nameOf(request)}=`
    const secret = cookie.split("; ").find((one) => one.startsWith(start))?.slice(start.length)
    return secret === undefined || !this.keys.has(secret) ? undefined : this.clients.again(this.keys.get(secret))
  }
}

const changes = /^\/sluice\/(?:targets|batches)\//

/** Gateways on other ports of this host have cookies of their own: browsers do not tell ports apart. */
const nameOf = ({ socket: { localPort } }: IncomingMessage): string => `sluice-${localPort}`
