/** `sluice keys`: adds, lists and removes the keys of a gateway's clients. */
import * as Effect from "effect/Effect"
import * as ExitCode from "../ExitCode.ts"
import type { Read } from "../Flag.ts"
import * as Nearest from "../Nearest.ts"
import type { KeysFlags } from "../options.ts"
import * as Options from "../options.ts"
import * as Prices from "../run/Prices.ts"
import * as Words from "../run/Words.ts"
import * as Say from "../Say.ts"
import type { Given } from "../Shell.ts"
import * as Sources from "../Sources.ts"
import * as Terminal from "../Terminal.ts"
import * as Keys from "./Keys.ts"

const actions = ["add", "list", "remove"] as const

const nameForm = /^[\p{L}\p{N}][\p{L}\p{N}._@-]{0,63}$/u

export const execute = async (
  action: string,
  name: string | undefined,
  own: KeysFlags,
  given: Given
): Promise<number> => {
  const refuse = (problem: string): number => {
    Say.error("sluice keys", problem)
    return ExitCode.unusable
  }
  const known = actions.find((known) => known === action)
  if (known === undefined) {
    const nearest = Nearest.find(action, actions)
    return refuse(
      `ACTION must be one of ${actions.join(", ")}${nearest === undefined ? "" : `; did you mean ${nearest}?`}`
    )
  }
  if ((name === undefined) !== (known === "list")) {
    return refuse(known === "list" ? "list takes no name" : `${known} needs a name: sluice keys ${known} NAME`)
  }
  if (known !== "add" && hasLimits(own)) return refuse(`${known} takes no limits; they belong to add`)
  if (known === "add" && !nameForm.test(name ?? "")) {
    return refuse("NAME must have 1 to 64 letters, digits, ., _, @ and -, and begin with a letter or digit")
  }
  const place = placeOf(given)
  if (!place.ok) return refuse(place.requirement)
  const flags = { ...own, keys: place.value }
  const run = {
    add: () => add(name ?? "", flags),
    list: () => list(flags),
    remove: () => remove(name ?? "", flags, refuse)
  }
  return Effect.runPromise(
    Effect.scoped(run[known]()).pipe(Effect.catch((error) => Effect.sync(() => refuse(error.message))))
  )
}

/** The place of the flag, the variable or `sluice.json`, as `sluice serve` finds it. */
const placeOf = (given: Given): Read<string> => {
  const { flags } = Options.serve
  const own = new Map([...given].filter(([name]) => name === flags.keys.name))
  const sources = Sources.read(flags, own, Sources.here(), "serve")
  return sources._tag === "Wrong"
    ? { ok: false, requirement: sources.message }
    : flags.keys.read(sources.given.get(flags.keys.name) ?? [])
}

const hasLimits = ({ isAdmin, maxCostPerDay, models, rpm, tpm }: KeysFlags): boolean =>
  isAdmin || maxCostPerDay !== undefined || models.length > 0 || rpm !== undefined || tpm !== undefined

/** Prints the token alone on standard output, so that a script can take it. */
const add = (name: string, { isAdmin, keys, maxCostPerDay, models, rpm, tpm }: KeysFlags) =>
  Effect.gen(function*() {
    const store = yield* Keys.open(keys)
    const costPerDay = maxCostPerDay === undefined ? undefined : Math.ceil(maxCostPerDay * 1e6)
    const token = yield* store.add(name, { isAdmin, costPerDay, models, rpm, tpm })
    process.stdout.write(`${token}\n`)
    Say.note(`Added the key of ${name} to ${Terminal.escape(Keys.shown(keys))}. The key is shown only once.`)
    return ExitCode.ok
  })

const remove = (name: string, { keys }: KeysFlags, refuse: (problem: string) => number) =>
  Effect.gen(function*() {
    const store = yield* Keys.openExisting(keys)
    if (store !== undefined && (yield* store.remove(name))) return ExitCode.ok
    const all = store === undefined ? [] : yield* store.list
    const nearest = Nearest.find(name, all.map((key) => key.name))
    const suggestion = nearest === undefined ? "" : `; did you mean ${Terminal.escape(nearest)}?`
    return refuse(`no key is named ${Terminal.clip(Terminal.escape(name), 40)}${suggestion}`)
  })

const list = ({ keys }: KeysFlags) =>
  Effect.gen(function*() {
    const store = yield* Keys.openExisting(keys)
    const all = store === undefined ? [] : yield* store.list
    if (store === undefined || all.length === 0) {
      Say.note(`no keys in ${Terminal.escape(Keys.shown(keys))}; sluice keys add NAME adds one`)
      return ExitCode.ok
    }
    const spent = yield* store.spent
    process.stdout.write(table(all, ({ id }) => spent.get(id) ?? 0))
    return ExitCode.ok
  })

const table = (keys: ReadonlyArray<Keys.Key>, spentOf: (key: Keys.Key) => number): string => {
  const rows = keys.map((key) => {
    const { at, costPerDay, isAdmin, models, name, rpm, tpm } = key
    return [
      Terminal.clip(Terminal.escape(name), 20),
      new Date(at).toISOString().slice(0, 10),
      perMinute(rpm),
      perMinute(tpm),
      `${Prices.shown(spentOf(key))}${costPerDay === undefined ? "" : ` of ${Prices.shown(costPerDay)}`}`,
      [...(isAdmin ? ["(admin)"] : []), models.length === 0 ? "all" : Terminal.escape(models.join(" "))].join(" ")
    ]
  })
  const all = [["name", "added", "rpm", "tpm", "last 24 h", "models"], ...rows]
  const widths = all[0]?.map((_, column) => Math.max(...all.map((row) => Terminal.width(row[column] ?? "")))) ?? []
  return all.map((row) => `${row.map((cell, column) => pad(cell, widths[column] ?? 0)).join("  ").trimEnd()}\n`).join(
    ""
  )
}

const perMinute = (limit: number | undefined): string => limit === undefined ? "-" : Words.count(limit)

const pad = (text: string, width: number): string => text + " ".repeat(Math.max(0, width - Terminal.width(text)))
