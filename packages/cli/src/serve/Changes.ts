/** Changes by hand. That of a target has a reason, and an end unless none is chosen. A batch can be cancelled. */
import { type BatchNotFound, type BatchStoreError, isEnded, type Status } from "@sluice/batch/Batch"
import type { Front } from "@sluice/ai/Front"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { IncomingMessage, ServerResponse } from "node:http"
import { text } from "node:stream/consumers"
import * as Audit from "../fleet/Audit.ts"
import * as Checks from "./Checks.ts"
import type { Client } from "./Clients.ts"
import type { Live } from "./Live.ts"
import type { Logs } from "./Logs.ts"
import * as Refusal from "./Refusal.ts"

/** `open`: no calls. `close`: calls, also while they fail. `reset`: the circuit decides. `drain`: no new calls. */
const actions = ["open", "close", "reset", "drain"] as const

/** A change as the live page shows it. */
export type Change = TargetChange | Cancel

interface Cancel extends Pick<Audit.Entry, "id" | "at" | "who"> {
  readonly batch: string
  readonly what: "cancel"
}

interface TargetChange extends Pick<Audit.Entry, "id" | "at" | "what" | "reason" | "forMs" | "who"> {
  /** The name of the target. A circuit or quota of another program has its key. */
  readonly target: string
}

/** Circuits of the gateway's targets have this before the name. */
export const keyPrefix = "gateway/"

export const changeOf = ({ kind, name, ...entry }: Audit.Entry): Change =>
  kind === "batch"
    ? { id: entry.id, at: entry.at, batch: name, what: "cancel", who: entry.who }
    : { ...entry, target: kind === "circuit" && name.startsWith(keyPrefix) ? name.slice(keyPrefix.length) : name }

export interface Surroundings {
  readonly current: () => { readonly front: Pick<Front["Service"], "control" | "reset" | "targets"> }
  readonly audit: Audit.Audit["Service"]
  readonly live: Live
  readonly logs: Logs
  readonly pages: { readonly sample: () => Promise<void>; readonly askBatches: () => Promise<void> }
  /** `undefined` without batches. */
  readonly batches:
    | { readonly cancel: (id: string) => Effect.Effect<Status, BatchNotFound | BatchStoreError> }
    | undefined
}

const maxBytes = 4_096

const form = /^\/sluice\/(targets|batches)\/([^/]+)\/([^/]+)$/

/** Answers a change by hand. Returns false if the path has none. */
export const answer = (
  surroundings: Surroundings,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  client: Client
): boolean => {
  const make = request.method === "POST" ? makerOf(surroundings, path, client.name) : undefined
  if (make === undefined) return false
  const refusal = Checks.origin(request) ?? Checks.contentType(request, path) ?? lengthOf(request)
  if (refusal !== undefined) {
    Refusal.send(response, path, refusal)
    return true
  }
  void respond(surroundings, request, response, path, make)
  return true
}

type Maker = (body: string) => Effect.Effect<Change | Refusal.Refusal>

/** What a path changes. `undefined` if there is no such path. */
const makerOf = (surroundings: Surroundings, path: string, who: string): Maker | undefined => {
  const [, kind, name = "", action] = form.exec(path) ?? []
  const { batches } = surroundings
  if (kind === "batches") {
    return batches !== undefined && action === "cancel" ? () => cancelled(surroundings, batches, name, who) : undefined
  }
  const what = actions.find((one) => one === action)
  return what === undefined ? undefined : (body) => made(surroundings, what, name, body, who)
}

const respond = async (
  { logs }: Surroundings,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  make: Maker
): Promise<void> => {
  const body = await text(request).catch(() => undefined)
  // The client left.
  if (body === undefined) return
  try {
    const made = await Effect.runPromise(make(body))
    if ("status" in made) return Refusal.send(response, path, made)
    response.writeHead(200, { "content-type": "application/json", "cache-control": "no-store" })
    response.end(JSON.stringify(made))
  } catch (error) {
    logs.error("defect", { type: error instanceof Error ? error.name : typeof error })
    response.destroy()
  }
}

const lengthOf = ({ headers }: IncomingMessage): Refusal.Refusal | undefined =>
  headers["transfer-encoding"] === undefined && Number(headers["content-length"] ?? 0) <= maxBytes ? undefined : {
    status: 413,
    code: "request_too_large",
    message: `The body must have a content-length of at most ${maxBytes} bytes.`
  }

const Asked = Schema.fromJsonString(
  Schema.Struct({ reason: Schema.String, forMs: Schema.optionalKey(Schema.NullOr(Schema.Number)) })
)

/** Changes a target, and tells the pages and the log. Returns a refusal if nothing was changed. */
const made = (
  surroundings: Surroundings,
  what: typeof actions[number],
  target: string,
  body: string,
  who: string
): Effect.Effect<Change | Refusal.Refusal> =>
  Effect.gen(function*() {
    const { current, logs } = surroundings
    const { front } = current()
    const targets = yield* front.targets
    if (!targets.some(({ name }) => name === target)) return notFound(targets.map(({ name }) => name))
    const asked = Schema.decodeUnknownOption(Asked)(body)
    if (asked._tag === "None") return unprocessable(`The body must be like {"reason": "...", "forMs": 3600000}.`)
    const reason = Audit.readReason(asked.value.reason)
    if (reason === undefined) return unprocessable(`reason ${Audit.reasonRule}.`)
    const { leastMillis, mostMillis } = Audit
    const { forMs = what === "reset" ? null : Audit.defaultMillis } = asked.value
    if (forMs !== null && what === "reset") return unprocessable("reset has no forMs: the circuit decides from now on.")
    if (forMs !== null && !(Number.isInteger(forMs) && forMs >= leastMillis && forMs <= mostMillis)) {
      return unprocessable(
        `forMs must be whole milliseconds from ${leastMillis} to ${mostMillis}, or null to have no end.`
      )
    }
    yield* what === "reset" ? front.reset({ target, reason }) : front.control({
      target,
      reason,
      mode: what === "close" ? "ForcedClosed" : "ForcedOpen",
      ...(forMs === null ? {} : { for: Duration.millis(forMs) })
    })
    logs.info("changed by hand", { target, what, reason, forMillis: forMs ?? undefined, who })
    return yield* kept(surroundings, { kind: "circuit", name: keyPrefix + target, what, reason, forMs, who })
  }).pipe(
    // The front was replaced, and has no such target any more.
    Effect.catchTag("InvalidOptions", () => Effect.succeed(notFound([]))),
    Effect.catchTag("StoreError", () => Effect.succeed(unreachable))
  )

/** Shows a change that was made on all pages, and keeps it in the store. */
const kept = (
  { audit, live, logs, pages }: Surroundings,
  fields: Omit<Audit.Entry, "id" | "at">
): Effect.Effect<Change> =>
  Effect.gen(function*() {
    const entry = Audit.entry({ ...fields, at: yield* Clock.currentTimeMillis })
    const change = changeOf(entry)
    live.changed(change)
    yield* audit.add(entry).pipe(
      Effect.catchTag("StoreError", ({ description }) =>
        Effect.sync(() =>
          logs.error("a change by hand is not in the store", { name: fields.name, why: description })
        ))
    )
    yield* Effect.promise(() => pages.sample())
    return change
  })

/** Cancels a batch. Calls that run are finished, and their answers are kept. */
const cancelled = (
  surroundings: Surroundings,
  batches: NonNullable<Surroundings["batches"]>,
  batch: string,
  who: string
): Effect.Effect<Change | Refusal.Refusal> =>
  Effect.gen(function*() {
    const { state } = yield* batches.cancel(batch)
    if (isEnded(state) && state !== "cancelled") return ended(state)
    surroundings.logs.info("changed by hand", { batch, what: "cancel", who })
    yield* Effect.promise(() => surroundings.pages.askBatches())
    return yield* kept(surroundings, { kind: "batch", name: batch, what: "cancel", reason: "", forMs: null, who })
  }).pipe(
    Effect.catchTag("BatchNotFound", () => Effect.succeed(batchNotFound)),
    Effect.catchTag("BatchStoreError", () => Effect.succeed(databaseDown))
  )

const batchNotFound: Refusal.Refusal = {
  status: 404,
  code: "batch_not_found",
  message: "There is no such batch. It may have been removed."
}

const ended = (state: string): Refusal.Refusal => ({
  status: 409,
  code: "batch_ended",
  message: `The batch has ended: ${state}.`
})

const databaseDown: Refusal.Refusal = {
  status: 503,
  code: "store_down",
  message: "The database of batches does not answer. Whether the batch was cancelled is unknown: look at the batch."
}

const notFound = (names: ReadonlyArray<string>): Refusal.Refusal => ({
  status: 404,
  code: "target_not_found",
  message: `There is no such target.${names.length === 0 ? "" : ` Targets: ${names.join(", ")}.`}`
})

const unprocessable = (message: string): Refusal.Refusal => ({ status: 422, code: "invalid_change", message })

const unreachable: Refusal.Refusal = {
  status: 503,
  code: "store_down",
  message: "The store of the circuits does not answer. Whether the change was made is unknown: look at the target."
}
