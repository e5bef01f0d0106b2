/** Shows how a run goes while it goes. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { View } from "./Progress.ts"
import * as Progress from "./Progress.ts"

/** Where progress is shown. */
export interface Screen {
  readonly write: (text: string) => void
  /** Its width now: people resize their windows. */
  readonly columns: () => number
  /**
   * `live`: a terminal, one line that is drawn over and over. `plain`: lines without escapes now and then. `off`:
   * nothing.
   */
  readonly mode: "live" | "plain" | "off"
}

/** How the screen of this process is to be used. */
export const modeOf = (options: {
  readonly quiet: boolean
  readonly isTerminal: boolean
  /** Whether results go to the same terminal, where a live line would stand between them. */
  readonly isShared: boolean
  readonly env: { readonly [name: string]: string | undefined }
}): Screen["mode"] => {
  const { env, isShared, isTerminal, quiet } = options
  if (quiet) return "off"
  const wantsPlain = (env["NO_COLOR"] ?? "") !== "" || env["TERM"] === "dumb"
  return isTerminal && !isShared && !wantsPlain ? "live" : "plain"
}

/** Ten times a second looks alive and costs nothing. */
const liveEvery = Duration.millis(100)
/** A log wants to know that it goes on, and no more. */
const plainEvery = Duration.seconds(10)

const hideCursor = "\x1b[?25l"
const showCursor = "\x1b[?25h"
const eraseLine = "\r\x1b[K"

/** Runs the effect, and shows the view as it changes. However the effect ends, the terminal is as it was. */
export const during = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  screen: Screen,
  view: (now: number) => View
): Effect.Effect<A, E, R> => {
  switch (screen.mode) {
    case "off":
      return self
    case "plain":
      // No last line after an error: that is to stand alone.
      return Effect.tap(drawing(self, plainEvery, plainLine(screen, view)), () => plainLine(screen, view))
    case "live":
      return Effect.acquireUseRelease(
        Effect.sync(() => takeTerminal(screen)),
        () => Effect.andThen(liveLine(screen, view), drawing(self, liveEvery, liveLine(screen, view))),
        (giveBack) => Effect.sync(giveBack)
      )
  }
}

const drawing = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  every: Duration.Duration,
  draw: Effect.Effect<void>
): Effect.Effect<A, E, R> => Effect.raceFirst(self, Effect.forever(Effect.delay(draw, every)))

const plainLine = (screen: Screen, view: (now: number) => View): Effect.Effect<void> =>
  Effect.map(
    Clock.currentTimeMillis,
    (now) => screen.write(`${Progress.render(view(now), Number.POSITIVE_INFINITY)}\n`)
  )

// One column less than there are: some terminals wrap as soon as the last one is written to.
const liveLine = (screen: Screen, view: (now: number) => View): Effect.Effect<void> =>
  Effect.map(
    Clock.currentTimeMillis,
    (now) => screen.write(eraseLine + Progress.render(view(now), screen.columns() - 1))
  )

/** Hides the cursor; what it returns brings it back, and so does the end of the process, whatever ends it. */
const takeTerminal = (screen: Screen): () => void => {
  const giveBack = (): void => {
    process.off("exit", giveBack)
    screen.write(eraseLine + showCursor)
  }
  process.on("exit", giveBack)
  screen.write(hideCursor)
  return giveBack
}
