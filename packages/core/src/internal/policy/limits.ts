import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { InvalidOptions } from "../../InvalidOptions.ts"
import * as Quota from "../../Quota.ts"
import * as QuotaStore from "../../QuotaStore.ts"
import { withoutStack } from "../../Refusal.ts"
import { type Limiter, makeLimiter } from "../permits/limiter.ts"
import type { Settings as PermitSettings } from "../permits/options.ts"
import type { Hold } from "../quota/hold.ts"
import { type Quotas, quotasOf } from "../quota/quotas.ts"
import type { PolicyJournal } from "./journal.ts"
import type { CheckedPolicy, CheckedQuota } from "./options.ts"
import { Rejected } from "./rejections.ts"

/** The limits of a policy's attempts: permits and a quota, which every attempt takes in one step. */
export interface Limits {
  readonly limiter: Limiter<Rejected> | undefined
  readonly quota: Quota.Quota["Service"] | undefined
  readonly quotas: Quotas | undefined
  readonly maxWaitMillis: number | undefined
}

export const makeLimits = Effect.fnUntraced(function*(
  { backpressure, quota: checked, settings }: CheckedPolicy,
  journal: PolicyJournal
): Effect.fn.Return<Limits, InvalidOptions, Scope.Scope> {
  const quota = checked === undefined ? undefined : yield* quotaOf(checked)
  const quotas = quota === undefined ? undefined : quotasOf(quota)
  const permits = backpressure ?? (checked === undefined ? undefined : unlimited(checked))
  if (permits === undefined) return { limiter: undefined, quota, quotas, maxWaitMillis: undefined }
  const limiter = yield* makeLimiter(
    permits,
    ({ queued, ticket, waitedMillis, why }, shed) => {
      // The tickets of a policy are holds of its quota.
      const hold = ticket as Hold | undefined
      const exceeded = backpressure === undefined
        ? (hold ?? quotas?.hold(settings.name))?.refusalAlone(why, queued, waitedMillis)
        : hold?.refusal(why, queued, waitedMillis)
      const reason = exceeded ?? shed()
      return journal.recordShed(withoutStack(() => new Rejected({ reason })))
    },
    backpressure !== undefined
  )
  if (quotas !== undefined) {
    quotas.waiting.add(limiter.permits)
    yield* Effect.addFinalizer(() => Effect.sync(() => quotas.waiting.delete(limiter.permits)))
  }
  return { limiter, quota, quotas, maxWaitMillis: permits.maxWaitMillis ?? quotas?.settings.maxWaitMillis }
})

const quotaOf = (checked: CheckedQuota): Effect.Effect<Quota.Quota["Service"], InvalidOptions, Scope.Scope> =>
  checked._tag === "Shared" ? Effect.succeed(checked.service) : Effect.flatMap(
    Effect.serviceOption(QuotaStore.QuotaStore),
    (store) =>
      Effect.flatMap(
        Option.isSome(store) ? Effect.succeed(store.value) : QuotaStore.makeMemory(),
        (found) => Effect.provideService(Quota.make(checked.options), QuotaStore.QuotaStore, found)
      )
  )

/** Permits for a policy without a cap: they only queue calls that wait for the quota. */
const unlimited = ({ settings: { maxWaitMillis, name, queue } }: CheckedQuota): PermitSettings => ({
  name,
  capacity: Number.POSITIVE_INFINITY,
  queue,
  maxWaitMillis,
  softLimit: undefined,
  softRelease: undefined
})
