/** What the commands of a fleet share: the place of its store, and who makes a change. */
import type * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { existsSync } from "node:fs"
import { hostname, userInfo } from "node:os"
import * as ExitCode from "../ExitCode.ts"
import type { Read } from "../Flag.ts"
import * as Nearest from "../Nearest.ts"
import * as Options from "../options.ts"
import type { SettingsError } from "../run/Settings.ts"
import * as Say from "../Say.ts"
import type { Given } from "../Shell.ts"
import * as Sources from "../Sources.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"
import * as Audit from "./Audit.ts"
import * as Stores from "./Stores.ts"

/** A command that cannot do what was asked. */
export class Refused {
  readonly _tag = "Refused"
  readonly problem: string
  constructor(problem: string) {
    this.problem = problem
  }
}

/** The store of the flag, the variable or `sluice.json`, as `sluice serve` finds it. */
export const storeOf = (given: Given): Read<string> => {
  const { flags } = Options.serve
  const own = new Map([...given].filter(([name]) => name === flags.store.name))
  const sources = Sources.read(flags, own, Sources.here(), "serve")
  if (sources._tag === "Wrong") return { ok: false, requirement: sources.message }
  const read = flags.store.read(sources.given.get(flags.store.name) ?? [])
  if (!read.ok) return { ok: false, requirement: `--store must be ${read.requirement}` }
  const url = read.value
  if (url === undefined) return { ok: false, requirement: "name the store of the fleet with --store or SLUICE_STORE" }
  // SQLite would make an empty file.
  if (url.startsWith("sqlite:") && !existsSync(url.slice("sqlite:".length))) {
    return { ok: false, requirement: `there is no file ${Terminal.escape(url.slice("sqlite:".length))}` }
  }
  return { ok: true, value: url }
}

/** Runs a command on a store, and prints why it cannot be done. */
export const run = (
  command: string,
  url: string,
  program: Effect.Effect<number, Refused | CircuitBreakerStore.StoreError, Stores.Stores>
): Promise<number> =>
  program.pipe(
    // Warnings of a client that cannot connect say less than the error that follows.
    Effect.provide(Layer.provideMerge(Stores.layer(url), Logger.layer([]))),
    Effect.catch((error) =>
      Effect.sync(() => {
        Say.error(command, ...problemsOf(error, url))
        return ExitCode.unusable
      })
    ),
    Effect.runPromise
  )

const problemsOf = (
  error: Refused | CircuitBreakerStore.StoreError | SettingsError,
  url: string
): ReadonlyArray<string> => {
  switch (error._tag) {
    case "Refused":
      return [error.problem]
    case "SettingsError":
      return error.problems
    case "StoreError":
      return [silent(url, error)]
  }
}

export const silent = (url: string, { description }: CircuitBreakerStore.StoreError): string =>
  `the store in ${Terminal.escape(UrlSecrets.shown(url))} does not answer: ${description}`

/** Reads an action. */
export const actionOf = <A extends string>(text: string, actions: ReadonlyArray<A>): A | Refused => {
  const known = actions.find((action) => action === text)
  if (known !== undefined) return known
  const nearest = Nearest.find(text, actions)
  return new Refused(
    `ACTION must be one of ${actions.join(", ")}${nearest === undefined ? "" : `; did you mean ${nearest}?`}`
  )
}

/** Finds a name among all, by its part after the last slash, or by its part before: a quota is named `TARGET/MODEL`. */
export const find = (kind: string, asked: string, names: ReadonlyArray<string>): Effect.Effect<string, Refused> => {
  if (names.includes(asked)) return Effect.succeed(asked)
  const shown = Terminal.clip(Terminal.escape(asked), 40)
  const [found, ...others] = names.filter((name) => name.endsWith(`/${asked}`) || name.startsWith(`${asked}/`))
  if (found !== undefined && others.length === 0) return Effect.succeed(found)
  if (found !== undefined) {
    return Effect.fail(
      new Refused(`${shown} can be ${[found, ...others].map(Terminal.escape).join(" or ")}; write it whole`)
    )
  }
  const nearest = Nearest.find(asked, names)
  const suggestion = nearest === undefined
    ? `; sluice ${kind}s list shows those that were used lately`
    : `; did you mean ${Terminal.escape(nearest)}?`
  return Effect.fail(new Refused(`no ${kind} is named ${shown}${suggestion}`))
}

/** The user and the machine. */
const who = (): string => {
  try {
    return `${userInfo().username}@${hostname()}`
  } catch {
    // A container can run as a user without a name.
    return `user ${String(process.getuid?.())}@${hostname()}`
  }
}

/** Keeps a change that was made. */
export const note = Effect.fnUntraced(function*(change: Omit<Audit.Entry, "id" | "at" | "who">) {
  const audit = yield* Audit.Audit
  const entry = Audit.entry({ ...change, at: yield* Clock.currentTimeMillis, who: who() })
  return yield* Effect.matchEffect(audit.add(entry), {
    onSuccess: () => Effect.succeed(ExitCode.ok),
    onFailure: ({ description }) =>
      Effect.sync(() => {
        Say.note(`The change was made, but the store did not keep who made it and why: ${description}.`)
        return ExitCode.someFailed
      })
  })
})

/** The last changes, oldest first. Without them, the rest can still be shown. */
export const recent = (kind: Audit.Entry["kind"], limit: number) =>
  Effect.flatMap(Audit.Audit, ({ recent }) =>
    Effect.map(
      Effect.orElseSucceed(recent(200), (): ReadonlyArray<Audit.Entry> => []),
      (entries) => entries.filter((entry) => entry.kind === kind).slice(0, limit)
    ))
