/** Displays the progress of a command. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

export interface Screen {
  readonly write: (text: string) => void
  /** The current width, since windows are resized. */
  readonly columns: () => number
  /**
   * `live`: one line of a terminal, redrawn. `plain`: a line without escapes every ten seconds. `off`: nothing.
   */
  readonly mode: "live" | "plain" | "off"
}

/** Chooses the mode for this process. */
export const modeOf = (options: {
  readonly quiet: boolean
  readonly isTerminal: boolean
  /** Whether results go to the same terminal, where a live line would mix with them. */
  readonly isShared: boolean
  readonly env: { readonly [name: string]: string | undefined }
}): Screen["mode"] => {
  const { env, isShared, isTerminal, quiet } = options
  if (quiet) return "off"
  const wantsPlain = (env["NO_COLOR"] ?? "") !== "" || env["TERM"] === "dumb"
  return isTerminal && !isShared && !wantsPlain ? "live" : "plain"
}

/** Often enough to look live, at no noticeable cost. */
const liveInterval = Duration.millis(100)
/** Enough to show progress in a log. */
const plainInterval = Duration.seconds(10)

const hideCursor = "\x1b[?25l"
const showCursor = "\x1b[?25h"
/** Precedes a text that replaces the live line. */
export const eraseLine = "\r\x1b[K"

/** Renders the line of a moment, in epoch milliseconds, clipped to the columns. */
export type Line = (now: number, columns: number) => string

/** Runs the effect and displays the line meanwhile. Restores the terminal however the effect ends. */
export const during = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  screen: Screen,
  line: Line
): Effect.Effect<A, E, R> => {
  switch (screen.mode) {
    case "off":
      return self
    case "plain":
      // No last line after a failure, which prints an error instead.
      return Effect.tap(drawing(self, plainInterval, plainLine(screen, line)), () => plainLine(screen, line))
    case "live":
      return Effect.acquireUseRelease(
        Effect.sync(() => takeTerminal(screen)),
        () => Effect.andThen(liveLine(screen, line), drawing(self, liveInterval, liveLine(screen, line))),
        (restore) => Effect.sync(restore)
      )
  }
}

const drawing = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  interval: Duration.Duration,
  draw: Effect.Effect<void>
): Effect.Effect<A, E, R> => Effect.raceFirst(self, Effect.forever(Effect.delay(draw, interval)))

const plainLine = (screen: Screen, line: Line): Effect.Effect<void> =>
  Effect.map(
    Clock.currentTimeMillis,
    (now) => screen.write(`${line(now, Number.POSITIVE_INFINITY)}\n`)
  )

// Leaves the last column free: some terminals wrap when it is written.
const liveLine = (screen: Screen, line: Line): Effect.Effect<void> =>
  Effect.map(
    Clock.currentTimeMillis,
    (now) => screen.write(eraseLine + line(now, screen.columns() - 1))
  )

/** Hides the cursor. The returned function shows it again, as does the exit of the process. */
const takeTerminal = (screen: Screen): () => void => {
  const restore = (): void => {
    process.off("exit", restore)
    screen.write(eraseLine + showCursor)
  }
  process.on("exit", restore)
  screen.write(hideCursor)
  return restore
}
