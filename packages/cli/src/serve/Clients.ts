/** Who calls the gateway, by the token of a request, and what each may use. */
import * as Quota from "@sluice/core/Quota"
import type { QuotaStore } from "@sluice/core/QuotaStore"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Scope from "effect/Scope"
import { timingSafeEqual } from "node:crypto"
import type { IncomingHttpHeaders } from "node:http"
import * as Gateway from "../Gateway.ts"
import * as Keys from "./Keys.ts"

export interface Client {
  /** The name of its key, for logs and metrics. */
  readonly name: string
  /** The owner of its calls, files and batches. */
  readonly owner: string
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
  /** The file of keys, or the URL of a database. */
  readonly place: string
  /** Whether the store of limits is shared with other processes, and kept across a restart. */
  readonly isShared: boolean
  /** How many processes share it. While it is down, each allows its part of a limit. */
  readonly processes: number
  /** Called once for each time in which the keys cannot be read or a cost cannot be counted. */
  readonly onError: (error: Keys.KeysError) => void
}

/** How often the keys are checked for changes of `sluice keys`. */
const checkMillis = 250

/** How long the end waits until costs are counted. */
const closeMillis = 1_000

/** The clients of one process. */
export class Clients {
  /** The token for all clients, while there is no key. */
  readonly token = Keys.randomToken()
  private readonly options: Options
  private readonly context: Context.Context<QuotaStore | Scope.Scope>
  private readonly spends: FiberSet.FiberSet
  private store: Keys.KeyStore | undefined = undefined
  private version = -1
  private keys: ReadonlyMap<string, Keys.Key> = new Map()
  /** What each key had spent when the keys were read last. */
  private spent: ReadonlyMap<string, number> = new Map()
  private isFailing = false
  /** The limits of the keys that were used, each with the scope that its metrics and requests end with. */
  private readonly quotas = new Map<string, Limited>()
  private readonly everyone: Client
  private readonly tokenHash: Uint8Array

  private constructor(
    options: Options,
    context: Context.Context<QuotaStore | Scope.Scope>,
    spends: FiberSet.FiberSet
  ) {
    this.options = options
    this.context = context
    this.spends = spends
    this.tokenHash = Keys.hashOf(this.token)
    this.everyone = { name: "token", owner: "token", isAdmin: true, key: undefined, quota: undefined }
  }

  /** Reads the keys, and again when they change, until the scope closes. */
  static make(options: Options): Effect.Effect<Clients, Keys.KeysError, QuotaStore | Scope.Scope> {
    return Effect.gen(function*() {
      const scope = yield* Scope.Scope
      // The keys may be opened later, and stay open until the last cost is counted.
      const own = yield* Scope.fork(scope)
      const spends = yield* FiberSet.make()
      yield* Effect.addFinalizer(() => Effect.timeoutOption(FiberSet.awaitEmpty(spends), closeMillis))
      const clients = new Clients(options, Context.add(yield* Effect.context<QuotaStore>(), Scope.Scope, own), spends)
      const read = Effect.provideContext(clients.read, clients.context)
      yield* read
      yield* Effect.forkScoped(
        read.pipe(
          // The keys stay as they are.
          Effect.catch((error) => clients.report(error)),
          Effect.delay(checkMillis),
          Effect.forever
        )
      )
      return clients
    })
  }

  get hasKeys(): boolean {
    return this.keys.size > 0
  }

  /** Finds the client of a request: its token is a bearer, in `x-api-key` or in `api-key`. */
  find(headers: IncomingHttpHeaders): Client | undefined {
    for (const token of tokensOf(headers)) {
      const client = this.clientOf(token)
      if (client !== undefined) return client
    }
    return undefined
  }

  /** The client of a key that was found before. `undefined` is the token of the start. */
  again(id: string | undefined): Client | undefined {
    if (id === undefined) return this.hasKeys ? undefined : this.everyone
    const key = this.keys.get(id)
    return key === undefined ? undefined : this.withLimits(key)
  }

  /** All clients, with the use of their limits. `undefined` without limits, empty before the first call. */
  get levels(): ReadonlyArray<{ readonly name: string; readonly levels: ReadonlyArray<Quota.Level> | undefined }> {
    if (!this.hasKeys) return [{ name: this.everyone.name, levels: undefined }]
    return [...this.keys.values()].map(({ costPerDay, id, name, rpm, tpm }) => {
      if ((costPerDay ?? rpm ?? tpm) === undefined) return { name, levels: undefined }
      const limited = this.quotas.get(id)
      if (limited === undefined) return { name, levels: [] }
      return { name, levels: Effect.runSync(limited.quota.snapshot(quotaKey({ id }))).levels }
    })
  }

  /** Counts the cost of a call for `sluice keys list`, and for the days after a restart. */
  spend(key: Keys.Key, millionths: number): void {
    if (millionths === 0 || this.store === undefined) return
    const spend = this.store.spend(key.id, millionths).pipe(Effect.catch((error) => this.report(error)))
    FiberSet.addUnsafe(this.spends, Effect.runFork(spend))
  }

  private clientOf(token: string): Client | undefined {
    if (!this.hasKeys) return timingSafeEqual(Keys.hashOf(token), this.tokenHash) ? this.everyone : undefined
    const key = Keys.find(this.keys, token)
    return key === undefined ? undefined : this.withLimits(key)
  }

  private withLimits(key: Keys.Key): Client {
    return { name: key.name, owner: Keys.ownerOf(key), isAdmin: key.isAdmin, key, quota: this.quotaOf(key) }
  }

  private report(error: Keys.KeysError): Effect.Effect<void> {
    return Effect.sync(() => {
      if (!this.isFailing) this.options.onError(error)
      this.isFailing = true
    })
  }

  private get read(): Effect.Effect<void, Keys.KeysError, Scope.Scope> {
    return Effect.gen({ self: this }, function*() {
      this.store ??= yield* Keys.openExisting(this.options.place)
      if (this.store === undefined) return
      const version = yield* this.store.version
      if (version !== this.version) {
        const keys = yield* this.store.list
        this.spent = yield* this.store.spent
        this.keys = new Map(keys.map((key) => [key.id, key]))
        this.version = version
        for (const [id, { scope }] of this.quotas) {
          if (this.keys.has(id)) continue
          this.quotas.delete(id)
          yield* Scope.close(scope, Exit.void)
        }
      }
      this.isFailing = false
    })
  }

  private quotaOf(key: Keys.Key): Quota.Quota["Service"] | undefined {
    const known = this.quotas.get(key.id)
    if (known !== undefined) return known.quota
    const limited = this.makeQuota(key)
    if (limited !== undefined) this.quotas.set(key.id, limited)
    return limited?.quota
  }

  private makeQuota(key: Keys.Key): Limited | undefined {
    const { options: { isShared, processes } } = this
    const { costPerDay, rpm, tpm } = key
    const limits = [
      ...(rpm === undefined ? [] : [Quota.requestsPerMinute(rpm)]),
      ...(tpm === undefined ? [] : [Quota.tokensPerMinute(tpm)]),
      ...(costPerDay === undefined ? [] : [Quota.perDay("money", costPerDay)])
    ]
    if (limits.length === 0) return undefined
    const scope = Scope.forkUnsafe(Context.get(this.context, Scope.Scope))
    const quota = Effect.runSyncWith(Context.add(this.context, Scope.Scope, scope))(
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
        const spent = costPerDay === undefined ? 0 : this.spent.get(key.id) ?? 0
        if (spent > 0) yield* seed(quota, quotaKey(key), Math.min(spent, costPerDay ?? 0))
        return quota
      }).pipe(Effect.orDie)
    )
    return { quota, scope }
  }
}

interface Limited {
  readonly quota: Quota.Quota["Service"]
  readonly scope: Scope.Closeable
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
