/** `/v1/files` and `/v1/batches`: OpenAI's Batch API, on the gateway's own batches. */
import * as NodeMultipart from "@effect/platform-node/NodeMultipart"
import type * as Batch from "@sluice/batch/Batch"
import { Batches } from "@sluice/batch/Batches"
import { type File, Files } from "@sluice/batch/Files"
import * as BoundedJson from "@sluice/core/BoundedJson"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Multipart from "effect/http/Multipart"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import type { IncomingMessage, ServerResponse } from "node:http"
import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import { Cutter } from "../openai/Cutter.ts"
import * as Lines from "../openai/Line.ts"
import * as Objects from "../openai/Objects.ts"
import * as Results from "../openai/Results.ts"
import * as Clients from "./Clients.ts"
import * as Refusal from "./Refusal.ts"

/** The largest file. OpenAI's own limit is 200 MB. */
const maxFileBytes = 2 ** 30
/** In characters. A longer line is refused by `Files`, so the rest of it is not needed. */
const longestLine = 2 ** 20 + 1
const maxBodyBytes = 2 ** 20
const maxDepth = 16
const pageSize = { usual: 20, most: 100, files: 10_000 }

/** A create that a client repeats within this time returns the first batch. */
const repeatMillis = 600_000

const metadataLimits = { pairs: 16, name: 64, value: 512 }

/** Whether a path belongs to the API. */
export const isOwn = (path: string): boolean => /^\/v1\/(?:files|batches)(?:\/|$)/.test(path)

/** Answers a request of the API. */
export const answer = (
  context: Context.Context<Batches | Files>,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  client: Clients.Client
): void => {
  const refuse = (refusal: Refusal.Refusal) => Refusal.send(response, path, refusal)
  if (Clients.isLimited(client)) return refuse(limited)
  const [, , kind, id, action] = path.split("/")
  const call: Call = { request, response, client, query: new URLSearchParams(request.url?.split("?")[1] ?? "") }
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
      else refuse(error._tag === "None" ? defect : refusalOf(error.value))
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
  readonly query: URLSearchParams
}

class Refused {
  readonly _tag = "Refused"
  readonly refusal: Refusal.Refusal

  constructor(status: number, code: string, message: string) {
    this.refusal = { status, code, message }
  }
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

const upload: Route = ({ client, request, response }) =>
  Effect.gen(function*() {
    if (!/^multipart\/form-data\b/i.test(request.headers["content-type"] ?? "")) {
      return yield* Effect.fail(new Refused(415, "unsupported_media_type", "Send the file as multipart/form-data."))
    }
    const files = yield* Files
    let purpose: string | undefined
    let file: File | undefined
    // Whatever is wrong with the rest of the form, its client does not know the file.
    const forget = Effect.suspend(() => file === undefined ? Effect.void : Effect.ignore(files.remove(file.id)))
    const read = NodeMultipart.stream(request, request.headers).pipe(
      Stream.provideContext(Multipart.limitsServices({ maxFileSize: maxFileBytes, maxParts: 8 })),
      Stream.mapError(() => malformedForm),
      Stream.runForEach((part) =>
        Effect.gen(function*() {
          if (part._tag === "Field") {
            if (part.key === "purpose") purpose = part.value
            return
          }
          if (part.key !== "file" || file !== undefined) return yield* Stream.runDrain(part.content).pipe(Effect.ignore)
          const cutter = new Cutter(longestLine)
          const lines = part.content.pipe(
            Stream.mapError(() => malformedForm),
            Stream.decodeText(),
            Stream.map((text) => cutter.push(text)),
            Stream.concat(Stream.sync(() => cutter.end())),
            Stream.flattenIterable
          )
          file = yield* files.upload({ name: part.name, purpose: "batch", owner: client.name }, lines)
        })
      )
    )
    const checked = Effect.suspend((): Effect.Effect<File, Refused> => {
      if (purpose !== "batch") {
        return Effect.fail(
          new Refused(400, "invalid_purpose", "purpose must be batch. The gateway keeps no other files.")
        )
      }
      return file === undefined
        ? Effect.fail(new Refused(400, "missing_file", "The form has no field file."))
        : Effect.succeed(file)
    })
    send(response, Objects.fileObject(yield* Effect.onError(Effect.andThen(read, checked), () => forget)))
  })

const listFiles: Route = ({ client, query, response }) =>
  Effect.gen(function*() {
    const limit = limitOf(query, pageSize.files, pageSize.files)
    const files = yield* Files
    const found = yield* files.list({
      owner: ownerOf(client),
      after: query.get("after") ?? undefined,
      limit: limit + 1
    })
    const page = found.slice(0, limit)
    send(response, Objects.listObject(page.map(Objects.fileObject), page.map(({ id }) => id), found.length > limit))
  })

const getFile: Route = ({ client, response }, id) =>
  Effect.gen(function*() {
    const results = Objects.batchOf(id)
    if (results === undefined) return send(response, Objects.fileObject(yield* ownFile(client, id)))
    const batch = yield* endedBatch(client, id, results)
    send(response, Objects.resultFileObject(batch, results.kind))
  })

const getContent: Route = ({ client, response }, id) =>
  Effect.gen(function*() {
    const results = Objects.batchOf(id)
    if (results === undefined) {
      yield* ownFile(client, id)
      const files = yield* Files
      return yield* sendLines(response, Stream.map(files.lines(id), (line) => `${line}\n`))
    }
    const batch = yield* endedBatch(client, id, results)
    const batches = yield* Batches
    yield* sendLines(
      response,
      batches.results(batch.id, { order: "input" }).pipe(
        Stream.filter(({ kind }) => (kind === "ok") === (results.kind === "output")),
        Stream.map((result) => Results.openAiLine(batch.id, result))
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
    const body = yield* readBody(request)
    const { completion_window: window, endpoint, input_file_id: file, metadata } = body
    if (typeof file !== "string") {
      return yield* Effect.fail(new Refused(400, "missing_input_file_id", "input_file_id must be the id of a file."))
    }
    if (typeof endpoint !== "string" || !Lines.endpoints.some((one) => one === endpoint)) {
      return yield* Effect.fail(
        new Refused(400, "invalid_endpoint", `endpoint must be one of ${Lines.endpoints.join(", ")}.`)
      )
    }
    const expires = windowOf(window)
    if (expires === undefined) {
      return yield* Effect.fail(
        new Refused(400, "invalid_completion_window", "completion_window must be a time such as 24h or 7d.")
      )
    }
    const own = metadataOf(metadata)
    if (own === undefined) {
      return yield* Effect.fail(
        new Refused(400, "invalid_metadata", "metadata must be at most 16 texts of 512 characters, with names of 64.")
      )
    }
    yield* ownFile(client, file)
    const batches = yield* Batches
    const all = { ...own, [Objects.windowKey]: String(window) }
    const repeated = yield* repeatOf(client, request, { file, endpoint, metadata: all })
    const id = repeated ?? (yield* batches.submit(
      { file, endpoint, metadata: all, expires, source: file, owner: client.name, name: own["description"] },
      Stream.empty
    ))
    send(response, Objects.batchObject(yield* batches.status(id)))
  })

/** The batch of a request that the client sends again because it got no answer. */
const repeatOf = (
  client: Clients.Client,
  request: IncomingMessage,
  { endpoint, file, metadata }: { readonly file: string; readonly endpoint: string; readonly metadata: object }
) =>
  Effect.gen(function*() {
    if (!(Number(request.headers["x-stainless-retry-count"] ?? 0) > 0)) return undefined
    const batches = yield* Batches
    const recent = yield* batches.list({ owner: client.name, createdWithin: repeatMillis, limit: pageSize.most })
    return recent.find((batch) =>
      batch.source === file && batch.endpoint === endpoint &&
      JSON.stringify(batch.metadata) === JSON.stringify(metadata)
    )?.id
  })

const listBatches: Route = ({ client, query, response }) =>
  Effect.gen(function*() {
    const limit = limitOf(query, pageSize.usual, pageSize.most)
    const batches = yield* Batches
    const found = yield* batches.list({
      owner: ownerOf(client),
      after: query.get("after") ?? undefined,
      limit: limit + 1
    })
    const page = found.slice(0, limit)
    send(response, Objects.listObject(page.map(Objects.batchObject), page.map(({ id }) => id), found.length > limit))
  })

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
const ownerOf = (client: Clients.Client): string | undefined => client.isAdmin ? undefined : client.name

const ownFile = (client: Clients.Client, id: string) =>
  Effect.gen(function*() {
    const files = yield* Files
    const file = yield* files.find(id)
    // A client does not learn whether another one has such a file.
    if (!client.isAdmin && file.owner !== client.name) return yield* Effect.fail(fileUnknown(id))
    return file
  })

const ownBatch = (client: Clients.Client, id: string) =>
  Effect.gen(function*() {
    const batches = yield* Batches
    const batch = yield* batches.status(id)
    if (!client.isAdmin && batch.owner !== client.name) return yield* Effect.fail(batchUnknown(id))
    return batch
  })

/** The batch of a file of results, if it has one of this kind. */
const endedBatch = (
  client: Clients.Client,
  file: string,
  { batch: id, kind }: { readonly batch: string; readonly kind: "output" | "error" }
) =>
  Effect.gen(function*() {
    const batch = yield* Effect.catchTag(ownBatch(client, id), "BatchNotFound", () => Effect.fail(fileUnknown(file)))
    const count = kind === "output" ? batch.ok : Objects.failedOf(batch)
    return batch.endedAt === undefined || count === 0 ? yield* Effect.fail(fileUnknown(file)) : batch
  })

const malformedForm = new Refused(400, "invalid_file", "The form is malformed, or its file is larger than 1 GiB.")
const fileUnknown = (id: string) => new Refused(404, "file_not_found", `No such file: ${clip(id)}`)
const batchUnknown = (id: string) => new Refused(404, "batch_not_found", `No such batch: ${clip(id)}`)

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

const windowOf = (window: unknown): Duration.Duration | undefined => {
  const [, count, unit] = /^(\d{1,4})([hd])$/.exec(typeof window === "string" ? window : "") ?? []
  if (count === undefined || Number(count) === 0) return undefined
  return unit === "h" ? Duration.hours(Number(count)) : Duration.days(Number(count))
}

const metadataOf = (metadata: unknown): { readonly [name: string]: string } | undefined => {
  if (metadata === undefined || metadata === null) return {}
  if (!isObject(metadata)) return undefined
  const pairs = Object.entries(metadata)
  const isFit = pairs.length <= metadataLimits.pairs &&
    pairs.every(([name, value]) =>
      name.length <= metadataLimits.name && !name.startsWith("\u0001") && typeof value === "string" &&
      value.length <= metadataLimits.value
    )
  return isFit ? Object.fromEntries(pairs.map(([name, value]) => [name, String(value)])) : undefined
}

const limitOf = (query: URLSearchParams, usual: number, most: number): number => {
  const limit = Number(query.get("limit") ?? usual)
  return Number.isInteger(limit) && limit > 0 ? Math.min(limit, most) : usual
}

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

const defect: Refusal.Refusal = {
  status: 500,
  code: "internal_error",
  message: "The gateway cannot answer this request.",
  headers: { "x-should-retry": "false" }
}
