/** An engine that asks `--cache` before a target, and keeps whole answers for later runs. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { hash } from "node:crypto"
import type { AnswerStore, CacheError } from "./AnswerStore.ts"
import * as CallRecord from "./CallRecord.ts"
import type * as Engine from "./Engine.ts"
import type { Prompt } from "./Prompt.ts"
import * as Request from "./Request.ts"
import type { Answered, Usage } from "./Result.ts"
import type { Settings, Target } from "./Settings.ts"

export interface Counts {
  /** Lines that were answered by earlier runs, or by another one. */
  reused: number
  /** Answers that were added. */
  added: number
}

type Options = Pick<Settings, "cacheTtlMillis" | "maxTokens" | "omit" | "targets" | "temperature">

/** `startedAt` is the time of the run's start in epoch milliseconds. Calls `broken` at the first error of the store. The run then continues without it. */
export const over = (
  engine: Engine.Engine,
  store: AnswerStore,
  options: Options,
  counts: Counts,
  startedAt: number,
  broken: (error: CacheError) => void
): Engine.Engine => {
  const keyOf = keys(options)
  let isBroken = false
  const use = <A>(run: () => A): A | undefined => {
    if (isBroken) return undefined
    try {
      return run()
    } catch (error) {
      isBroken = true
      // The methods of a store throw nothing else.
      broken(error as CacheError)
      return undefined
    }
  }

  /** The answer of the most preferred target that has one. */
  const find = (prompt: Prompt, now: number): Engine.Completed | undefined => {
    for (const target of options.targets) {
      const kept = use(() => store.get(keyOf(prompt, target), now - options.cacheTtlMillis))
      const answer = decode(kept?.answer)
      if (kept === undefined || answer === undefined) continue
      // An equal line of this run may have made the call.
      if (kept.at < startedAt) counts.reused++
      const { id, line, sample } = prompt
      const result: Answered = {
        line,
        sample,
        id,
        status: "ok",
        ...answer,
        target: target.name,
        attempts: 0,
        how: "cached",
        milliseconds: 0
      }
      return { result, record: new CallRecord.Trace(now).record(result) }
    }
    return undefined
  }

  const keep = (prompt: Prompt, { result }: Engine.Completed, now: number): void => {
    // The prompt that led the call keeps the answer. A cut answer would stay cut.
    if (result.status !== "ok" || result.how !== "led" || result.finish !== "stop") return
    const target = options.targets.find(({ name }) => name === result.target)
    if (target === undefined) return
    use(() => {
      store.put(keyOf(prompt, target), encode(result), now)
      counts.added++
    })
  }

  return {
    ...engine,
    complete: (prompt, turn) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const found = find(prompt, now)
        if (found !== undefined) return Effect.succeed(found)
        return Effect.tap(engine.complete(prompt, turn), (completed) =>
          Effect.map(Clock.currentTimeMillis, (now) => keep(prompt, completed, now)))
      })
  }
}

/**
 * The key of an answer: the request, and the target's format, address and model. Keys, headers and the query of a URL are left
 * out, since they identify the caller.
 */
const keys = (options: Options) => {
  const places = new Map(options.targets.map((target) => {
    const { host, pathname, protocol } = new URL(target.url)
    return [target, {
      request: Request.canonical({ ...options, targets: [target] }),
      text: JSON.stringify([target.wire, protocol, host, pathname])
    }]
  }))
  return (prompt: Prompt, target: Target): Uint8Array => {
    const place = places.get(target)
    return hash("sha256", `${place?.text}${place?.request(prompt)}`, "buffer")
  }
}

type Answer = Pick<Answered, "text" | "model" | "finish" | "usage">

const encode = ({ finish, model, text, usage }: Answered): string => JSON.stringify({ text, model, finish, usage })

/** `undefined` for a value that is missing or not of this form. */
const decode = (stored: string | undefined): Answer | undefined => {
  if (stored === undefined) return undefined
  try {
    const answer: Answer = JSON.parse(stored)
    return typeof answer.text === "string" && typeof answer.finish === "string" && isUsage(answer.usage)
      ? { text: answer.text, model: answer.model, finish: answer.finish, usage: answer.usage }
      : undefined
  } catch {
    return undefined
  }
}

const isUsage = (usage: Usage | undefined): boolean =>
  typeof usage?.inputTokens === "number" && typeof usage.outputTokens === "number"
