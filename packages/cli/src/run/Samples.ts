/** Several requests for each prompt, for `--samples`. */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Input } from "./Input.ts"
import type { Malformed, Prompt } from "./Prompt.ts"

interface Sampled {
  readonly line: number
  /** Counted from 1. `undefined` without `--samples`. */
  readonly sample?: number | undefined
}

/** Identifies a sample of a line. It is the line's number for the first one, and in the order of lines and samples. */
export const keyOf = ({ line, sample = 1 }: Sampled): number => line + (sample - 1) / 1_024

/** Repeats each prompt, with the number of its sample. A line that is no prompt has one result. */
export const of = (input: Input, samples: number): Input => {
  if (samples === 1) return input
  const { again, count, items } = input
  return {
    ...input,
    items: repeated(items, samples),
    again: again === undefined ? undefined : repeated(again, samples),
    // Lines that are no prompts are counted as prompts, since counting does not parse them.
    count: count === undefined ? undefined : Effect.map(count, (lines) => lines * samples)
  }
}

const repeated = <E>(
  items: Stream.Stream<Prompt | Malformed, E>,
  samples: number
): Stream.Stream<Prompt | Malformed, E> =>
  Stream.flattenIterable(
    Stream.map(items, (item): ReadonlyArray<Prompt | Malformed> =>
      item._tag === "Malformed"
        ? [item]
        : Array.from({ length: samples }, (_, index): Prompt => ({ ...item, sample: index + 1 })))
  )
