/** Who calls the gateway, by the token of a request, and what each may use. */
import * as Quota from "@sluice/core/Quota"
import type { QuotaStore } from "@sluice/core/QuotaStore"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { timingSafeEqual } from "node:crypto"
import type { IncomingHttpHeaders } from "node:http"
import * as Gateway from "../Gateway.ts"
import * as Keys from "./Keys.ts"

export interface Client {
  /** The name of its key, for logs and metrics. */
  readonly name: string
  readonly isAdmin: boolean
  /** `undefined` for the token that is printed at the start. */
  readonly key: Keys.Key | undefined
  /** Its limits. `undefined` without limits. */
  readonly quota: Quota.Quota["Service"] | undefined
}

/** Whether its calls must be such that their model and use are known. */
export const isLimited = ({ key, quota }: Client): boolean => quota !== undefined || (key?.models.length ?? 0) > 0

export const mayUse = ({ key }: Client, model: string): boolean =>
  key === undefined || key.models.length === 0 || Gateway.isOneOf(key.models, model)

/** The account of a key in a store, which also has those of targets. */
export const quotaKey = ({ id }: Pick<Keys.Key, "id">): string => `client/${id}`

export interface Options {
  /** The file of keys. */
  readonly path: string
  /** Whether the store of limits is shared with other processes, and kept across a restart. */
  readonly isShared: boolean
  /** How many processes share it. While it is down, each allows its part of a limit. */
  readonly processes: number
}

/** How often the file of keys is checked for changes of `sluice keys`. */
const checkMillis = 500

/** The clients of one process. Throws `KeysError` if the file of keys cannot be used at the start. */
export class Clients {
  /** The token for all clients, while there is no key. */
  readonly token = Keys.randomToken()
  private readonly options: Options
  private readonly context: Context.Context<QuotaStore | Scope.Scope>
  private readonly onError: (error: Keys.KeysError) => void
  private file: Keys.KeyFile | undefined = undefined
  private version = -1
  private checkedAt = Number.NEGATIVE_INFINITY
  private keys: ReadonlyMap<string, Keys.Key> = new Map()
  private readonly quotas = new Map<string, Quota.Quota["Service"]>()
  private readonly everyone: Client
  private readonly tokenHash: Uint8Array

  constructor(
    options: Options,
    context: Context.Context<QuotaStore | Scope.Scope>,
    onError: (error: Keys.KeysError) => void
  ) {
    this.options = options
    this.context = context
    this.onError = onError
    this.tokenHash = Keys.hashOf(this.token)
    this.everyone = { name: "token", isAdmin: true, key: undefined, quota: undefined }
    this.read(Date.now())
  }

  get hasKeys(): boolean {
    return this.keys.size > 0
  }

  /** Finds the client of a request: its token is a bearer, in `x-api-key` or in `api-key`. */
  find(headers: IncomingHttpHeaders, now: number): Client | undefined {
    if (now - this.checkedAt >= checkMillis) this.check(now)
    for (const token of tokensOf(headers)) {
      const client = this.clientOf(token, now)
      if (client !== undefined) return client
    }
    return undefined
  }

  /** The client of a key that was found before. `undefined` is the token of the start. */
  again(id: string | undefined): Client | undefined {
    if (id === undefined) return this.hasKeys ? undefined : this.everyone
    const key = this.keys.get(id)
    return key === undefined ? undefined : this.withLimits(key, Date.now())
  }

  /** All clients, with the use of their limits. `undefined` without limits, empty before the first call. */
  get levels(): ReadonlyArray<{ readonly name: string; readonly levels: ReadonlyArray<Quota.Level> | undefined }> {
    if (!this.hasKeys) return [{ name: this.everyone.name, levels: undefined }]
    return [...this.keys.values()].map(({ costPerDay, id, name, rpm, tpm }) => {
      if ((costPerDay ?? rpm ?? tpm) === undefined) return { name, levels: undefined }
      const quota = this.quotas.get(id)
      // Its store is in this process.
      return { name, levels: quota === undefined ? [] : Effect.runSync(quota.snapshot(quotaKey({ id }))).levels }
    })
  }

  /** Counts the cost of a call, for the days after a restart. */
  spend(key: Keys.Key, millionths: number, now: number): void {
    if (millionths === 0) return
    try {
      this.file?.spend(key.id, millionths, now)
    } catch (error) {
      this.report(error)
    }
  }

  close(): void {
    this.file?.close()
    this.file = undefined
  }

  private clientOf(token: string, now: number): Client | undefined {
    if (!this.hasKeys) return timingSafeEqual(Keys.hashOf(token), this.tokenHash) ? this.everyone : undefined
    const key = Keys.find(this.keys, token)
    return key === undefined ? undefined : this.withLimits(key, now)
  }

  private withLimits(key: Keys.Key, now: number): Client {
    return { name: key.name, isAdmin: key.isAdmin, key, quota: this.quotaOf(key, now) }
  }

  /** A file that cannot be read keeps the keys as they are. */
  private check(now: number): void {
    try {
      this.read(now)
    } catch (error) {
      this.report(error)
    }
  }

  private report(error: unknown): void {
    if (!(error instanceof Keys.KeysError)) throw error
    this.onError(error)
  }

  private read(now: number): void {
    this.checkedAt = now
    this.file ??= Keys.KeyFile.openExisting(this.options.path)
    if (this.file === undefined) return
    const { version } = this.file
    if (version === this.version) return
    this.keys = new Map(this.file.list().map((key) => [key.id, key]))
    this.version = version
    for (const id of this.quotas.keys()) if (!this.keys.has(id)) this.quotas.delete(id)
  }

  private quotaOf(key: Keys.Key, now: number): Quota.Quota["Service"] | undefined {
    const known = this.quotas.get(key.id)
    if (known !== undefined) return known
    const quota = this.makeQuota(key, now)
    if (quota !== undefined) this.quotas.set(key.id, quota)
    return quota
  }

  private makeQuota(key: Keys.Key, now: number): Quota.Quota["Service"] | undefined {
    const { options: { isShared, processes } } = this
    const { costPerDay, rpm, tpm } = key
    const limits = [
      ...(rpm === undefined ? [] : [Quota.requestsPerMinute(rpm)]),
      ...(tpm === undefined ? [] : [Quota.tokensPerMinute(tpm)]),
      ...(costPerDay === undefined ? [] : [Quota.perDay("money", costPerDay)])
    ]
    if (limits.length === 0) return undefined
    return Effect.runSyncWith(this.context)(
      Effect.gen({ self: this }, function*() {
        // A client may use a whole minute at once, and is refused beyond it. Its own rejections do not lower the limit. Calls
        // queue for the answer of a shared store only.
        const quota = yield* Quota.make({
          name: "client",
          limits,
          burst: 0,
          guard: 0,
          maxWait: 0,
          adapt: false,
          processes,
          // A slice of a small limit, kept by one process, would be missing in another.
          slice: false
        })
        if (isShared) return quota
        const spent = costPerDay === undefined ? 0 : this.file?.spent(key.id, now) ?? 0
        if (spent > 0) yield* seed(quota, quotaKey(key), Math.min(spent, costPerDay ?? 0))
        return quota
      }).pipe(Effect.orDie)
    )
  }
}

/** Counts what was spent before the start. It counts for 24 hours from now, so that the budget holds. */
const seed = (quota: Quota.Quota["Service"], key: string, money: number) =>
  Effect.scoped(
    Effect.flatMap(quota.tryReserve({ key, amounts: { money } }), ({ settle }) => settle({ money }))
  )

const bearer = /^Bearer +(\S+)$/i

const tokensOf = (headers: IncomingHttpHeaders): ReadonlyArray<string> =>
  [bearer.exec(headers.authorization ?? "")?.[1], headers["x-api-key"], headers["api-key"]]
    .filter((token) => typeof token === "string")
