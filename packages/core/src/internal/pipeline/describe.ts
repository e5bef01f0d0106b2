import * as Duration from "effect/Duration"
import type { Stage } from "../../Pipeline.ts"
import { isPipeline } from "./plan.ts"

/** One line for each stage with its options. Nested stages are indented below theirs. */
export const describeStages = (stages: ReadonlyArray<Stage>, indent: string): ReadonlyArray<string> =>
  stages.flatMap((stage, index) => [
    `${indent}${index + 1}. ${stage.name}${describeOptions(stage)}`,
    ...(isPipeline(stage.run) ? describeStages(stage.run.stages, `${indent}  `) : [])
  ])

const describeOptions = ({ recovers, retry, timeout }: Stage): string => {
  const parts: Array<string> = []
  if (timeout !== undefined) parts.push(Duration.format(timeout))
  if (retry !== undefined) parts.push(`${retry.maxAttempts} attempts`)
  if (recovers) parts.push("recovers")
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`
}
