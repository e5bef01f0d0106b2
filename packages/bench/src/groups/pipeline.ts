import * as Pipeline from "@sluice/core/Pipeline"
import * as Effect from "effect/Effect"
import { ofEffect, ofPromise, timed } from "../measure.ts"
import { answer } from "./bodies.ts"
import type { Builders } from "./builders.ts"

const step = (n: number): Effect.Effect<number> => Effect.succeed(n + 1)
const stepLater = async (n: number): Promise<number> => n + 1

const stages = Pipeline.make<number>("five").pipe(
  Pipeline.stage("one", step),
  Pipeline.stage("two", step),
  Pipeline.stage("three", step),
  Pipeline.stage("four", step),
  Pipeline.stage("five", step)
)

const flatMaps = (n: number): Effect.Effect<number> =>
  step(n).pipe(Effect.flatMap(step), Effect.flatMap(step), Effect.flatMap(step), Effect.flatMap(step))

const awaits = async (n: number): Promise<number> => {
  const one = await stepLater(n)
  const two = await stepLater(one)
  const three = await stepLater(two)
  const four = await stepLater(three)
  return await stepLater(four)
}

export const builders: Builders<"pipeline"> = {
  "five-stages": Effect.succeed(timed({
    "Effect": ofEffect(() => flatMaps(answer)),
    "Sluice": ofEffect(() => stages(answer)),
    "five awaits": ofPromise(() => awaits(answer))
  }))
}
