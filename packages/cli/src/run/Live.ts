/** Displays the progress of a run. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { View } from "./Progress.ts"
import * as Progress from "./Progress.ts"

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
const eraseLine = "\r\x1b[K"

/** Runs the effect and displays the view meanwhile. Restores the terminal however the effect ends. */
export const during = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  screen: Screen,
  view: (now: number) => View
): Effect.Effect<A, E, R> => {
  switch (screen.mode) {
    case "off":
      return self
    case "plain":
      // No last line after a failure, which prints an error instead.
      return Effect.tap(drawing(self, plainInterval, plainLine(screen, view)), () => plainLine(screen, view))
    case "live":
      return Effect.acquireUseRelease(
        Effect.sync(() => takeTerminal(screen)),
        () => Effect.andThen(liveLine(screen, view), drawing(self, liveInterval, liveLine(screen, view))),
        (restore) => Effect.sync(restore)
      )
  }
}

const drawing = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  interval: Duration.Duration,
  draw: Effect.Effect<void>
): Effect.Effect<A, E, R> => Effect.raceFirst(self, Effect.forever(Effect.delay(draw, interval)))

const plainLine = (screen: Screen, view: (now: number) => View): Effect.Effect<void> =>
  Effect.map(
    Clock.currentTimeMillis,
    (now) => screen.write(`${Progress.render(view(now), Number.POSITIVE_INFINITY)}\n`)
  )

// Leaves the last column free: some terminals wrap when it is written.
const liveLine = (screen: Screen, view: (now: number) => View): Effect.Effect<void> =>
  Effect.map(
    Clock.currentTimeMillis,
    (now) => screen.write(eraseLine + Progress.render(view(now), screen.columns() - 1))
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
