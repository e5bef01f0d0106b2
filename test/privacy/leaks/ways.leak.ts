/** Tests that leak a secret, one for every output that is searched. A test whose title starts with "fine" leaks none and passes. */
import { it, layer } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Metric, Schema } from "effect"
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"

/** The names of its properties make these values secrets. */
const call = { key: "eu-west", prompt: "What is the capital of France?" }

class Refused extends Schema.Error<Refused>("leaks/Refused")({ _tag: Schema.tag("Refused"), key: Schema.String }) {
  override get message(): string {
    return `refused ${this.key}`
  }
}

it.effect("a log line of any level is searched", () => Effect.logTrace(`calling ${call.key}`))

it.effect("a part of a log line is searched", () => Effect.logInfo("calling", { on: call.key }))

it.effect("the fields of a logged error are searched", () =>
  Effect.logWarning("it went wrong", new Refused({ key: call.key })))

it.effect("a logged cause is searched", () =>
  Effect.flatMap(Effect.sandbox(Effect.fail(call.prompt)).pipe(Effect.flip), Effect.log))

it.effect("a log annotation is searched", () =>
  Effect.annotateLogs(Effect.logDebug("calling"), { dependency: call.key }))

it.effect("the name of a span is searched", () => Effect.withSpan(Effect.void, `call ${call.key}`))

it.effect("an attribute of a span is searched", () =>
  Effect.withSpan(Effect.void, "call", { attributes: { prompt: call.prompt } }))

it.effect("an attribute that is added to a running span is searched", () =>
  Effect.annotateCurrentSpan("input", [call.prompt]).pipe(Effect.withSpan("call")))

it.effect("an event of a span is searched", () =>
  Effect.flatMap(Effect.currentSpan, (span) => Effect.sync(() => span.event("refused", 0n, { key: call.key })))
    .pipe(Effect.withSpan("call")))

it.effect("the failure of a span is searched", () =>
  Effect.fail(new Refused({ key: call.key })).pipe(Effect.withSpan("call"), Effect.ignore))

it.effect("a label of a metric is searched", () =>
  Metric.update(Metric.counter("calls", { attributes: { dependency: call.key } }), 1))

it.effect("the name of a metric is searched", () => Metric.update(Metric.gauge(`calls to ${call.key}`), 1))

it.effect("a label of a metric that is only read is searched", () =>
  Effect.flatMap(Effect.context<never>(), (context) =>
    Effect.sync(() => {
      const hooks = { get: () => ({ value: 1 }), update: () => {}, modify: () => {} }
      Metric.registerUnsafe(Metric.gauge("open", { attributes: { key: call.key } }), context, hooks)
    })))

it.effect("the hash of a request is a leak", () =>
  Effect.logInfo(`request ${createHash("sha256").update(call.prompt).digest("hex")}`))

it.effect("a key that was made in a loop is a secret", () =>
  Effect.forEach([1, 2, 3], (n) => {
    const made = { key: `tenant-${n}` }
    return Effect.logInfo(`calling ${made.key}`)
  }))

it.effect("a key of one letter is found as a whole label", () => {
  const made = { key: "q" }
  return Metric.update(Metric.counter("calls", { attributes: { dependency: made.key } }), 1)
})

it.effect("the input of a key function is a secret", () => {
  const operation = { key: (input: { readonly text: string }) => input.text }
  return Effect.logInfo(operation.key(JSON.parse(`{ "text": "the text of a letter" }`)))
})

it.effect("the standard error of a command is searched", () =>
  Effect.callback<void>((resume) => {
    spawn(process.execPath, ["-e", "console.error('refused: ' + process.argv[1])", call.prompt])
      .on("close", () => resume(Effect.void))
  }))

it.live("a live test is searched", () => Effect.logInfo(call.key))

it.effect.each([call])("a test of each is searched", ({ key }) => Effect.logInfo(key))

it.effect.prop("a property test is searched", { n: Schema.Int }, () => Effect.logInfo(call.key), {
  arbitrary: { runs: 2 }
})

it.effect.skipIf(false)("a conditional test is searched", () => Effect.logInfo(call.key))

class Nothing extends Context.Service<Nothing, object>()("leaks/Nothing") {}

layer(Layer.effect(Nothing, Effect.as(Effect.logInfo(call.key), {})))("a layer", (it) => {
  it.effect("the logs of building a layer are searched", () => Effect.asVoid(Effect.service(Nothing)))
})

layer(Layer.succeed(Nothing, {}))("a layer", (it) => {
  it.effect("a test with a layer is searched", () => Effect.logInfo(call.key))
})

it.effect("fine: an error that is not logged is no leak", () =>
  Effect.flip(Effect.fail(new Refused({ key: call.key }))))

it.effect("fine: numbers, states and names of policies are no leak", () =>
  Effect.gen(function*() {
    yield* Effect.logInfo("circuit open: 4 of 5 failed; retry in 3s", { policy: "api" })
    yield* Metric.update(Metric.counter("calls", { attributes: { policy: "api", outcome: "Success" } }), 1)
    yield* Effect.exit(Effect.fail("503").pipe(Effect.withSpan("api.call", { attributes: { state: "HalfOpen" } })))
    return Exit.void
  }))

it.effect("fine: the name of a policy can be the key of its dependency", () => {
  const named = { name: "mistral", key: "mistral" }
  return Effect.logInfo(`policy ${named.name}`)
})

it.effect("fine: a word that contains a key is no leak", () => Effect.logInfo("to the eu-western end"))
