/** `sluice quotas`: shows the use of a fleet's quotas, and lowers a limit for a while. */
import * as QuotaStore from "@sluice/core/QuotaStore"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as ExitCode from "../ExitCode.ts"
import type { Read } from "../Flag.ts"
import * as Flag from "../Flag.ts"
import type { QuotasFlags } from "../options.ts"
import * as Words from "../run/Words.ts"
import * as Say from "../Say.ts"
import type { Given } from "../Shell.ts"
import * as Terminal from "../Terminal.ts"
import * as Audit from "./Audit.ts"
import * as Circuits from "./Circuits.ts"
import * as Fleet from "./Fleet.ts"
import * as Table from "./Table.ts"

const actions = ["list", "set"] as const

/** Runs an action and returns the exit code. */
export const execute = (
  action: string,
  [name, limit]: ReadonlyArray<string>,
  flags: QuotasFlags,
  given: Given
): Promise<number> => {
  const refuse = (problem: string): Promise<number> => {
    Say.error("sluice quotas", problem)
    return Promise.resolve(ExitCode.unusable)
  }
  const known = Fleet.actionOf(action, actions)
  if (typeof known !== "string") return refuse(known.problem)
  const asked = known === "set" ? readLimit(limit ?? "") : undefined
  if (asked?.ok === false) return refuse(`LIMIT must be ${asked.requirement}`)
  const problem = known === "list" ? problemOfList(name, given) : problemOfSet(flags, asked?.value, given)
  if (problem !== undefined) return refuse(problem)
  const url = Fleet.storeOf(given)
  if (!url.ok) return refuse(url.requirement)
  return Fleet.run(
    "sluice quotas",
    url.value,
    asked === undefined ? list(flags) : set(name ?? "", asked.value, flags)
  )
}

const problemOfList = (name: string | undefined, given: Given): string | undefined => {
  const stray = ["reason", "for"].find((flag) => given.has(flag))
  if (stray !== undefined) return `list takes no --${stray}`
  return name === undefined ? undefined : "list takes no name: it shows all quotas"
}

const problemOfSet = ({ reason }: QuotasFlags, limit: Limit | undefined, given: Given): string | undefined => {
  if (given.has("json")) return "set takes no --json"
  if (limit?.limit === Number.POSITIVE_INFINITY && given.has("for")) return "LIMIT=none takes no --for"
  if (reason === undefined) return "set needs --reason TEXT, which others will read"
  return Audit.readReason(reason) === undefined ? `--reason ${Audit.reasonRule}` : undefined
}

// ---------- limits

/** A limit of a quota. Money is in millionths. */
interface Limit {
  readonly dimension: string
  readonly windowMillis: number
  /** Infinity: none by hand. */
  readonly limit: number
}

const windows = new Map([["s", 1_000], ["min", 60_000], ["h", 3_600_000], ["day", 86_400_000]])

const example = "a limit and a number, such as requests/min=100, money/day=5 or requests/min=none"

const readLimit = (text: string): Read<Limit> => {
  const [, dimension = "", window = "", number = ""] = /^([^/=]+)(?:\/([^/=]+))?=(.+)$/.exec(text) ?? []
  const refused: Read<Limit> = { ok: false, requirement: example }
  if (dimension === "") return refused
  const length = Flag.duration(1)(window)
  // Calls at once have no window.
  const windowMillis = window === "" ? 0 : windows.get(window) ?? (length.ok ? length.value : undefined)
  if (windowMillis === undefined) return refused
  if (number === "none") return { ok: true, value: { dimension, windowMillis, limit: Number.POSITIVE_INFINITY } }
  const read = dimension === "money" ? Flag.dollars(number) : Flag.count(number)
  if (!read.ok) return refused
  const limit = dimension === "money" ? Math.ceil(read.value * 1e6) : read.value
  return { ok: true, value: { dimension, windowMillis, limit } }
}

const nameOf = ({ dimension, windowMillis }: Pick<Limit, "dimension" | "windowMillis">): string => {
  if (windowMillis === 0) return dimension
  if (windowMillis === Number.POSITIVE_INFINITY) return `${dimension} in all`
  const [known] = [...windows].find(([, millis]) => millis === windowMillis) ?? []
  return `${dimension}/${known ?? `${windowMillis / 1_000}s`}`
}

const amount = (dimension: string, value: number): string =>
  dimension === "money" ? `$${(value / 1e6).toFixed(2)}` : Words.count(value)

// ---------- list

interface Row extends Pick<Limit, "dimension" | "windowMillis">, QuotaStore.Ceilings {
  readonly quota: string
  readonly used: number
}

const pageSize = 100

const targets = Effect.gen(function*() {
  const store = yield* QuotaStore.QuotaStore
  const all: Array<string> = []
  for (;;) {
    const page = yield* store.targets({ after: all.at(-1), limit: pageSize })
    all.push(...page)
    if (page.length < pageSize) return all
  }
})

/** The limits that a quota has used lately. */
const rowsOf = Effect.fnUntraced(function*(target: string) {
  const store = yield* QuotaStore.QuotaStore
  const rows = new Map<string, Row>()
  for (const level of yield* store.read({ target, scopes: ["all"] })) {
    // The part after the colon says how the provider counts a call that runs.
    const [dimension = ""] = level.dimension.split(":")
    const { used, windowMillis } = level
    const known = rows.get(nameOf({ dimension, windowMillis }))
    const ceilings = known ?? (yield* QuotaStore.ceilings({ target, dimension, windowMillis }))
    rows.set(nameOf({ dimension, windowMillis }), {
      quota: target,
      dimension,
      windowMillis,
      used: used + (known?.used ?? 0),
      learned: ceilings.learned,
      byHand: ceilings.byHand
    })
  }
  return [...rows.values()]
})

const readAll = Effect.map(Effect.flatMap(targets, (names) => Effect.forEach(names, rowsOf)), (rows) => rows.flat())

const shownChanges = 5

const list = Effect.fnUntraced(function*({ json }: QuotasFlags) {
  const rows = yield* readAll
  const now = yield* Clock.currentTimeMillis
  if (json) {
    process.stdout.write(rows.map((row) => `${JSON.stringify(toJson(row, now))}\n`).join(""))
    return ExitCode.ok
  }
  const changes = yield* Fleet.recent("quota", shownChanges)
  const columns = Table.columns()
  const done = changes.map((entry) => [Circuits.moment(entry.at, now), entry.name, Circuits.change(entry)])
  process.stdout.write(
    `${
      rows.length === 0
        ? "No quotas: no call with a limit was made lately.\n"
        : Table.render(rows.map((row) => [row.quota, nameOf(row), wordsOf(row, now)]), columns)
    }${done.length === 0 ? "" : `\nDone by hand\n${Table.render(done, columns)}`}`
  )
  return ExitCode.ok
})

const wordsOf = ({ byHand, dimension, learned, used }: Row, now: number): string =>
  [
    `${amount(dimension, used)} used`,
    ...(byHand.limit === Number.POSITIVE_INFINITY
      ? []
      : [`by hand at most ${amount(dimension, byHand.limit)} until ${Circuits.moment(now + byHand.forMillis, now)}`]),
    ...(learned.limit === Number.POSITIVE_INFINITY
      ? []
      : [`lowered to ${amount(dimension, learned.limit)} by a rejected call ${Words.time(learned.ageMillis)} ago`])
  ].join(", ")

/** A row for programs. Money is in dollars, times are epoch milliseconds. */
const toJson = ({ byHand, dimension, learned, quota, used, windowMillis }: Row, now: number): object => {
  const plain = (value: number) => dimension === "money" ? value / 1e6 : value
  return {
    quota,
    dimension,
    windowMillis: windowMillis === Number.POSITIVE_INFINITY ? null : windowMillis,
    used: plain(used),
    byHand: byHand.limit === Number.POSITIVE_INFINITY
      ? undefined
      : { limit: plain(byHand.limit), until: now + byHand.forMillis },
    learned: learned.limit === Number.POSITIVE_INFINITY
      ? undefined
      : { limit: plain(learned.limit), at: now - learned.ageMillis }
  }
}

// ---------- set

const set = Effect.fnUntraced(function*(asked: string, { dimension, limit, windowMillis }: Limit, flags: QuotasFlags) {
  const reason = Audit.readReason(flags.reason ?? "") ?? ""
  const target = yield* Fleet.find("quota", asked, yield* targets)
  const name = nameOf({ dimension, windowMillis })
  const names = (yield* rowsOf(target)).map(nameOf)
  if (!names.includes(name)) {
    return yield* Effect.fail(
      new Fleet.Refused(`${Terminal.escape(target)} has no ${Terminal.escape(name)}; it has ${names.join(", ")}`)
    )
  }
  const isNone = limit === Number.POSITIVE_INFINITY
  const asMillis = isNone ? 0 : flags.forMillis ?? Audit.defaultMillis
  const { forMillis } = yield* QuotaStore.hold({ target, dimension, windowMillis, limit, forMillis: asMillis })
  const what = isNone ? `${name} as before` : `${name} at most ${amount(dimension, limit)}`
  const forMs = isNone ? null : forMillis
  const exit = yield* Fleet.note({ kind: "quota", name: target, what, reason, forMs })
  process.stdout.write(
    isNone
      ? `${Terminal.escape(target)} has its own limit of ${name} again.\n`
      : `${Terminal.escape(target)} has at most ${amount(dimension, limit)} ${name} for ${Words.time(forMillis)}.\n`
  )
  // The time of a limit by hand only grows.
  if (!isNone && forMillis > asMillis + 1_000) {
    Say.note(`It was set for longer before, and keeps that end. End it with ${name}=none.`)
  }
  return exit
})
