/** `sluice circuits`: shows the circuits of a fleet, and changes them by hand. */
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import { CircuitBreakerStore, type Snapshot } from "@sluice/core/CircuitBreakerStore"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExitCode from "../ExitCode.ts"
import type { CircuitsFlags } from "../options.ts"
import * as Words from "../run/Words.ts"
import * as Say from "../Say.ts"
import * as Screen from "../Screen.ts"
import type { Given } from "../Shell.ts"
import * as Signals from "../Signals.ts"
import * as Terminal from "../Terminal.ts"
import * as Text from "../Text.ts"
import * as Audit from "./Audit.ts"
import * as Circuits from "./Circuits.ts"
import * as Fleet from "./Fleet.ts"
import * as Table from "./Table.ts"

const actions = ["list", "watch", "open", "close", "reset"] as const

type Action = typeof actions[number]

type ChangeOf = Exclude<Action, "list" | "watch">

/** Runs an action and returns the exit code. */
export const execute = (
  action: string,
  name: string | undefined,
  flags: CircuitsFlags,
  given: Given
): Promise<number> => {
  const refuse = (problem: string): Promise<number> => {
    Say.error("sluice circuits", problem)
    return Promise.resolve(ExitCode.unusable)
  }
  const known = Fleet.actionOf(action, actions)
  if (typeof known !== "string") return refuse(known.problem)
  const problem = problemOf(known, name, flags, given)
  if (problem !== undefined) return refuse(problem)
  const url = Fleet.storeOf(given)
  if (!url.ok) return refuse(url.requirement)
  const program = known === "list"
    ? list(flags)
    : known === "watch"
    ? Effect.scoped(watch(flags, url.value))
    : change(known, name ?? "", flags)
  return Fleet.run("sluice circuits", url.value, program)
}

const problemOf = (
  action: Action,
  name: string | undefined,
  { reason }: CircuitsFlags,
  given: Given
): string | undefined => {
  const isChange = action !== "list" && action !== "watch"
  const stray = (isChange ? ["json"] : ["reason", "for", "unused"]).find((flag) => given.has(flag))
  if (stray !== undefined) return `${action} takes no --${stray}`
  if (!isChange) return name === undefined ? undefined : `${action} takes no name: it shows all circuits`
  if (name === undefined) return `${action} needs a name: sluice circuits ${action} NAME --reason TEXT`
  if (action === "reset" && given.has("for")) return "reset takes no --for: the circuit decides from now on"
  if (reason === undefined) return `${action} needs --reason TEXT, which others will read`
  return Audit.readReason(reason) === undefined ? `--reason ${Audit.reasonRule}` : undefined
}

/** Breakers with other options share the control of a circuit, and this command shows no more than that. */
const window = { calls: 0, bucketMillis: 0, buckets: 0 }
const pageSize = 100

const readAll = Effect.gen(function*() {
  const store = yield* CircuitBreakerStore
  const all: Array<Snapshot> = []
  for (;;) {
    const page = yield* store.list({ window, after: all.at(-1)?.key, limit: pageSize })
    all.push(...page)
    if (page.length < pageSize) return all
  }
})

const shownChanges = 5

/** The circuits, and the last changes by hand below them. */
const table = (circuits: ReadonlyArray<Snapshot>, changes: ReadonlyArray<Audit.Entry>): string => {
  const columns = Table.columns()
  const now = circuits[0]?.now ?? changes[0]?.at ?? 0
  const rows = Table.render(circuits.map((circuit) => [circuit.key, Circuits.words(circuit)]), columns)
  const done = changes.map((entry) => [Circuits.moment(entry.at, now), entry.name, Circuits.change(entry)])
  return `${circuits.length === 0 ? "No circuits: no call was made lately.\n" : rows}${
    done.length === 0 ? "" : `\nDone by hand\n${Table.render(done, columns)}`
  }`
}

const list = Effect.fnUntraced(function*({ json }: CircuitsFlags) {
  const circuits = yield* readAll
  if (json) {
    const changes = yield* Fleet.recent("circuit", Number.POSITIVE_INFINITY)
    const changeOf = (key: string) => changes.find(({ name }) => name === key)
    process.stdout.write(
      circuits.map((circuit) => `${JSON.stringify(Circuits.toJson(circuit, changeOf(circuit.key)))}\n`).join("")
    )
  } else process.stdout.write(table(circuits, yield* Fleet.recent("circuit", shownChanges)))
  return ExitCode.ok
})

// ---------- watch

const watchMillis = 1_000

/** Draws the table again and again on a terminal. Elsewhere it prints a line for each circuit, and then for each that changes. */
const watch = Effect.fnUntraced(function*({ json }: CircuitsFlags, url: string) {
  const signals = yield* Signals.listenTo(["SIGINT", "SIGTERM"])
  const isDrawn = !json && Screen.isDrawn()
  const seen = new Map<string, string>()
  let isSilent = false
  // A store that is down at the start is more likely a wrong URL.
  yield* readAll
  const show = isDrawn ? yield* Screen.take : undefined
  let shown = ""
  const look = Effect.gen(function*() {
    const circuits = yield* readAll
    if (show !== undefined) {
      shown = table(inTroubleFirst(circuits), yield* Fleet.recent("circuit", shownChanges))
      return show(shown)
    }
    if (isSilent) Say.note("The store answers again.")
    isSilent = false
    const changed = circuits.filter((circuit) => {
      const state = `${circuit.generation} ${Circuits.stateOf(circuit)}`
      const isNew = seen.get(circuit.key) !== state
      seen.set(circuit.key, state)
      return isNew
    })
    const keys = new Set(circuits.map(({ key }) => key))
    for (const key of seen.keys()) if (!keys.has(key)) seen.delete(key)
    process.stdout.write(changed.map((circuit) => line(circuit, json)).join(""))
  }).pipe(
    Effect.catchTag("StoreError", (error) =>
      Effect.sync(() => {
        const note = `${Fleet.silent(url, error)}. This is its last known state.`
        if (show !== undefined) return show(`${Text.wrapWhole(note, Table.columns() ?? 80).join("\n")}\n\n${shown}`)
        if (!isSilent) Say.note(note)
        isSilent = true
      }))
  )
  const isRead = Effect.sync(() => !process.stdout.destroyed && process.stdout.writable)
  const looking = look.pipe(
    Effect.andThen(Effect.sleep(watchMillis)),
    Effect.andThen(isRead),
    Effect.repeat({ while: (isRead) => isRead }),
    Effect.as(ExitCode.readerGone)
  )
  return yield* Effect.raceFirst(looking, Effect.as(signals.first, ExitCode.ok))
})

/** Where a fleet has more circuits than a window has lines, those that refuse calls are the ones to see. */
const inTroubleFirst = (circuits: ReadonlyArray<Snapshot>): ReadonlyArray<Snapshot> => {
  const isWell = (circuit: Snapshot) => Circuits.stateOf(circuit) === "closed"
  return [...circuits.filter((circuit) => !isWell(circuit)), ...circuits.filter(isWell)]
}

const line = (circuit: Snapshot, json: boolean): string =>
  json
    ? `${JSON.stringify({ at: circuit.now, ...Circuits.toJson(circuit, undefined) })}\n`
    : `${new Date(circuit.now).toISOString()}  ${Terminal.escape(circuit.key)}  ${Circuits.words(circuit)}\n`

// ---------- changes

const change = Effect.fnUntraced(function*(action: ChangeOf, asked: string, flags: CircuitsFlags) {
  const reason = Audit.readReason(flags.reason ?? "") ?? ""
  const keys = flags.unused ? [asked] : (yield* readAll).map(({ key }) => key)
  const key = yield* Fleet.find("circuit", asked, keys)
  const forMs = action === "reset" ? null : flags.forMillis === undefined ? Audit.defaultMillis : flags.forMillis
  // The options are valid.
  const breaker = yield* Effect.orDie(CircuitBreaker.make({ storeTimeout: "5 seconds" }))
  yield* action === "reset" ? breaker.reset(key, reason) : breaker.control({
    key,
    reason,
    mode: action === "open" ? "ForcedOpen" : "ForcedClosed",
    ...(forMs === null ? {} : { for: Duration.millis(forMs) })
  }).pipe(Effect.catchTag("InvalidOptions", Effect.die))
  const exit = yield* Fleet.note({ kind: "circuit", name: key, what: action, reason, forMs })
  const time = forMs === null ? "until it is changed again" : `for ${Words.time(forMs)}`
  const done = {
    open: `${Terminal.escape(key)} takes no calls ${time}.`,
    close: `${Terminal.escape(key)} takes all calls ${time}.`,
    reset: `The circuit of ${Terminal.escape(key)} decides again.`
  }
  process.stdout.write(`${done[action]}\n`)
  return exit
}, Effect.scoped)
