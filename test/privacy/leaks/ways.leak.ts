/** Every way out that is watched, with a secret on it. A title that begins with "fine" holds none and must pass. */
import { it, layer } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Metric, Schema } from "effect"
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"

/** The input of a call: its fields are what the privacy run takes for secrets, since they are called as they are. */
const call = { key: "eu-west", prompt: "What is the capital of France?" }

class Refused extends Schema.Error<Refused>("leaks/Refused")({ _tag: Schema.tag("Refused"), key: Schema.String }) {
  override get message(): string {
    return `refused ${this.key}`
  }
}

it.effect("a line of the log, of whatever level", () => Effect.logTrace(`calling ${call.key}`))

it.effect("a part of a line of the log", () => Effect.logInfo("calling", { on: call.key }))

it.effect("an error in the log, with its fields", () =>
  Effect.logWarning("it went wrong", new Refused({ key: call.key })))

it.effect("a cause in the log", () =>
  Effect.flatMap(Effect.sandbox(Effect.fail(call.prompt)).pipe(Effect.flip), Effect.log))

it.effect("an annotation of the log", () => Effect.annotateLogs(Effect.logDebug("calling"), { dependency: call.key }))

it.effect("the name of a span", () => Effect.withSpan(Effect.void, `call ${call.key}`))

it.effect("an attribute of a span", () => Effect.withSpan(Effect.void, "call", { attributes: { prompt: call.prompt } }))

it.effect("an attribute that a span gets later", () =>
  Effect.annotateCurrentSpan("input", [call.prompt]).pipe(Effect.withSpan("call")))

it.effect("an event of a span", () =>
  Effect.flatMap(Effect.currentSpan, (span) => Effect.sync(() => span.event("refused", 0n, { key: call.key })))
    .pipe(Effect.withSpan("call")))

it.effect("what a span failed with", () =>
  Effect.fail(new Refused({ key: call.key })).pipe(Effect.withSpan("call"), Effect.ignore))

it.effect("a label of a metric", () =>
  Metric.update(Metric.counter("calls", { attributes: { dependency: call.key } }), 1))

it.effect("the name of a metric", () => Metric.update(Metric.gauge(`calls to ${call.key}`), 1))

it.effect("a label of a metric that is only read", () =>
  Effect.flatMap(Effect.context<never>(), (context) =>
    Effect.sync(() => {
      const hooks = { get: () => ({ value: 1 }), update: () => {}, modify: () => {} }
      Metric.registerUnsafe(Metric.gauge("open", { attributes: { key: call.key } }), context, hooks)
    })))

it.effect("the hash of a request", () =>
  Effect.logInfo(`request ${createHash("sha256").update(call.prompt).digest("hex")}`))

it.effect("a key that was made in a loop", () =>
  Effect.forEach([1, 2, 3], (n) => {
    const made = { key: `tenant-${n}` }
    return Effect.logInfo(`calling ${made.key}`)
  }))

it.effect("a key of one letter, as a label", () => {
  const made = { key: "q" }
  return Metric.update(Metric.counter("calls", { attributes: { dependency: made.key } }), 1)
})

it.effect("an input of the function that makes a key", () => {
  const operation = { key: (input: { readonly text: string }) => input.text }
  return Effect.logInfo(operation.key(JSON.parse(`{ "text": "the text of a letter" }`)))
})

it.effect("what a command writes on standard error", () =>
  Effect.callback<void>((resume) => {
    spawn(process.execPath, ["-e", "console.error('refused: ' + process.argv[1])", call.prompt])
      .on("close", () => resume(Effect.void))
  }))

it.live("a live test", () => Effect.logInfo(call.key))

it.effect.each([call])("one case of many", ({ key }) => Effect.logInfo(key))

it.effect.prop("a property", { n: Schema.Int }, () => Effect.logInfo(call.key), { arbitrary: { runs: 2 } })

it.effect.skipIf(false)("a test under a condition", () => Effect.logInfo(call.key))

class Nothing extends Context.Service<Nothing, object>()("leaks/Nothing") {}

layer(Layer.effect(Nothing, Effect.as(Effect.logInfo(call.key), {})))("a layer", (it) => {
  it.effect("that is built for its tests", () => Effect.asVoid(Effect.service(Nothing)))
})

layer(Layer.succeed(Nothing, {}))("a layer", (it) => {
  it.effect("whose test logs", () => Effect.logInfo(call.key))
})

it.effect("fine: an error that nobody wrote down", () => Effect.flip(Effect.fail(new Refused({ key: call.key }))))

it.effect("fine: numbers, states and the names of policies", () =>
  Effect.gen(function*() {
    yield* Effect.logInfo("circuit open: 4 of 5 failed; retry in 3s", { policy: "api" })
    yield* Metric.update(Metric.counter("calls", { attributes: { policy: "api", outcome: "Success" } }), 1)
    yield* Effect.exit(Effect.fail("503").pipe(Effect.withSpan("api.call", { attributes: { state: "HalfOpen" } })))
    return Exit.void
  }))

it.effect("fine: the name of a policy that is called like what it calls", () => {
  const named = { name: "mistral", key: "mistral" }
  return Effect.logInfo(`policy ${named.name}`)
})

it.effect("fine: a word that a key is only a part of", () => Effect.logInfo("to the eu-western end"))
