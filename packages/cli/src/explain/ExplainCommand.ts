/** `sluice explain`: what a run decided for one prompt, out of its log. */
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { createReadStream, existsSync } from "node:fs"
import * as ExitCode from "../ExitCode.ts"
import * as CallRecord from "../run/CallRecord.ts"
import { Lines } from "../run/Lines.ts"
import * as SystemError from "../run/SystemError.ts"
import * as Terminal from "../Terminal.ts"
import * as Explain from "./Explain.ts"

/** The log cannot be read. */
class LogError extends Schema.Error<LogError>("sluice/LogError")({
  _tag: Schema.tag("LogError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot read ${this.path}: ${this.why}`
  }
}

/** Prints the timeline, and tells the exit code. */
export const execute = (id: string, path: string): Promise<number> =>
  Effect.runPromise(
    explain(id, path).pipe(
      Effect.catch((error) => Effect.as(complain(`${error.message}${order(id, path)}`), ExitCode.unusable))
    )
  )

/** Where the file stands first, they were given the wrong way round. */
const order = (id: string, path: string): string =>
  existsSync(id) && !existsSync(path) ? "; the order is: sluice explain ID LOG" : ""

const complain = (message: string): Effect.Effect<void> =>
  Effect.sync(() => void process.stderr.write(`sluice explain: ${Terminal.escape(message)}\n`))

const explain = Effect.fnUntraced(function*(id: string, path: string) {
  const wanted = new Explain.Wanted(id)
  let records = 0
  yield* Stream.runForEach(recordsOf(path), (record) =>
    Effect.sync(() => {
      records++
      wanted.add(record)
    }))
  if (records === 0) return yield* new LogError({ path, why: "it is no log of `sluice run --log`, or it is empty" })
  const { found } = wanted
  if (found.length === 0) {
    yield* complain(`${path} has no prompt ${Terminal.clip(id, 60)}`)
    return ExitCode.someFailed
  }
  const leaders = yield* leadersOf(path, found)
  process.stdout.write(Explain.renderAll(found, leaders, process.stdout.columns || 80))
  return ExitCode.ok
})

/** The records of those who made the calls that others were answered by. */
const leadersOf = (path: string, found: ReadonlyArray<CallRecord.CallRecord>) => {
  const wanted = new Set(found.flatMap(({ call, how }) => how === "led" || call === undefined ? [] : [call]))
  const leaders = new Map<string, CallRecord.CallRecord>()
  return wanted.size === 0 ? Effect.succeed(leaders) : Effect.as(
    Stream.runForEach(recordsOf(path), (record) =>
      Effect.sync(() => {
        if (record.how === "led" && record.call !== undefined && wanted.has(record.call)) {
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
      Stream.flattenIterable(Stream.map(bytes, (piece) => lines.push(piece))),
      Stream.suspend(() => Stream.fromIterable(lines.end()))
    )
  }).pipe(
    Stream.map((line) => line._tag === "Line" ? CallRecord.decode(line.text) : undefined),
    Stream.filter((record) => record !== undefined)
  )
