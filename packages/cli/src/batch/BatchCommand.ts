/** `sluice batch`: submits batches, works on them, and prints their status and results. */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Batch from "@sluice/batch/Batch"
import * as Batches from "@sluice/batch/Batches"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { existsSync } from "node:fs"
import * as Arguments from "../Arguments.ts"
import * as BatchStore from "../BatchStore.ts"
import * as ExitCode from "../ExitCode.ts"
import * as Nearest from "../Nearest.ts"
import * as Results from "../openai/Results.ts"
import type { BatchFlags } from "../options.ts"
import * as Options from "../options.ts"
import * as Output from "../run/Output.ts"
import * as Prices from "../run/Prices.ts"
import * as Words from "../run/Words.ts"
import * as Say from "../Say.ts"
import * as Screen from "../Screen.ts"
import type { Given } from "../Shell.ts"
import * as Signals from "../Signals.ts"
import * as Sources from "../Sources.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"
import * as Submit from "./Submit.ts"
import * as Table from "./Table.ts"
import { work } from "./Work.ts"

const actions = Options.batchActions

type Action = typeof actions[number]

/** Runs an action and returns the exit code. */
export const execute = (action: string, names: ReadonlyArray<string>, own: Given): Promise<number> => {
  const refuse = (...problems: ReadonlyArray<string>): number => {
    Say.error("sluice batch", ...problems)
    return ExitCode.unusable
  }
  const known = actions.find((known) => known === action)
  if (known === undefined) {
    const nearest = Nearest.find(action, actions)
    const suggestion = nearest === undefined ? "" : `; did you mean ${nearest}?`
    return Promise.resolve(refuse(`ACTION must be one of ${actions.join(", ")}${suggestion}`))
  }
  const problem = problemOf(known, names) ?? strayOf(known, own)
  if (problem !== undefined) return Promise.resolve(refuse(problem))
  const sources = Sources.read(Options.batch.flags, own, Sources.here(), "batch")
  if (sources._tag === "Wrong") return Promise.resolve(refuse(sources.message))
  const parsed = Arguments.readAll(Options.batch.flags, sources.given, [])
  if (parsed._tag !== "Parsed") return Promise.resolve(refuse(parsed._tag === "Wrong" ? parsed.message : "unreadable"))
  const flags = parsed.values
  const isMade = known === "submit" || known === "work"
  const missing = isMade ? undefined : missingOf(flags.batches)
  if (missing !== undefined) return Promise.resolve(refuse(missing))
  return Effect.runPromise(
    act(known, names, flags, sources.given, own).pipe(
      Effect.provide(BatchStore.layer(flags.batches)),
      Effect.scoped,
      Effect.catchTag("ReaderGone", () => Effect.succeed(ExitCode.readerGone)),
      Effect.catch((error) =>
        Effect.sync(() => {
          switch (error._tag) {
            case "SettingsError":
            case "UnusableLines":
              return refuse(...error.problems)
            case "BatchNotFound":
              return refuse(
                `no batch has the id ${Terminal.clip(Terminal.escape(error.id), 64)} in ` +
                  `${Terminal.escape(UrlSecrets.shown(flags.batches))}; \`sluice batch status\` lists them`
              )
            case "BatchRunning":
              return refuse(runningOf(error))
            case "BudgetSpent":
              return refuse(
                `batch ${error.id} has spent ${Prices.shown(error.micros)} of ${
                  Prices.shown(error.maxMicros)
                }; set a larger ` +
                  "--max-cost, which includes what is spent"
              )
            case "MigrationFailed":
            case "SqlError":
            case "TablesOutdated":
              return refuse(BatchStore.messageOf(flags.batches, error))
            default:
              return refuse(error.message)
          }
        })
      )
    )
  )
}

const problemOf = (action: Action, names: ReadonlyArray<string>): string | undefined => {
  switch (action) {
    case "submit":
      return names.length === 0 ? "submit needs a file: sluice batch submit FILE" : undefined
    case "work":
      return names.length === 0 ? undefined : "work takes no name: it works on all batches"
    case "status":
      return names.length <= 1 ? undefined : "status takes one id, or none for all batches"
    default:
      return names.length === 1 ? undefined : `${action} needs one id: sluice batch ${action} ID`
  }
}

/** A command that only reads would leave an empty file in a wrong folder. */
const missingOf = (url: string): string | undefined => {
  const path = url.replace(/^sqlite:/, "")
  return BatchStore.isPostgres(url) || existsSync(path)
    ? undefined
    : `there is no file ${Terminal.escape(UrlSecrets.shown(path))}; \`sluice batch submit FILE\` makes it, ` +
      "and --batches names another one"
}

/** A flag that the action does not have. It would change nothing, so it is a mistake. */
const strayOf = (action: Action, own: Given): string | undefined => {
  for (const name of own.keys()) {
    const owners = Object.entries(Options.batch.groups ?? {}).filter(([, names]) => names.includes(name))
      .map(([title]) => title)
    const isOwn = owners.length === 0 ||
      owners.some((owner) => owner === action || !actions.some((one) => one === owner))
    if (!isOwn) return `--${name} is a flag of ${owners.join(" and ")}, not of ${action}`
  }
  return undefined
}

const act = Effect.fnUntraced(function*(
  action: Action,
  names: ReadonlyArray<string>,
  flags: BatchFlags,
  given: Given,
  own: Given
) {
  const batches = yield* Batches.Batches
  const [id = ""] = names
  switch (action) {
    case "submit": {
      const { id, isNew, status } = yield* Submit.submit(names, flags)
      process.stdout.write(`${id}\n`)
      const count = Words.plural(status.total, "request")
      Say.note(
        isNew
          ? `Submitted ${count}. \`sluice batch work\` sends them.`
          : `Already submitted: ${count}${nextOf(status)}`
      )
      return ExitCode.ok
    }
    case "work":
      return yield* work(given, flags)
    case "status":
      return yield* Effect.scoped(
        show(
          flags,
          id === "" ? batches.list({ limit: shownBatches + 1 }) : Effect.map(batches.status(id), (status) => [status])
        )
      )
    case "results":
      return yield* write(id, flags)
    case "cancel": {
      const { state } = yield* batches.cancel(id, { inFlight: flags.interrupt ? "interrupt" : "finish" })
      Say.note(
        state === "cancelling"
          ? `No further request is sent. Calls that run are ${
            flags.interrupt ? "interrupted." : "awaited, and their answers are kept."
          }`
          : `The batch has ended: ${Table.stateOf(state)}.`
      )
      return ExitCode.ok
    }
    case "retry": {
      const count = yield* batches.retry(id, {
        which: flags.unasked ? "unasked" : "failed",
        // A budget of the settings is for new batches.
        ...(flags.maxCost !== undefined && own.has("max-cost") &&
          { maxCost: { micros: Submit.microsOf(flags.maxCost) } })
      })
      Say.note(
        count > 0
          ? `${Words.plural(count, "request")} will be sent again.`
          : flags.unasked
          ? "No request was left by a cancel, an expiry or a budget."
          : "No request has failed. --unasked sends what a cancel, an expiry or a budget left."
      )
      return ExitCode.ok
    }
    case "remove":
      yield* batches.remove(id)
      return ExitCode.ok
  }
})

/** The next steps for a batch that was submitted before. */
const nextOf = ({ id, state, total }: Batch.Status): string => {
  if (state === "in_progress") return ". `sluice batch work` sends them."
  const said = `, ${Table.stateOf(state)}.`
  if (state === "completed") {
    return `${said} \`sluice batch results ${id}\` prints the results. Remove the batch to send them again.`
  }
  if (Batch.isEnded(state) && total === 0) return `${said} Remove the batch to submit the requests again.`
  return Batch.isEnded(state) ? `${said} \`sluice batch retry ${id} --unasked\` sends what is left.` : said
}

/** Why a batch cannot be retried or removed now, and what to do about it. */
const runningOf = ({ id, state }: Batch.BatchRunning): string => {
  const said = `batch ${id} is ${Table.stateOf(state)}`
  switch (state) {
    case "validating":
      return `${said}; repeat its submit, or cancel it first`
    case "in_progress":
      return `${said}; cancel it first, or wait until it has ended`
    default:
      return `${said}; wait until a worker has ended it: sluice batch work`
  }
}

const shownBatches = 100
const cut = `These are the newest ${shownBatches} batches. \`sluice batch status ID\` shows an older one.`

const redrawMillis = 1_000
const plainMillis = 10_000

const show = Effect.fnUntraced(function*(
  { batches, json, watch }: BatchFlags,
  read: Effect.Effect<ReadonlyArray<Batch.Status>, Batch.BatchNotFound | Batch.BatchStoreError | InvalidOptions>
) {
  const isLive = watch && !json && Screen.isDrawn()
  const print = isLive ? yield* Screen.take : (text: string) => void process.stdout.write(text)
  let isSaid = false
  const showing = Effect.gen(function*() {
    while (true) {
      const found = yield* read
      const statuses = found.slice(0, shownBatches)
      const isCut = found.length > shownBatches
      const now = yield* Clock.currentTimeMillis
      if (isCut && json && !isSaid) Say.note(cut)
      isSaid = true
      print(
        json
          ? statuses.map((status) => `${JSON.stringify(Table.toJson(status))}\n`).join("")
          : statuses.length === 0
          ? `No batches in ${Terminal.escape(UrlSecrets.shown(batches))}. \`sluice batch submit FILE\` adds one.\n`
          : `${Table.render(statuses, now)}${isCut ? `${cut}\n` : ""}`
      )
      const isOver = statuses.every(({ state }) => Batch.isEnded(state))
      if (!watch || isOver) return exitCodeOf(statuses)
      yield* Effect.sleep(isLive || json ? redrawMillis : plainMillis)
    }
  })
  if (!isLive) return yield* showing
  const signals = yield* Signals.listenTo(["SIGINT", "SIGTERM"])
  return yield* Effect.raceFirst(showing, Effect.map(signals.first, Signals.exitCode))
})

const exitCodeOf = (statuses: ReadonlyArray<Batch.Status>): number =>
  statuses.some(({ failed, state }) => failed > 0 && Batch.isEnded(state)) ? ExitCode.someFailed : ExitCode.ok

const chunkLength = 2 ** 16

const write = Effect.fnUntraced(function*(id: string, { follow, force, format, order, output }: BatchFlags) {
  const batches = yield* Batches.Batches
  yield* batches.status(id)
  const file = yield* Output.make({ path: output ?? "-", force, input: [] })
  let text = ""
  let written = 0
  let failed = 0
  yield* Stream.runForEachArray(batches.results(id, { order, follow }), (results) => {
    for (const result of results) {
      written += 1
      if (result.kind !== "ok") failed += 1
      text += format === "openai" ? Results.openAiLine(id, result) : Results.sluiceLine(result)
    }
    if (text.length < chunkLength && !follow) return Effect.void
    const lines = text
    text = ""
    return lines === "" ? Effect.void : file.write(lines)
  })
  if (text !== "") yield* file.write(text)
  const { state, total } = yield* batches.status(id)
  if (!follow && written < total && !Batch.isEnded(state)) {
    Say.note(`Wrote ${Words.count(written)} of ${Words.count(total)} results. --follow waits for the rest.`)
  }
  return failed > 0 ? ExitCode.someFailed : ExitCode.ok
})
