/** `sluice explain`: prints the record of one prompt from the log of a run. */
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { createReadStream, existsSync } from "node:fs"
import * as ExitCode from "../ExitCode.ts"
import * as CallRecord from "../run/CallRecord.ts"
import { Lines } from "../run/Lines.ts"
import * as Say from "../Say.ts"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"
import * as Explain from "./Explain.ts"

class LogError extends Schema.Error<LogError>("sluice/LogError")({
  _tag: Schema.tag("LogError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot read ${this.path}: ${this.why}`
  }
}

/** Prints the timeline and returns the exit code. */
export const execute = (id: string, path: string): Promise<number> =>
  Effect.runPromise(
    explain(id, path).pipe(
      Effect.catch((error) => Effect.as(sayError(`${error.message}${orderHint(id, path)}`), ExitCode.unusable))
    )
  )

/** A hint if the arguments are swapped: the first is a file and the second is not. */
const orderHint = (id: string, path: string): string =>
  existsSync(id) && !existsSync(path) ? "; the order is: sluice explain ID LOG" : ""

const sayError = (message: string): Effect.Effect<void> => Effect.sync(() => Say.error("sluice explain", message))

const explain = Effect.fnUntraced(function*(id: string, path: string) {
  const search = new Explain.Search(id)
  let records = 0
  yield* Stream.runForEach(recordsOf(path), (record) =>
    Effect.sync(() => {
      records++
      search.add(record)
    }))
  if (records === 0) return yield* new LogError({ path, why: "not a log of `sluice run --log`, or empty" })
  const { found } = search
  if (found.length === 0) {
    yield* sayError(`${path} has no prompt ${Terminal.clip(id, 60)}`)
    return ExitCode.someFailed
  }
  const leaders = yield* leadersOf(path, found)
  process.stdout.write(Explain.renderAll(found, leaders, process.stdout.columns || 80))
  return ExitCode.ok
})

/** Reads the records of the lines that made the calls that the found prompts shared. */
const leadersOf = (path: string, found: ReadonlyArray<CallRecord.CallRecord>) => {
  const calls = new Set(found.flatMap(({ call, how }) => how === "led" || call === undefined ? [] : [call]))
  const leaders = new Map<string, CallRecord.CallRecord>()
  return calls.size === 0 ? Effect.succeed(leaders) : Effect.as(
    Stream.runForEach(recordsOf(path), (record) =>
      Effect.sync(() => {
        if (record.how === "led" && record.call !== undefined && calls.has(record.call)) {
          leaders.set(record.call, record)
        }
      })),
    leaders
  )
}

const recordsOf = (path: string): Stream.Stream<CallRecord.CallRecord, LogError> =>
  Stream.suspend(() => {
    const lines = new Lines()
    const bytes = NodeStream.fromReadable<Uint8Array, LogError>({
      evaluate: () => createReadStream(path),
      onError: (error) => new LogError({ path, why: SystemError.describe(error) })
    })
    return Stream.concat(
      Stream.flattenIterable(Stream.map(bytes, (chunk) => lines.push(chunk))),
      Stream.suspend(() => Stream.fromIterable(lines.end()))
    )
  }).pipe(
    Stream.map((line) => line._tag === "Line" ? CallRecord.decode(line.text) : undefined),
    Stream.filter((record) => record !== undefined)
  )
