import type { Ask, Ceiling, QuotaStore, StoredLevel, Verdict } from "@sluice/core/QuotaStore"
import { encodeKey } from "@sluice/core/StoreCodec"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import {
  addressOf,
  askRow,
  ceilingIn,
  ceilingOf,
  heldIn,
  learnedIn,
  learnedRows,
  levelsIn,
  sumIn,
  verdictIn
} from "./reply.ts"
import { type Held, learn, Sums } from "./rows.ts"
import { asyncCommit, type Row, serverMicros, type Session } from "../session.ts"

type Service = QuotaStore["Service"]
type RequestOf<V extends keyof Service> = Parameters<Service[V]>[0]
type Replied<A> = Effect.Effect<A | undefined, SqlError>

/** The statements of the verbs, in one of two forms. A reply of `undefined` is an invalid row. */
export interface Verbs {
  readonly reserve: (request: RequestOf<"reserve">) => Replied<Verdict>
  readonly settle: (request: RequestOf<"settle">) => Replied<boolean>
  readonly record: (request: RequestOf<"record">) => Replied<true>
  readonly renew: (request: RequestOf<"renew">) => Replied<true>
  readonly limit: (request: RequestOf<"limit">) => Replied<Ceiling>
  readonly read: (request: RequestOf<"read">) => Replied<ReadonlyArray<StoredLevel>>
}

const hour = 3_600_000
const twoDays = 48 * hour
const year = 365 * 24 * hour

/** How long a target is kept after its last use. */
const keepMillis = (asks: ReadonlyArray<Ask>, leaseMillis: number): number => {
  const longest = Math.max(leaseMillis, ...asks.map(({ windowMillis }) => windowMillis))
  return Math.ceil(Math.min(year, Math.max(twoDays, 2 * longest)))
}

/** Whether a crash of the server must not lose the asks: those of budgets, but not of rates, which forget them soon anyway. */
const isDurable = (asks: ReadonlyArray<Ask>): boolean => asks.some(({ windowMillis }) => windowMillis > hour)

/** The verbs as functions of Postgres. */
export const functionsOn = (session: Session): Verbs => {
  const call = (name: string, ...types: ReadonlyArray<string>) =>
    session.statement(
      `SELECT * FROM sluice_quota_${name}(${types.map((type, nth) => `$${nth + 1}::${type}`).join(", ")})`
    )
  const reserve = call("reserve", "text", "text", "bigint", "float8", "bigint", "boolean", "text::jsonb")
  const settle = call("settle", "text", "text", "float8", "boolean", "text::jsonb")
  const record = call("record", "text", "bigint", "boolean", "text::jsonb")
  const renew = call("renew", "text", "text::jsonb", "bigint")
  const limit = call("limit", "text", "text", "float8", "float8", "bigint")
  const read = call("read", "text")
  return {
    reserve: ({ asks, guardMillis, id, leaseMillis, target }) => {
      const json = JSON.stringify(asks.map(askRow))
      const times = [Math.ceil(leaseMillis), guardMillis, keepMillis(asks, leaseMillis)]
      const rows = reserve([encodeKey(target), encodeKey(id), ...times, isDurable(asks), json])
      return Effect.map(rows, ([row]) => verdictIn(row, asks.length))
    },
    settle: ({ actual, agoMillis = 0, id, keep = false, target }) => {
      const amounts = actual.map(({ amount, dimension, scope }) => [addressOf(scope, dimension), amount])
      const json = JSON.stringify(Object.fromEntries(amounts))
      const rows = settle([encodeKey(target), encodeKey(id), agoMillis, keep, json])
      return Effect.map(rows, ([row]) => booleanIn(row?.["sluice_quota_settle"]))
    },
    record: ({ asks, target }) => {
      const json = JSON.stringify(asks.map(askRow))
      return Effect.as(record([encodeKey(target), keepMillis(asks, 0), isDurable(asks), json]), true as const)
    },
    renew: ({ ids, leaseMillis, target }) =>
      Effect.as(
        renew([encodeKey(target), JSON.stringify(ids.map(encodeKey)), Math.ceil(leaseMillis)]),
        true as const
      ),
    limit: ({ dimension, restMillis = -1, seen = -1, target }) =>
      Effect.map(
        limit([encodeKey(target), encodeKey(dimension), seen, Math.ceil(restMillis), twoDays]),
        ([row]) => ceilingIn(row)
      ),
    read: ({ scopes, target }) => Effect.map(read([encodeKey(target)]), (rows) => levelsIn(rows, scopes))
  }
}

const booleanIn = (value: unknown): boolean | undefined => typeof value === "boolean" ? value : undefined

/** A target that is locked, and the sums that the verb needs. */
interface Opened {
  readonly target: string
  readonly sums: Sums
  readonly learned: string
  /** What the id of the verb holds. */
  readonly held: ReadonlyArray<Held> | undefined
}

/** The verbs as transactions of a few statements, with their rules in `rows.ts`. */
export const rowsOn = (session: Session): Verbs => {
  const { dialect, statement } = session
  const onPg = (clause: string, otherwise = "") => dialect === "pg" ? clause : otherwise
  const number = (name: string) => onPg(`${name}::float8 AS ${name}`, name)
  const listOf = (param: string) => onPg(`string_to_array(${param}, ',')::bigint[]`, param)
  const sumColumns = `name, span, quantum, ${number("used")}, ${number("oldest")}, ${
    onPg("array_to_string(buckets, ',') AS buckets", "buckets")
  }`
  // A JSON array of texts.
  const among = (column: string, param: string) =>
    onPg(
      `${column} IN (SELECT jsonb_array_elements_text(${param}::text::jsonb))`,
      `${column} IN (SELECT value FROM json_each(${param}))`
    )
  const upsert = memoize((count: number) => {
    const row = (nth: number) => {
      const at = (offset: number) => `$${2 + nth * 7 + offset}`
      const [name, span, quantum, used, oldest, buckets, expires] = Array.from({ length: 7 }, (_, offset) => at(offset))
      return `($1, ${name}, CAST(${span} AS double precision), CAST(${quantum} AS double precision), CAST(${used} AS bigint),
        CAST(${oldest} AS bigint), ${listOf(buckets ?? "")}, CAST(${expires} AS bigint))`
    }
    return statement(`
      INSERT INTO sluice_quota_sums (target, name, span, quantum, used, oldest, buckets, expires)
      VALUES ${Array.from({ length: count }, (_, nth) => row(nth)).join(", ")}
      ON CONFLICT (target, name) DO UPDATE SET
        used = excluded.used, oldest = excluded.oldest, buckets = excluded.buckets, expires = excluded.expires`)
  })
  const statements = {
    target: statement(`
      SELECT ${number("latest")}, ${number("behind")}, learned, ${number("expires")}
      FROM sluice_quotas WHERE target = $1 ${onPg("FOR NO KEY UPDATE")}`),
    makeTarget: statement(
      "INSERT INTO sluice_quotas (target, latest, behind, learned, expires) VALUES ($1, 0, 0, '{}', 0) ON CONFLICT DO NOTHING"
    ),
    // After the lock. `$1`: whether the commit has to wait for the disk.
    clock: statement(`SELECT ${serverMicros}::float8 AS micros, CASE WHEN NOT $1::boolean THEN ${asyncCommit} END`),
    moveTarget: statement(`
      UPDATE sluice_quotas
      SET latest = CAST($2 AS bigint), behind = CAST($3 AS bigint), learned = $4, expires = CAST($5 AS bigint) WHERE target = $1`),
    holds: statement(`
      SELECT id, ${number("ends")}, ${onPg("amounts::text AS amounts", "amounts")} FROM sluice_quota_holds
      WHERE target = $1 AND (id = $2 OR id IN (
        SELECT id FROM sluice_quota_holds WHERE target = $1 AND ends <= CAST($3 AS bigint) ORDER BY ends LIMIT 16
      ))`),
    sums: statement(`SELECT ${sumColumns} FROM sluice_quota_sums WHERE target = $1 AND ${among("name", "$2")}`),
    allSums: statement(`SELECT ${sumColumns} FROM sluice_quota_sums WHERE target = $1`),
    hold: statement(`
      INSERT INTO sluice_quota_holds (target, id, ends, amounts)
      VALUES ($1, $2, CAST($3 AS bigint), ${onPg("$4::text::jsonb", "$4")})`),
    holdOn: statement(
      `UPDATE sluice_quota_holds SET amounts = ${onPg("$3::text::jsonb", "$3")} WHERE target = $1 AND id = $2`
    ),
    release: statement(`DELETE FROM sluice_quota_holds WHERE target = $1 AND ${among("id", "$2")}`),
    renew: statement(
      `UPDATE sluice_quota_holds SET ends = CAST($3 AS bigint) WHERE target = $1 AND ${among("id", "$2")}`
    ),
    learn: statement("UPDATE sluice_quotas SET learned = $2, latest = CAST($3 AS bigint) WHERE target = $1"),
    dropSums: statement("DELETE FROM sluice_quota_sums WHERE target = $1 AND expires < CAST($2 AS bigint)"),
    dropTargets: statement(`
      DELETE FROM sluice_quotas WHERE target IN (
        SELECT target FROM sluice_quotas WHERE expires < CAST($1 AS bigint) LIMIT 5 ${onPg("FOR UPDATE SKIP LOCKED")}
      ) RETURNING target`),
    dropRows: ["sluice_quota_sums", "sluice_quota_holds"].map((table) =>
      statement(`DELETE FROM ${table} WHERE ${among("target", "$1")}`)
    )
  }

  /** Locks a target, and makes it if it is missing and `keep` is given. Frees what ids hold whose lease has ended. */
  const open = Effect.fnUntraced(function*(
    target: string,
    { durable = false, id = "", keep, names }: {
      readonly durable?: boolean
      readonly id?: string
      readonly keep?: number
      /** The sums to read. Default: those that ids hold. */
      readonly names?: ReadonlyArray<string> | "all"
    }
  ): Effect.fn.Return<Opened | "missing" | "invalid", SqlError> {
    let [row] = yield* statements.target([target])
    if (row === undefined) {
      if (keep === undefined) return "missing"
      yield* statements.makeTarget([target])
      row = (yield* statements.target([target]))[0]
    }
    const [latest, behind, expires] = ["latest", "behind", "expires"].map((name) => Number(row?.[name]))
    const learned = row?.["learned"]
    if (latest === undefined || behind === undefined || expires === undefined) return "invalid"
    if (!Number.isSafeInteger(latest + behind + expires) || typeof learned !== "string") return "invalid"
    // If the clock was set back, time continues from the latest time that was written, which is once a second.
    const millis = (yield* clockMillis(durable)) + behind
    const now = Math.max(millis, latest)
    if (millis < latest || millis >= latest + 1_000 || (keep !== undefined && expires < now + keep)) {
      const kept = keep === undefined ? expires : Math.max(expires, now + keep + Math.floor(keep / 2))
      yield* statements.moveTarget([target, now, behind + now - millis, learned, kept])
      yield* clean(target, now)
    }
    const rows = yield* statements.holds([target, id, now])
    const holds = complete(rows.map(decodeHold))
    if (holds === undefined) return "invalid"
    const ended = holds.filter(({ ends }) => ends <= now)
    const held = holds.find((hold) => hold.id === id && hold.ends > now)?.held
    const needed = [...ended.flatMap(({ held }) => held), ...held ?? []].map(({ name }) => name)
    const found = names === "all"
      ? yield* statements.allSums([target])
      : yield* statements.sums([target, JSON.stringify([...new Set([...needed, ...names ?? []])])])
    const sumRows = complete(found.map(sumIn))
    if (sumRows === undefined) return "invalid"
    const sums = new Sums(sumRows, now)
    for (const { held } of ended) sums.lapse(held)
    if (ended.length > 0) yield* statements.release([target, JSON.stringify(ended.map(({ id }) => id))])
    return { target, sums, learned, held }
  })

  const clockMillis = (durable: boolean) =>
    dialect === "pg"
      ? Effect.map(statements.clock([durable]), ([row]) => Math.floor(Number(row?.["micros"]) / 1_000))
      : Clock.currentTimeMillis

  const clean = Effect.fnUntraced(function*(target: string, now: number) {
    yield* statements.dropSums([target, now])
    const gone = yield* statements.dropTargets([now])
    if (gone.length === 0) return
    for (const drop of statements.dropRows) yield* drop([JSON.stringify(gone.map(({ target }) => target))])
  })

  const write = ({ sums, target }: Opened, keep: number) => {
    const expires = sums.now + keep + hour
    const rows = sums.changed.flatMap(({ buckets, name, oldest, quantum, span, used }) => [
      name,
      span,
      quantum,
      used,
      oldest,
      buckets.join(","),
      expires
    ])
    return sums.changed.length === 0 ? Effect.void : upsert(sums.changed.length)([target, ...rows])
  }

  /** Runs a verb on an open target. */
  const change = <A>(
    target: string,
    needs: Parameters<typeof open>[1],
    verb: (opened: Opened) => Effect.Effect<A | undefined, SqlError>,
    missing: A | undefined
  ): Replied<A> =>
    session.transact(Effect.flatMap(open(encodeKey(target), needs), (opened) => {
      if (opened === "missing") return Effect.succeed(missing)
      if (opened === "invalid") return Effect.succeed(undefined)
      return Effect.tap(verb(opened), write(opened, needs.keep ?? twoDays))
    }))

  return {
    reserve: ({ asks, guardMillis, id, leaseMillis, target }) => {
      const rows = asks.map(askRow)
      const needs = {
        durable: isDurable(asks),
        id: encodeKey(id),
        keep: keepMillis(asks, leaseMillis),
        names: rows.map(({ name }) => name)
      }
      return change(target, needs, ({ held: known, learned: text, sums, target }) => {
        const { held, ...decision } = sums.reserve(rows, known, guardMillis)
        const learned = learnedIn(text, sums.now)
        const verdict = learned && { ...decision, now: sums.now, learned }
        if (held === undefined || verdict === undefined) return Effect.succeed(verdict)
        const hold = [target, needs.id, sums.now + Math.ceil(leaseMillis), JSON.stringify(held)]
        return Effect.as(statements.hold(hold), verdict)
      }, undefined)
    },
    settle: ({ actual, agoMillis = 0, id, keep = false, target }) =>
      change(target, { id: encodeKey(id) }, ({ held, sums, target }) => {
        if (held === undefined) return Effect.succeed(false)
        const amounts = new Map(actual.map(({ amount, dimension, scope }) => [addressOf(scope, dimension), amount]))
        const left = sums.settle(held, amounts, agoMillis, keep)
        const written = keep
          ? statements.holdOn([target, encodeKey(id), JSON.stringify(left)])
          : statements.release([target, JSON.stringify([encodeKey(id)])])
        return Effect.as(written, true)
      }, false),
    record: ({ asks, target }) => {
      const rows = asks.map(askRow)
      const needs = { durable: isDurable(asks), keep: keepMillis(asks, 0), names: rows.map(({ name }) => name) }
      return change(target, needs, ({ sums }) => {
        sums.record(rows)
        return Effect.succeed(true as const)
      }, undefined)
    },
    renew: ({ ids, leaseMillis, target }) =>
      change(target, {}, ({ sums, target }) => {
        const params = [target, JSON.stringify(ids.map(encodeKey)), sums.now + Math.ceil(leaseMillis)]
        return Effect.as(statements.renew(params), true as const)
      }, true),
    limit: ({ dimension, restMillis = -1, seen = -1, target }) => {
      const writes = seen >= 0 || restMillis >= 0
      const none: Ceiling = { limit: Number.POSITIVE_INFINITY, ageMillis: 0, restMillis: 0 }
      return change(target, writes ? { keep: twoDays } : {}, ({ learned: text, sums: { now }, target }) => {
        const known = learnedRows(text)
        if (known === undefined) return Effect.succeed(undefined)
        const row = learn(
          Object.hasOwn(known, encodeKey(dimension)) ? known[encodeKey(dimension)] : undefined,
          seen,
          Math.ceil(restMillis),
          now
        )
        const learned = JSON.stringify({ ...known, [encodeKey(dimension)]: row })
        const ceiling = ceilingOf(row, now)
        return writes ? Effect.as(statements.learn([target, learned, now]), ceiling) : Effect.succeed(ceiling)
      }, none)
    },
    read: ({ scopes, target }) =>
      change(target, { names: "all" }, ({ sums }) => Effect.succeed(levelsIn(sums.levels, scopes)), [])
  }
}

interface Hold {
  readonly id: string
  readonly ends: number
  readonly held: ReadonlyArray<Held>
}

const decodeHold = (row: Row): Hold | undefined => {
  const held = heldIn(row["amounts"])
  const ends = Number(row["ends"])
  return held === undefined || Number.isNaN(ends) ? undefined : { id: String(row["id"]), ends, held }
}

/** `undefined` if a row is invalid. */
const complete = <A>(rows: ReadonlyArray<A | undefined>): ReadonlyArray<A> | undefined => {
  const valid = rows.filter((row) => row !== undefined)
  return valid.length === rows.length ? valid : undefined
}

const memoize = <A>(make: (count: number) => A): (count: number) => A => {
  const made = new Map<number, A>()
  return (count) => {
    const known = made.get(count) ?? make(count)
    made.set(count, known)
    return known
  }
}
