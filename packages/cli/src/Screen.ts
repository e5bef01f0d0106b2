/** A whole screen of a terminal that is drawn again and again. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Terminal from "./Terminal.ts"

export interface Size {
  readonly columns: number
  readonly rows: number
}

/** Whether standard output is a terminal that can be drawn on. Elsewhere, print lines. */
export const isDrawn = (): boolean =>
  process.stdout.isTTY && (process.env["NO_COLOR"] ?? "") === "" && process.env["TERM"] !== "dumb"

const enter = "\x1b[?1049h\x1b[?25l"
const leave = "\x1b[?25h\x1b[?1049l"

/**
 * Takes the screen until the scope closes, and returns what draws a text on it. Then the terminal shows what it showed before, and
 * below it the last text in full. The exit of the process gives the screen back too.
 */
export const take: Effect.Effect<(text: string) => void, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => {
      const { stdout } = process
      let last = ""
      const draw = (): void => {
        // Some terminals report no size, or 0.
        void stdout.write(frame(last, { columns: stdout.columns || 80, rows: stdout.rows || 24 }))
      }
      const restore = (): void => {
        process.off("exit", restore)
        stdout.off("resize", draw)
        stdout.write(`${leave}${last}`)
      }
      process.on("exit", restore)
      stdout.on("resize", draw)
      stdout.write(enter)
      const show = (text: string): void => {
        last = text
        draw()
      }
      return { restore, show }
    }),
    ({ restore }) => Effect.sync(restore)
  ),
  ({ show }) => show
)

/** A text in place of what a screen shows. Erases only what it does not overwrite, so that nothing flickers. */
export const frame = (text: string, { columns, rows }: Size): string => {
  const lines = text.trimEnd().split("\n")
  const shown = lines.length <= rows
    ? lines
    : [...lines.slice(0, rows - 1), `… ${lines.length - rows + 1} more lines, which a higher window shows`]
  // Leaves the last column free: some terminals wrap when it is written.
  return `\x1b[H${shown.map((line) => `${Terminal.clip(line, columns - 1)}\x1b[K`).join("\r\n")}\x1b[J`
}
