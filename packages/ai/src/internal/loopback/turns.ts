import type { OptionsReader } from "@sluice/core/OptionsReader"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Turn from "../../testing/Turn.ts"

/** Hands out turns, one for each request. */
export class Turns {
  private readonly turns: Turn.Turns | undefined
  private used = 0

  constructor(turns: Turn.Turns | undefined) {
    this.turns = turns
  }

  next(request: Turn.Request): Turn.Turn | undefined {
    if (typeof this.turns === "function") return this.turns(request)
    return this.turns?.[Math.min(this.used++, this.turns.length - 1)]
  }

  clear(): void {
    this.used = 0
  }
}

const decode = Schema.decodeUnknownResult(Schema.Array(Schema.toType(Turn.Turn)), { errors: "all" })

/** Refuses invalid turns of a list. Those that a function returns are not known yet. */
export const check = (checked: OptionsReader, turns: Turn.Turns | undefined): void => {
  if (turns === undefined || typeof turns === "function") return
  const read = decode(turns)
  if (read._tag === "Failure") checked.refuse("turns", read.failure.message, "must be turns, see Turn")
}

// A timer of 0 ms would take a millisecond.
export const pause = (millis: number | undefined): Effect.Effect<void> =>
  millis !== undefined && millis > 0 ? Effect.sleep(millis) : Effect.void
