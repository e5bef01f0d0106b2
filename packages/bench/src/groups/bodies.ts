/** The protected work. It costs almost nothing, so that the cost is that of the protection. */
import * as Effect from "effect/Effect"

export const answer = 1

export const call: Effect.Effect<number> = Effect.succeed(answer)
export const callLater: Effect.Effect<number> = Effect.promise(() => Promise.resolve(answer))

export const body = (): number => answer
export const bodyLater = (): Promise<number> => Promise.resolve(answer)

export const ignore = (): void => {}
