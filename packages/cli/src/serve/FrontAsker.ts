/** Asks the requests of batches through a front: the same targets, circuits, limits and fallback as a call of a client. */
import * as Asker from "@sluice/batch/Asker"
import type { Waiting } from "@sluice/batch/Batch"
import type { Exchange, Sink } from "@sluice/ai/Front"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Line } from "../openai/Line.ts"
import * as Lines from "../openai/Line.ts"
import * as Circuits from "../run/Circuits.ts"
import * as Costs from "./Costs.ts"
import type { Current } from "./Reloads.ts"
import { offering } from "./Settings.ts"

/** A target whose key is refused is tried again after this time. A key is rarely repaired within seconds. */
const refusedKeyMillis = 30_000

/** The provider, or the way to it, may answer another time. 409 and 425 are about a moment. */
const isTransient = (status: number): boolean =>
  status === 408 || status === 409 || status === 425 || status === 429 || status >= 500

/** Reasons for which the front refuses a call without making it. The request is fine, so it waits. */
const refusals = new Set<string | undefined>([
  "circuit_open",
  "no_target",
  "backpressure_shed",
  "quota_exceeded",
  "deadline_exceeded",
  "credential_refused"
])

/** Sends the request of a batch of this owner to the current front. */
export type Send = (owner: string | undefined, exchange: Exchange, sink: Sink) => void

/** `current` has the front, which a reload replaces. */
export const make = (
  current: () => Current,
  send: Send = (_, exchange, sink) => current().front.exchange(exchange, sink)
): Asker.Asker["Service"] => {
  let refusedKey: { readonly for: string; readonly until: number } | undefined
  const stopping = new Stopping()

  const ask = (asked: Asker.Asked): Effect.Effect<Asker.Answer, Asker.AskLater> =>
    Clock.clockWith((clock) => {
      const line = Lines.read(asked.body)
      if (line === undefined) return Effect.succeed(unreadable)
      if (asked.hasBudget && !isPriced(current().settings, line.model)) return Effect.succeed(unpriced)
      return Effect.flatMap(call(current, send, line, asked, stopping), (called) => {
        const answer = answerOf(called)
        if (called.status < 400) return Effect.succeed({ ...answer, kind: "ok" as const })
        if (called.code === "credential_refused") {
          refusedKey = {
            for: "a target refuses its key",
            until: clock.currentTimeMillisUnsafe() + refusedKeyMillis
          }
        }
        if (!isTransient(called.status)) return Effect.succeed(answer)
        return Effect.fail(
          new Asker.AskLater({
            reason: `HTTP ${called.status}${called.code === undefined ? "" : ` (${called.code})`}`,
            retryAfter: called.retryAfter,
            // Also a fault of the front, which would be met again without an end.
            isCall: !refusals.has(called.code) || (called.attempts > 0 && called.code === "deadline_exceeded"),
            micros: called.micros
          })
        )
      })
    })

  const waiting = Effect.map(
    Effect.all([Effect.suspend(() => current().front.targets), Clock.currentTimeMillis]),
    ([states, now]): Waiting | undefined => {
      if (refusedKey !== undefined && refusedKey.until > now) return refusedKey
      const millis = Circuits.millisToCall(states)
      if (millis === 0) return undefined
      const open = states.filter(({ circuit }) => circuit?._tag === "Open" || circuit?._tag === "HalfOpen")
      return { for: `the circuit of ${open.map(({ name }) => name).join(", ")} is open`, until: now + millis }
    }
  )

  return { ask, waiting, stop: Effect.sync(() => stopping.stop()) }
}

/** Tells the calls when they may make no further attempt. */
class Stopping {
  private readonly listeners = new Set<() => void>()
  private isStopped = false

  /** Calls the listener at the stop, at once if that was before. Returns how to forget it. */
  add(listener: () => void): () => void {
    if (this.isStopped) listener()
    else this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  stop(): void {
    this.isStopped = true
    for (const listener of this.listeners) listener()
  }
}

interface Called {
  readonly status: number
  readonly requestId: string | undefined
  /** Why the front refused. `undefined` for an answer of the provider. */
  readonly code: string | undefined
  readonly attempts: number
  readonly retryAfter: Duration.Duration | undefined
  readonly body: string
  readonly inputTokens: number
  readonly outputTokens: number
  readonly micros: number
}

const answerOf = (
  { body, inputTokens, micros, outputTokens, requestId, status }: Omit<Called, "attempts" | "code" | "retryAfter">
): Asker.Answer => ({
  kind: "failed",
  body: Lines.encodeResponse({ status, requestId, body }),
  inputTokens,
  outputTokens,
  micros
})

/** An answer to a request that was not sent. */
const refused = (code: string, message: string): Asker.Answer =>
  answerOf({
    status: 400,
    requestId: undefined,
    body: JSON.stringify({ error: { message, type: "invalid_request_error", code } }),
    inputTokens: 0,
    outputTokens: 0,
    micros: 0
  })

const unreadable = refused("invalid_body", "The line is not a request.")

const unpriced = refused(
  "no_price",
  "The batch has a budget, and the price of this model is not known. Set it with --price or --price-file of the worker, and retry the batch."
)

/** Whether the cost of an answer is known, whichever target gives it. */
const isPriced = (settings: Current["settings"], model: string): boolean =>
  offering(settings, model).every((target) =>
    Costs.ofTarget(settings, target, model, { inputTokens: 0, outputTokens: 0 }) !== undefined
  )

const call = (
  current: () => Current,
  send: Send,
  line: Line,
  { idempotencyKey, owner }: Asker.Asked,
  stopping: Stopping
): Effect.Effect<Called> =>
  Effect.callback((resume) => {
    const used = current()
    const { front, settings } = used
    const chunks: Array<Uint8Array> = []
    let status = 0
    let headers: { readonly [name: string]: unknown } = {}
    let leave = () => {}
    let forget = () => {}
    let isOver = false
    const over = () => {
      forget()
      if (!isOver) used.leave()
      isOver = true
    }
    const result = (): Called => {
      const id = text(headers["x-sluice-call"])
      const log = id === undefined ? undefined : front.call(id)
      const body = Buffer.concat(chunks).toString()
      return {
        status,
        requestId: text(headers["x-request-id"]) ?? text(headers["request-id"]) ?? id,
        code: text(headers["x-sluice-code"]),
        attempts: Number(text(headers["x-sluice-attempts"]) ?? 0),
        retryAfter: retryAfterOf(text(headers["retry-after"])),
        body,
        inputTokens: log?.usage.inputTokens ?? 0,
        outputTokens: log?.usage.outputTokens ?? 0,
        micros: log === undefined ? 0 : Math.round(Costs.ofCall(settings, log, line.model))
      }
    }
    // The call's log is kept in this turn.
    const end = () =>
      void setImmediate(() => {
        over()
        resume(Effect.sync(result))
      })
    used.enter()
    send(owner, {
      method: "POST",
      path: line.url,
      headers: { "content-type": "application/json", "idempotency-key": idempotencyKey },
      body: Buffer.from(line.body),
      isBackground: true
    }, {
      head: (given, of) => {
        status = given
        headers = of
      },
      write: (bytes) => {
        chunks.push(bytes)
        return true
      },
      end: (bytes) => {
        if (bytes !== undefined) chunks.push(Buffer.from(bytes))
        end()
      },
      abort: () => {
        status = 502
        end()
      },
      onDrain: () => {},
      onLeave: (listener) => {
        leave = listener
      },
      onLastAttempt: (listener) => {
        forget = stopping.add(listener)
      }
    })
    return Effect.sync(() => {
      leave()
      over()
    })
  })

const text = (value: unknown): string | undefined => typeof value === "string" ? value : undefined

const retryAfterOf = (seconds: string | undefined): Duration.Duration | undefined => {
  const parsed = Number(seconds)
  return seconds === undefined || !Number.isFinite(parsed) || parsed < 0 ? undefined : Duration.seconds(parsed)
}
