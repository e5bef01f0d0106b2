import * as Deadline from "@sluice/core/Deadline"
import * as Cockatiel from "cockatiel"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { ofEffect, ofPromise, timed } from "../measure.ts"
import { body, bodyLater, call, callLater } from "./bodies.ts"
import type { Builders } from "./builders.ts"

const limit = Duration.minutes(1)

const around = (call: Effect.Effect<number>, body: () => number | Promise<number>) =>
  Effect.sync(() => {
    const cockatiel = Cockatiel.timeout(Duration.toMillis(limit), Cockatiel.TimeoutStrategy.Aggressive)
    return timed({
      "the effect alone": ofEffect(() => call),
      "Sluice": ofEffect(() => Deadline.within(call, limit)),
      "Effect": ofEffect(() => Effect.timeout(call, limit)),
      "cockatiel": ofPromise(() => cockatiel.execute(body))
    })
  })

export const builders: Builders<"timeout"> = {
  "timeout-sync": around(call, body),
  "timeout-promise": around(callLater, bodyLater)
}
