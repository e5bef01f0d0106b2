/** Uploading, checking and reading files of requests. */
import * as BoundedJson from "@sluice/core/BoundedJson"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import type * as Duration from "effect/Duration"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { type BatchStoreError, FileInUse, FileNotFound } from "../Batch.ts"
import type { File, Files, ListOptions, Problem, UploadOptions } from "../Files.ts"
import { store } from "./store.ts"
import * as Batches from "./tables/batches.ts"
import * as Db from "./tables/db.ts"
import * as Tables from "./tables/files.ts"
import * as Items from "./tables/items.ts"
import * as Results from "./tables/results.ts"
import { isStorable, toStorable } from "./text.ts"

const known: { readonly [K in keyof UploadOptions]-?: true } = { name: true, purpose: true, owner: true, expires: true }

const hour = 3_600_000

/** Returns after how many milliseconds the file expires. */
const readOptions = (input: UploadOptions): Effect.Effect<number, InvalidOptions> => {
  const reader = new OptionsReader("Files")
  const { expires = "30 days", owner, purpose } = reader.object("options", input, known)
  for (const [option, text] of Object.entries({ purpose, owner })) {
    if (text !== undefined && !isStorable(text)) {
      reader.refuse(option, text, "must have no NUL and no half of a surrogate pair")
    }
  }
  return reader.check(expiryOf(reader, expires))
}

/** In milliseconds. */
const expiryOf = (reader: OptionsReader, expires: Duration.Input): number =>
  reader.millis("expires", expires, hour, 10 * 365 * 24 * hour)

const knownOfList: { readonly [K in keyof ListOptions]-?: true } = {
  owner: true,
  purpose: true,
  order: true,
  after: true,
  limit: true
}

const readListOptions = (input: ListOptions) => {
  const reader = new OptionsReader("Files")
  const { after, limit = 100, order = "desc", owner, purpose } = reader.object("options", input, knownOfList)
  reader.integer("limit", limit, 1)
  reader.oneOf("order", order, ["asc", "desc"])
  return reader.check({ after, limit, order, owner, purpose: purpose === undefined ? undefined : toStorable(purpose) })
}

const linesAtOnce = { rows: 1_000, bytes: 8 * 2 ** 20 }

const maxDepth = 64

/** More would not help the uploader. */
const maxProblems = 100

export const make = Effect.gen(function*() {
  const db = yield* Db.make

  const upload = <E, R>(
    options: UploadOptions,
    lines: Stream.Stream<string, E, R>
  ): Effect.Effect<File, InvalidOptions | BatchStoreError | E, R> =>
    Effect.gen(function*() {
      const expiresMillis = yield* readOptions(options)
      const id = `file-${SecureRandom.uuidV4Unsafe().replaceAll("-", "")}`
      const file = yield* store(
        "add a file",
        Tables.begin(db, {
          id,
          owner: options.owner,
          purpose: options.purpose,
          // A client chooses it, and its file is not refused for it.
          name: toStorable(options.name),
          expiresMillis
        })
      )
      const reader = new Reader()
      yield* lines.pipe(
        Stream.mapAccum(() => reader, (reader, line) => [reader, reader.add(line)], {
          onHalt: (reader) => reader.end()
        }),
        // While the database stores one group, the next is read and checked.
        Stream.buffer({ capacity: 1 }),
        Stream.runForEach((group) => addGroup(db, file, reader, group)),
        Effect.andThen(Effect.suspend(() => store("add a file", Tables.complete(db, file, reader.outcome)))),
        Effect.onExit((exit) =>
          Exit.isSuccess(exit) ? Effect.void : Effect.ignore(Tables.remove(db, file, Db.deletedAtOnce))
        )
      )
      return toFile(yield* Effect.catchTag(findFile(db, id), "FileNotFound", Effect.die))
    })

  return {
    upload,
    find: (id: string) => Effect.map(findAny(db, id), toFile),
    list: (options: ListOptions = {}) =>
      Effect.gen(function*() {
        const { after, ...page } = yield* readListOptions(options)
        const last = after === undefined ? undefined : yield* findAny(db, after)
        const rows = yield* store("list files", Tables.list(db, { ...page, after: last }))
        return rows.map(toFile)
      }),
    bytesOf: (owner: string) => store("read the files", Tables.bytesOf(db, owner)),
    lines: (id: string) =>
      Stream.unwrap(Effect.map(findFile(db, id), ({ file }) =>
        Stream.flattenIterable(
          Stream.unfold<number, ReadonlyArray<string>, BatchStoreError, never>(
            -1,
            (after) =>
              Effect.map(store("read a file", Tables.page(db, file, after, linesAtOnce)), (rows) => {
                const last = rows.at(-1)
                return last === undefined ? undefined : [rows.map(({ request }) => request), last.seq] as const
              })
          )
        ))),
    expire: (id: string, expires: Duration.Input) =>
      Effect.gen(function*() {
        const reader = new OptionsReader("Files")
        const millis = yield* reader.check(expiryOf(reader, expires))
        const { file } = yield* findFile(db, id)
        yield* store("change a file", Tables.expireAfter(db, file, millis))
        return toFile(yield* findFile(db, id))
      }),
    remove: (id: string) =>
      Effect.gen(function*() {
        const { file, results } = yield* findAny(db, id)
        if (results !== undefined) return yield* removeResults(db, id, results)
        const isHidden = yield* store("remove a file", Tables.hide(db, file))
        if (!isHidden) return yield* new FileInUse({ id })
        yield* store("remove a file", Tables.remove(db, file, Db.deletedAtOnce))
      })
  } satisfies Files["Service"]
})

/** The file goes last, so that an interrupted removal can be repeated. */
const removeResults = (
  db: Db.Db,
  id: string,
  { batch: of, kind }: NonNullable<File["results"]>
): Effect.Effect<void, BatchStoreError | FileNotFound> =>
  Effect.gen(function*() {
    const batch = yield* store("remove a file", Batches.find(db, of))
    if (batch === undefined) return yield* new FileNotFound({ id })
    let from: number | undefined = 0
    do {
      from = yield* store(
        "remove a file",
        Results.erase(db, batch, kind === "output" ? "answers" : "others", { from, limit: Results.markedAtOnce(db) })
      )
      // It was started again.
      if (from === undefined) return yield* new FileNotFound({ id })
    } while (from > 0)
    yield* store("remove a file", Tables.removeResults(db, batch, kind))
  })

/** Checks the lines of one file, and cuts them into groups. */
class Reader {
  private readonly problems: Array<Problem> = []
  private group: Array<Items.Item> = []
  private groupBytes = 0
  private bytes = 0
  private lines = 0
  private url: string | undefined

  /** Returns the group that the line completes. */
  add(line: string): ReadonlyArray<ReadonlyArray<Items.Item>> {
    const size = Buffer.byteLength(line)
    this.bytes += size + 1
    if (line.trim() === "") return []
    const checked = check(line, size)
    if ("code" in checked) this.report(this.lines, checked)
    else {
      this.url ??= checked.url
      if (checked.url !== this.url) this.report(this.lines, mixed)
    }
    this.group.push({ seq: this.lines, key: "code" in checked ? null : checked.key, request: toStorable(line) })
    this.lines += 1
    this.groupBytes += size
    return this.group.length >= Items.atOnce.rows || this.groupBytes >= Items.atOnce.bytes ? this.end() : []
  }

  /** Returns the last group. */
  end(): ReadonlyArray<ReadonlyArray<Items.Item>> {
    const { group } = this
    this.group = []
    this.groupBytes = 0
    return group.length === 0 ? [] : [group]
  }

  report(seq: number | undefined, problem: Wrong): void {
    if (this.problems.length < maxProblems) {
      this.problems.push({ ...problem, line: seq === undefined ? undefined : seq + 1 })
    }
  }

  get outcome() {
    const { bytes, lines, problems, url } = this
    if (lines === 0) this.report(undefined, empty)
    return { bytes, lines, problems: problems.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0)), url }
  }
}

const addGroup = (
  db: Db.Db,
  file: number,
  reader: Reader,
  items: ReadonlyArray<Items.Item>
): Effect.Effect<void, BatchStoreError> =>
  Effect.flatMap(store("add requests", Tables.add(db, file, items)), (doubled) => {
    if (doubled.size === 0) return Effect.void
    const again = items.filter(({ seq }) => doubled.has(seq)).map(({ request, seq }) => ({ seq, key: null, request }))
    for (const { seq } of again) reader.report(seq, duplicate)
    // The content of the file is kept as it came.
    return Effect.asVoid(store("add requests", Tables.add(db, file, again)))
  })

type Wrong = Omit<Problem, "line">

const problem = (code: string, message: string, param?: string): Wrong => ({ code, message, param })

const mixed = problem("mixed_endpoints", "All lines of a file must have the same url.", "url")
const empty = problem("empty_file", "The file has no lines.")
const duplicate = problem("duplicate_custom_id", "Another line has this custom_id.", "custom_id")

const check = (line: string, bytes: number): { readonly key: string; readonly url: string } | Wrong => {
  if (bytes > Items.maxRequestBytes) return problem("line_too_large", "The line is larger than 1 MiB.")
  const parsed = BoundedJson.parse(line, maxDepth)
  if (Result.isFailure(parsed)) return problem("invalid_json_line", "The line is not JSON.")
  const json = parsed.success
  if (!isObject(json)) return problem("invalid_json_line", "The line is not a JSON object.")
  const { body, custom_id: key, method, url } = json
  if (typeof key !== "string" || key === "" || key.length > Items.maxKeyLength || !isStorable(key)) {
    return problem("invalid_custom_id", "custom_id must be a text of 1 to 512 characters without NUL.", "custom_id")
  }
  if (method !== "POST") return problem("invalid_method", "method must be POST.", "method")
  if (typeof url !== "string" || !/^\/v1\/[\w./-]{1,100}$/.test(url)) {
    return problem("invalid_url", "url must be the path of an endpoint, such as /v1/chat/completions.", "url")
  }
  if (!isObject(body)) return problem("invalid_body", "body must be a JSON object.", "body")
  if (body["stream"] === true) {
    return problem("stream_not_supported", "A batch has no streams. Leave out stream.", "body.stream")
  }
  return { key, url }
}

const isObject = (value: unknown): value is { readonly [name: string]: unknown } =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Why a batch at this endpoint cannot use the file. */
export const problemsOf = ({ problems, url }: Tables.FileRow, endpoint: string | undefined): ReadonlyArray<Problem> =>
  problems.length > 0 || endpoint === undefined || url === endpoint
    ? problems
    : [{
      ...problem("invalid_url", `The lines have the url ${url}, and the batch has the endpoint ${endpoint}.`, "url"),
      line: 1
    }]

/** Finds a file that was uploaded. */
export const findFile = (db: Db.Db, id: string): Effect.Effect<Tables.FileRow, BatchStoreError | FileNotFound> =>
  Effect.flatMap(
    // PostgreSQL fails for a text that it cannot store.
    isStorable(id) ? store("read a file", Tables.findUpload(db, id)) : Effect.undefined,
    (file) => file === undefined ? Effect.fail(new FileNotFound({ id })) : Effect.succeed(file)
  )

const findAny = (db: Db.Db, id: string): Effect.Effect<Tables.FileRow, BatchStoreError | FileNotFound> =>
  Effect.flatMap(
    isStorable(id) ? store("read a file", Tables.find(db, id)) : Effect.undefined,
    (file) => file === undefined ? Effect.fail(new FileNotFound({ id })) : Effect.succeed(file)
  )

const toFile = ({ file: _, url: __, ...file }: Tables.FileRow): File => file
