/** Holds back calls while the asker says that they make no sense. */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type { Asker } from "../../Asker.ts"
import type { Waiting } from "../../Batch.ts"

const lookMillis = 100

/** Calls return spread over this time, so that a provider that comes back is not met by all at once. */
const spreadMillis = { minimum: 100, maximum: 300 }

export interface Gate {
  readonly waiting: () => Waiting | undefined
  /** Ends at once while the gate is open, and some time after it has opened. */
  readonly pass: Effect.Effect<void>
}

/** A worker that cannot know whether calls make sense finds out by calling. Logs the first defect only. */
const readWaiting = ({ waiting }: Asker["Service"]): Effect.Effect<Waiting | undefined> => {
  let hasFailed = false
  return Effect.catchDefect(waiting, (defect) => {
    const isLogged = hasFailed
    hasFailed = true
    return isLogged
      ? Effect.undefined
      : Effect.as(Effect.logError("The asker of a batch cannot say whether it waits", defect), undefined)
  })
}

/** Looks at the asker ten times a second. `onChange` is called when the gate opens or closes. */
export const make = (
  asker: Asker["Service"],
  onChange: (isOpen: boolean) => void
): Effect.Effect<Gate, never, Scope.Scope> =>
  Effect.gen(function*() {
    const read = readWaiting(asker)
    let waiting = yield* read
    const open = Latch.makeUnsafe(waiting === undefined)
    const look = Effect.map(read, (now) => {
      const wasOpen = waiting === undefined
      waiting = now
      if (wasOpen === (now === undefined)) return
      if (now === undefined) open.openUnsafe()
      else open.closeUnsafe()
      onChange(now === undefined)
    })
    yield* Effect.sleep(lookMillis).pipe(Effect.andThen(look), Effect.forever, Effect.forkScoped)

    const spread = Effect.flatMap(
      Random.nextBetween(spreadMillis.minimum, spreadMillis.maximum),
      (millis) => Effect.sleep(millis)
    )
    const pass: Effect.Effect<void> = Effect.suspend(() =>
      waiting === undefined ? Effect.void : open.await.pipe(Effect.andThen(spread), Effect.andThen(pass))
    )
    return { waiting: () => waiting, pass }
  })
