/** `/v1/files` and `/v1/batches`: OpenAI's Batch API, on the gateway's own batches. */
import type * as Batch from "@sluice/batch/Batch"
import { Batches } from "@sluice/batch/Batches"
import { Files } from "@sluice/batch/Files"
import * as BoundedJson from "@sluice/core/BoundedJson"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import type { IncomingMessage, ServerResponse } from "node:http"
import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import * as Lines from "../openai/Line.ts"
import * as Objects from "../openai/Objects.ts"
import * as Results from "../openai/Results.ts"
import * as Clients from "./Clients.ts"
import * as Refusal from "./Refusal.ts"
import { Refused } from "./Refusal.ts"
import * as Upload from "./Upload.ts"

const maxBodyBytes = 2 ** 20
const maxDepth = 16

/** How many objects a page has: usually and at most, as at OpenAI. */
const pages = { batches: { usual: 20, most: 100 }, files: { usual: 10_000, most: 10_000 } }

const metadataLimits = { pairs: 16, name: 64, value: 512 }

/** Whether a path belongs to the API. */
export const isOwn = (path: string): boolean => /^\/v1\/(?:files|batches)(?:\/|$)/.test(path)

/** Answers a request of the API. */
export const answer = (
  context: Context.Context<Batches | Files>,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  client: Clients.Client,
  limits: Upload.Limits
): void => {
  const refuse = (refusal: Refusal.Refusal) => Refusal.send(response, path, refusal)
  if (Clients.isLimited(client)) return refuse(limited)
  const [, , kind, id, action] = path.split("/")
  const call: Call = { request, response, client, limits, query: new URLSearchParams(request.url?.split("?")[1] ?? "") }
  const route =
    routes[`${request.method} ${kind}${id === undefined ? "" : "/ID"}${action === undefined ? "" : `/${action}`}`]
  if (route === undefined) return refuse(unknown)
  const run = route(call, decoded(id ?? ""))
  const controller = new AbortController()
  // What a client that left waits for is of no use.
  response.once("close", () => controller.abort())
  const refusing = Effect.catchCause(run, (cause) => {
    if (Cause.hasInterrupts(cause)) return Effect.void
    const error = Cause.findErrorOption(cause)
    const refused = Effect.sync(() => {
      if (response.headersSent) response.destroy()
      else refuse(error._tag === "None" ? Refusal.defect : refusalOf(error.value))
    })
    return error._tag === "None"
      ? Effect.andThen(Effect.logError("A request for batches failed unexpectedly", cause), refused)
      : refused
  })
  void Effect.runPromiseExitWith(context)(refusing, { signal: controller.signal })
}

const decoded = (id: string): string => {
  try {
    return decodeURIComponent(id)
  } catch {
    return id
  }
}

interface Call {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly client: Clients.Client
  readonly limits: Upload.Limits
  readonly query: URLSearchParams
}

type ApiError =
  | Refused
  | Batch.BatchNotFound
  | Batch.BatchStoreError
  | Batch.FileInUse
  | Batch.FileNotFound
  | Batch.InvalidRequest
  | InvalidOptions

type Route = (call: Call, id: string) => Effect.Effect<void, ApiError, Batches | Files>

// ---------- files

const upload: Route = ({ client, limits, request, response }) =>
  Effect.map(Upload.read(request, client.owner, limits), (file) => send(response, Objects.fileObject(file)))

const listFiles: Route = (call) =>
  Effect.gen(function*() {
    const { query } = call
    const order = query.get("order") ?? "desc"
    if (order !== "asc" && order !== "desc") {
      return yield* Effect.fail(new Refused(400, "invalid_order", "order must be asc or desc.", "order"))
    }
    const purpose = query.get("purpose") ?? undefined
    const files = yield* Files
    yield* sendPage(call, pages.files, {
      find: (id) => ownFile(call.client, id, "after"),
      list: (page) => files.list({ ...page, order, purpose }),
      show: Objects.fileObject
    })
  })

const getFile: Route = ({ client, response }, id) =>
  Effect.map(ownFile(client, id), (file) => send(response, Objects.fileObject(file)))

const getContent: Route = ({ client, response }, id) =>
  Effect.gen(function*() {
    const { results } = yield* ownFile(client, id)
    if (results === undefined) {
      const files = yield* Files
      return yield* sendLines(response, Stream.map(files.lines(id), (line) => `${line}\n`))
    }
    const batches = yield* Batches
    yield* sendLines(
      response,
      batches.results(results.batch, { order: "input" }).pipe(
        Stream.filter(({ kind }) => (kind === "ok") === (results.kind === "output")),
        Stream.map((result) => Results.openAiLine(results.batch, result))
      )
    )
  })

const removeFile: Route = ({ client, response }, id) =>
  Effect.gen(function*() {
    yield* ownFile(client, id)
    const files = yield* Files
    yield* files.remove(id)
    send(response, { id, object: "file", deleted: true })
  })

// ---------- batches

const create: Route = ({ client, request, response }) =>
  Effect.gen(function*() {
    const { completion_window: window, endpoint, input_file_id: file, metadata } = yield* readBody(request)
    if (typeof file !== "string") {
      return yield* Effect.fail(invalid("input_file_id", "input_file_id must be the id of a file."))
    }
    if (typeof endpoint !== "string" || !Lines.endpoints.some((one) => one === endpoint)) {
      return yield* Effect.fail(invalid("endpoint", `endpoint must be one of ${Lines.endpoints.join(", ")}.`))
    }
    if (window !== Objects.completionWindow.name) {
      return yield* Effect.fail(
        invalid("completion_window", `completion_window must be ${Objects.completionWindow.name}.`)
      )
    }
    const own = metadataOf(metadata)
    if (own === undefined) {
      return yield* Effect.fail(
        invalid(
          "metadata",
          "metadata must be at most 16 texts of 512 characters, with names of 64, and without NUL and halves of characters."
        )
      )
    }
    yield* ownFile(client, file, "input_file_id")
    const batches = yield* Batches
    const id = yield* keyedId(client, request)
    // Also continues a batch whose gateway was killed before it had started. A client that leaves does not stop the start.
    const started = yield* Effect.uninterruptible(batches.submit(
      {
        ...(id === undefined ? { attempt: attemptOf(request) } : { id }),
        file,
        endpoint,
        metadata: own,
        expires: Objects.completionWindow.duration,
        source: file,
        owner: client.owner,
        name: own["description"]
      },
      Stream.empty
    ))
    const batch = yield* batches.status(started)
    if (batch.source !== file || batch.endpoint !== endpoint || !isEqual(batch.metadata, own)) {
      return yield* Effect.fail(keyReused)
    }
    send(response, Objects.batchObject(batch))
  })

/** How often the client has sent the request before, as the official clients say. */
const attemptOf = ({ headers }: IncomingMessage): number => {
  const count = Number(headers["x-stainless-retry-count"] ?? 0)
  return Number.isSafeInteger(count) && count > 0 ? count : 0
}

const maxKeyLength = 255

/** The id of the batch that a client names by a key of its own. All requests with this key are for this batch. */
const keyedId = ({ owner }: Clients.Client, { headers }: IncomingMessage) => {
  const key = headers["idempotency-key"]
  if (key === undefined) return Effect.undefined
  if (typeof key !== "string" || key === "" || key.length > maxKeyLength) return Effect.fail(keyInvalid)
  const hash = createHash("sha256").update(JSON.stringify([owner, key])).digest("hex")
  return Effect.succeed(`batch_${hash.slice(0, 32)}`)
}

type Texts = Batch.Status["metadata"]

const isEqual = (one: Texts, other: Texts): boolean =>
  Object.keys(one).length === Object.keys(other).length &&
  Object.entries(one).every(([name, value]) => other[name] === value)

const listBatches: Route = (call) =>
  Effect.flatMap(Batches, (batches) =>
    sendPage(call, pages.batches, {
      find: (id) => ownBatch(call.client, id, "after"),
      list: batches.list,
      show: Objects.batchObject
    }))

const getBatch: Route = ({ client, response }, id) =>
  Effect.map(ownBatch(client, id), (batch) => send(response, Objects.batchObject(batch)))

const cancel: Route = ({ client, response }, id) =>
  Effect.gen(function*() {
    yield* ownBatch(client, id)
    const batches = yield* Batches
    send(response, Objects.batchObject(yield* batches.cancel(id)))
  })

const routes: { readonly [route: string]: Route | undefined } = {
  "POST files": upload,
  "GET files": listFiles,
  "GET files/ID": getFile,
  "GET files/ID/content": getContent,
  "DELETE files/ID": removeFile,
  "POST batches": create,
  "GET batches": listBatches,
  "GET batches/ID": getBatch,
  "POST batches/ID/cancel": cancel
}

// ---------- who may see what

/** An admin sees those of all. */
const ownerOf = (client: Clients.Client): string | undefined => client.isAdmin ? undefined : client.owner

/** `param` is the field of the request that has the id. A client does not learn whether another one has such a file. */
const ownFile = (client: Clients.Client, id: string, param?: string) =>
  Effect.gen(function*() {
    const files = yield* Files
    const file = yield* Effect.catchTag(files.find(id), "FileNotFound", () => Effect.fail(fileUnknown(id, param)))
    return isOf(client, file) ? file : yield* Effect.fail(fileUnknown(id, param))
  })

const ownBatch = (client: Clients.Client, id: string, param?: string) =>
  Effect.gen(function*() {
    const batches = yield* Batches
    const batch = yield* Effect.catchTag(
      batches.status(id),
      "BatchNotFound",
      () => Effect.fail(batchUnknown(id, param))
    )
    return isOf(client, batch) ? batch : yield* Effect.fail(batchUnknown(id, param))
  })

const isOf = (client: Clients.Client, { owner }: { readonly owner: string | undefined }): boolean =>
  client.isAdmin || owner === client.owner

const invalid = (param: string, message: string) => new Refused(400, `invalid_${param}`, message, param)
const fileUnknown = (id: string, param?: string) =>
  new Refused(404, "file_not_found", `No such file: ${clip(id)}`, param)
const batchUnknown = (id: string, param?: string) =>
  new Refused(404, "batch_not_found", `No such batch: ${clip(id)}`, param)

const keyInvalid = new Refused(
  400,
  "invalid_idempotency_key",
  `Idempotency-Key must have 1 to ${maxKeyLength} characters.`
)
const keyReused = new Refused(
  422,
  "idempotency_key_reused",
  "A batch with this Idempotency-Key has another file, endpoint or metadata. Use a new key for each batch."
)

const clip = (id: string): string => id.replaceAll(/[^\w-]/g, "").slice(0, 100)

// ---------- reading and writing

const readBody = (request: IncomingMessage): Effect.Effect<{ readonly [name: string]: unknown }, Refused> =>
  Effect.gen(function*() {
    const text = yield* Effect.tryPromise({
      try: async () => {
        const chunks: Array<Uint8Array> = []
        let bytes = 0
        for await (const chunk of request) {
          bytes += chunk.length
          if (bytes > maxBodyBytes) throw new Error("too large")
          chunks.push(chunk)
        }
        return Buffer.concat(chunks).toString()
      },
      catch: () => new Refused(413, "request_too_large", "The body of the request is larger than 1 MiB.")
    })
    const parsed = BoundedJson.parse(text, maxDepth)
    const json = Result.isSuccess(parsed) ? parsed.success : undefined
    return isObject(json)
      ? json
      : yield* Effect.fail(new Refused(400, "invalid_body", "The body must be a JSON object."))
  })

const isObject = (value: unknown): value is { readonly [name: string]: unknown } =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const metadataOf = (metadata: unknown): Texts | undefined => {
  if (metadata === undefined || metadata === null) return {}
  if (!isObject(metadata)) return undefined
  const pairs: Array<[string, string]> = []
  for (const [name, value] of Object.entries(metadata)) {
    if (typeof value !== "string" || !isText(name, metadataLimits.name) || !isText(value, metadataLimits.value)) {
      return undefined
    }
    pairs.push([name, value])
  }
  return pairs.length <= metadataLimits.pairs ? Object.fromEntries(pairs) : undefined
}

/** Whether every database can store it. */
const isText = (text: string, most: number): boolean =>
  text.length <= most && text.isWellFormed() && !text.includes("\0")

/** Answers with a page of the client's objects. */
const sendPage = <A extends { readonly id: string }>(
  { client, query, response }: Call,
  { most, usual }: { readonly usual: number; readonly most: number },
  { find, list, show }: {
    /** Fails if the client has no such object. */
    readonly find: (id: string) => Effect.Effect<A, Refused | Batch.BatchStoreError, Batches | Files>
    readonly list: (page: {
      readonly owner: string | undefined
      readonly after: string | undefined
      readonly limit: number
    }) => Effect.Effect<
      ReadonlyArray<A>,
      Batch.BatchNotFound | Batch.FileNotFound | Batch.BatchStoreError | InvalidOptions
    >
    readonly show: (object: A) => object
  }
) =>
  Effect.gen(function*() {
    const limit = /^\d{1,5}$/.test(query.get("limit") ?? `${usual}`) ? Number(query.get("limit") ?? usual) : 0
    if (limit < 1 || limit > most) {
      return yield* Effect.fail(invalid("limit", `limit must be a whole number from 1 to ${most}.`))
    }
    const after = query.get("after") ?? undefined
    if (after !== undefined) yield* find(after)
    const found = yield* list({ owner: ownerOf(client), after, limit: limit + 1 })
    const page = found.slice(0, limit)
    send(response, Objects.listObject(page.map(show), page.map(({ id }) => id), found.length > limit))
  })

const send = (response: ServerResponse, body: object): void => {
  const text = JSON.stringify(body)
  response.writeHead(200, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store"
  })
  response.end(text)
}

const sendLines = <E>(response: ServerResponse, lines: Stream.Stream<string, E>): Effect.Effect<void, E | Refused> =>
  Effect.tryPromise({
    try: () => {
      response.writeHead(200, { "content-type": "application/jsonl", "cache-control": "no-store" })
      return pipeline(Readable.from(Stream.toAsyncIterable(lines)), response)
    },
    catch: () => new Refused(500, "internal_error", "The file could not be read.")
  })

// ---------- refusals

const refusalOf = (error: ApiError): Refusal.Refusal => {
  switch (error._tag) {
    case "Refused":
      return error.refusal
    case "BatchNotFound":
      return batchUnknown(error.id).refusal
    case "FileNotFound":
      return fileUnknown(error.id).refusal
    case "FileInUse":
      return { status: 409, code: "file_in_use", message: error.message }
    case "BatchStoreError":
      return {
        status: 503,
        code: "store_unavailable",
        message: "The database of batches does not answer.",
        headers: { "retry-after": "5" }
      }
    case "InvalidOptions":
    case "InvalidRequest":
      return { status: 400, code: "invalid_request", message: error.message }
  }
}

const limited: Refusal.Refusal = {
  status: 403,
  code: "key_is_limited",
  message: "A key with limits may not use files and batches: their requests would pass its limits."
}

const unknown: Refusal.Refusal = {
  status: 404,
  code: "not_found",
  message: "No such path. Files and batches are at /v1/files and /v1/batches."
}
