/** Measures each row in its own process. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { MeasuredRow } from "./report.ts"
import { type RowId, rowOf } from "./rows.ts"

export class RowFailed extends Schema.Error<RowFailed>("@sluice/bench/RowFailed")({
  _tag: Schema.tag("RowFailed"),
  row: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `row ${this.row} could not be measured: ${this.why}`
  }
}

const child = fileURLToPath(new URL("child.ts", import.meta.url))

export const measureRow = (id: RowId, isQuick: boolean): Effect.Effect<MeasuredRow, RowFailed> =>
  Effect.callback<unknown, RowFailed>((resume) => {
    const measuring = fork(child, [id, isQuick ? "quick" : "full"], {
      execArgv: [...process.execArgv, "--expose-gc"],
      // Standard output is for the results only.
      stdio: ["ignore", process.stderr, process.stderr, "ipc"]
    })
    measuring.once("message", (message) => resume(Effect.succeed(message)))
    measuring.once("error", (error) => resume(Effect.fail(new RowFailed({ row: id, why: error.message }))))
    measuring.once(
      "exit",
      (code, signal) =>
        resume(Effect.fail(new RowFailed({ row: id, why: `its process exited with ${signal ?? code}` })))
    )
    return Effect.sync(() => measuring.kill())
  }).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(MeasuredRow)),
    Effect.catchTag("SchemaError", (error) => Effect.fail(new RowFailed({ row: id, why: error.message })))
  )

/** Shows the running row on a terminal, until `endOfProgress`. */
export const progress = (id: RowId, index: number, total: number): void => {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${index + 1} of ${total}: ${rowOf(id).title}`)
}

export const endOfProgress = (): void => {
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[K")
}
