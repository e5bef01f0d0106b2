/**
 * Every error that a package exports, and the questions that it answers: what failed, on which evidence, when to come back, and what
 * to change. A class that is missing in the table fails a test.
 */
import {
  EmptyAnswer,
  FirstTokenTimeout,
  IdleTimeout,
  MalformedEvent,
  ModelNotOffered,
  NoTarget,
  TruncatedStream
} from "@sluice/ai/AiRejection"
import { AnswerError, ListenError } from "@sluice/ai/testing/LoopbackProvider"
import { BackpressureShed } from "@sluice/core/Backpressure"
import { CircuitOpen } from "@sluice/core/CircuitBreaker"
import { StoreError } from "@sluice/core/CircuitBreakerStore"
import { DeadlineExceeded } from "@sluice/core/Deadline"
import { FlightAbandoned, TooManyWaiters } from "@sluice/core/Deduplicator"
import { InvalidOptions } from "@sluice/core/InvalidOptions"
import { InvalidKey } from "@sluice/core/KeyHash"
import { QuotaExceeded } from "@sluice/core/Quota"
import { StageTimeout } from "@sluice/core/Pipeline"
import { AttemptTimeout, Rejected } from "@sluice/core/Sluice"
import { AskLater } from "@sluice/batch/Asker"
import {
  BatchNotFound,
  BatchRunning,
  BatchStoreError,
  BudgetSpent,
  FileInUse,
  FileNotFound,
  InvalidRequest
} from "@sluice/batch/Batch"
import { InputTooLarge, LocalModelStopped } from "@sluice/local-model/LocalModel"
import { MigrationFailed, TablesOutdated } from "@sluice/sql/Migrations"
import { ContractBroken, ModelDiffers } from "@sluice/testing/CircuitBreakerStoreContract"
import { ProbedTooLittle } from "@sluice/testing/InterruptionProbe"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import { globSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { canary } from "./privacy/secrets.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/** Where an error answers a question: in fields or in words of its message. `none`: why it does not. */
interface Answer {
  readonly fields?: ReadonlyArray<string>
  readonly words?: string
  readonly none?: string
}

const fields = (...fields: ReadonlyArray<string>): Answer => ({ fields })
const words = (words: string): Answer => ({ words })
const none = (why: string): Answer => ({ none: why })

/** An error, and where it answers each question. */
interface Row {
  readonly error: Error
  readonly what: Answer
  readonly evidence: Answer
  readonly comeBack: Answer
  readonly change: Answer
}

const open = { policy: "gpt", key: canary, retryAfter: Duration.seconds(3), failures: 4, calls: 5, slow: 1 }
const shed = { policy: "gpt", permits: 1, running: 3, queued: 1, capacity: 3 }
const inTime = { retryAfter: Duration.seconds(2), waited: Duration.seconds(9) }
const exceeded = { policy: "gpt", at: "Backoff", budget: Duration.seconds(2) } as const

const recovers = none("the dependency has to recover; retryAfter is the time until the next probe")
const ordinaryFailure = none("it is an ordinary failure: the back-off of the retry applies")
const permanent = none("it fails every time until the cause is changed")

const circuitRow = (state: CircuitOpen["state"], what: string, more = {}): Row => ({
  error: new CircuitOpen({ ...open, state, ...more }),
  what: words(what),
  evidence: fields("policy", "state", "failures", "calls", "slow"),
  comeBack: { fields: ["retryAfter"], words: "in 3s" },
  change: recovers
})

const shedWords = {
  Full: "gpt: queue is full",
  MaxWait: "gpt: no permit after 9s",
  Draining: "gpt: draining",
  TooLarge: "gpt: 9 of 3 permits requested"
}

const shedRow = (why: BackpressureShed["why"], change: string, comeBack: Answer, more = {}): Row => ({
  error: new BackpressureShed({ ...shed, why, ...more }),
  what: words(shedWords[why]),
  evidence: fields("policy", "why", "permits", "running", "queued", "capacity"),
  comeBack,
  change: words(change)
})

const quota = { policy: "gpt", dimension: "tokens", asked: 50, used: 80, limit: 100, windowMillis: 60_000, queued: 3 }

const quotaRow = (why: QuotaExceeded["why"], what: string, change: string, comeBack: Answer, more = {}): Row => ({
  error: new QuotaExceeded({ ...quota, why, ...more }),
  what: words(what),
  evidence: fields("policy", "why", "dimension", "asked", "used", "limit", "windowMillis", "queued"),
  comeBack,
  change: words(change)
})

const told: Answer = { fields: ["retryAfter"], words: "retry in 2s" }

const deadlineWords = {
  Start: "gpt: no answer within 2s: the deadline had passed before the first attempt",
  Circuit: "gpt: no answer within 2s: the call was waiting for an open circuit",
  Queue: "gpt: no answer within 2s: the call was queued",
  Backoff: "gpt: no answer within 2s: the call was backing off between attempts",
  Attempt: "gpt: no answer within 2s: the attempt was running"
}

const deadlineRow = (at: DeadlineExceeded["at"]): Row => ({
  error: new DeadlineExceeded({ ...exceeded, at }),
  what: words(deadlineWords[at]),
  evidence: fields("policy", "at", "budget"),
  comeBack: none("the deadline has passed; a new call has its own"),
  change: fields("budget")
})

const rejectedRow = (reason: Rejected["reason"]): Row => ({
  error: new Rejected({ reason }),
  what: words(reason.message),
  evidence: fields("reason"),
  comeBack: fields("reason"),
  change: fields("reason")
})

const table: ReadonlyArray<Row> = [
  circuitRow("Open", "gpt: circuit open", { hint: Duration.minutes(1) }),
  circuitRow("HalfOpen", "gpt: circuit half-open"),
  circuitRow("Ramp", "ramping up, this call was held back"),
  circuitRow("ForcedOpen", "gpt: circuit forced open by an operator", { reason: `the key ${canary} leaks` }),
  shedRow("Full", "Raise capacity or queue", { fields: ["retryAfter"], words: "retry in 2s" }, inTime),
  shedRow("Full", "Raise capacity or queue", none("no call has ended yet, so the pace is unknown")),
  shedRow("MaxWait", "Raise capacity or maxWait", { fields: ["retryAfter"], words: "retry in 2s" }, inTime),
  shedRow("Draining", "Send it elsewhere", words("after resume")),
  shedRow("TooLarge", "raise capacity", permanent, { permits: 9 }),
  quotaRow("Full", "gpt: quota is full", "Raise the limit, queue or maxWait", told, inTime),
  quotaRow("MaxWait", "gpt: no room in the quota after 9s", "Raise the limit or maxWait", told, inTime),
  quotaRow(
    "MaxWait",
    "gpt: no room in the quota in time",
    "Raise the limit or maxWait",
    none("only a running call can make room")
  ),
  quotaRow(
    "Deadline",
    "gpt: no room in the quota before the deadline",
    "Raise the limit or the deadline",
    told,
    inTime
  ),
  quotaRow("TooLarge", "gpt: the call needs 150 tokens", "Shorten it", permanent, { asked: 150 }),
  quotaRow("Spent", "gpt: the budget is spent", "Raise the limit", permanent),
  quotaRow("Draining", "gpt: draining", "Send it elsewhere", words("after resume")),
  quotaRow("StoreDown", "gpt: the store of the quota does not answer", "Check the store", told, inTime),
  deadlineRow("Start"),
  deadlineRow("Queue"),
  deadlineRow("Circuit"),
  deadlineRow("Backoff"),
  deadlineRow("Attempt"),
  rejectedRow(new CircuitOpen({ ...open, state: "Open" })),
  rejectedRow(new BackpressureShed({ ...shed, ...inTime, why: "Full" })),
  rejectedRow(new QuotaExceeded({ ...quota, ...inTime, why: "Full" })),
  rejectedRow(new DeadlineExceeded(exceeded)),
  {
    error: new AttemptTimeout({ policy: "gpt", after: Duration.seconds(1) }),
    what: words("gpt: no answer to this attempt"),
    evidence: { fields: ["policy", "after"], words: "within 1s" },
    comeBack: ordinaryFailure,
    change: fields("after")
  },
  {
    error: new StageTimeout({ pipeline: "tickets", stage: "summary", after: Duration.seconds(1) }),
    what: words("tickets: stage summary did not answer"),
    evidence: { fields: ["pipeline", "stage", "after"], words: "within 1s" },
    comeBack: none("the retry of the stage applies"),
    change: fields("after")
  },
  {
    error: new TruncatedStream({ target: "openai", parts: 7, hadOutput: true }),
    what: words("openai: answer truncated"),
    evidence: { fields: ["target", "parts", "hadOutput"], words: "after 7 parts" },
    comeBack: ordinaryFailure,
    change: none("the provider or a proxy ended the connection")
  },
  {
    error: new EmptyAnswer({ target: "openai" }),
    what: words("openai: the answer is complete and empty"),
    evidence: fields("target"),
    comeBack: none("at once; `reasks` of the model limits how often"),
    change: none("the prompt, if the answer stays empty")
  },
  {
    error: new MalformedEvent({ target: "openai", sample: canary }),
    what: words("openai: malformed event"),
    evidence: fields("target", "sample"),
    comeBack: ordinaryFailure,
    change: none("the sample shows what answered, such as the page of another server")
  },
  {
    error: new FirstTokenTimeout({ target: "openai", limit: Duration.seconds(2) }),
    what: words("openai: no first token"),
    evidence: { fields: ["target", "limit"], words: "within 2s" },
    comeBack: ordinaryFailure,
    change: fields("limit")
  },
  {
    error: new IdleTimeout({ target: "openai", limit: Duration.seconds(2), parts: 7 }),
    what: words("openai: silent for 2s"),
    evidence: { fields: ["target", "limit", "parts"], words: "after 7 parts" },
    comeBack: ordinaryFailure,
    change: fields("limit")
  },
  {
    error: new ModelNotOffered({ model: "huge", offered: ["large", "small"] }),
    what: words("no target offers the model"),
    evidence: { fields: ["model"], words: "\"huge\"" },
    comeBack: none("it fails every time until the model or the targets are changed"),
    change: { fields: ["offered"], words: "offered: large, small" }
  },
  {
    error: new NoTarget({
      targets: [{ target: "openai", why: "CircuitOpen", retryAfter: Duration.seconds(3) }, {
        target: "local",
        why: "Busy"
      }],
      retryAfter: Duration.seconds(3)
    }),
    what: words("no target is available"),
    evidence: { fields: ["targets"], words: "openai has an open circuit, local is busy" },
    comeBack: { fields: ["retryAfter"], words: "in 3s" },
    change: recovers
  },
  {
    error: new StoreError({ operation: "record", description: "connection refused" }),
    what: words("record failed"),
    evidence: { fields: ["operation", "description"], words: "connection refused" },
    comeBack: none("the breaker tries a failed store again after a second"),
    change: words("connection refused")
  },
  {
    error: new FlightAbandoned({ operation: "summary" }),
    what: words("operation summary: the flight"),
    evidence: words("ended without an answer"),
    comeBack: none("at once: the next call starts a new flight"),
    change: none("the holder of the claim left; the caller cannot change that")
  },
  {
    error: new TooManyWaiters({ policy: "gpt", operation: "summary", waiting: 10, maxWaiters: 10 }),
    what: words("gpt: "),
    evidence: { fields: ["policy", "operation", "waiting", "maxWaiters"], words: "10 of at most 10 callers wait" },
    comeBack: words("when it has ended"),
    change: words("raise maxWaiters")
  },
  {
    error: new InvalidOptions({
      module: "Backpressure",
      issues: [{ option: "capacity", actual: -1, requirement: "must be a whole number of at least 1" }]
    }),
    what: words("Backpressure"),
    evidence: { fields: ["module", "issues"], words: "capacity is -1" },
    comeBack: permanent,
    change: words("must be a whole number of at least 1")
  },
  {
    error: new InvalidKey({ operation: "summary", path: `.${canary}[2]`, found: "a function" }),
    what: words("no key for operation summary"),
    evidence: { fields: ["operation", "path", "found"], words: "has a function" },
    comeBack: permanent,
    change: words("Select the fields that matter")
  },
  {
    error: new ListenError({ port: 80, code: "EACCES" }),
    what: words("cannot listen on 127.0.0.1:80"),
    evidence: { fields: ["port", "code"], words: "EACCES" },
    comeBack: none("when the port is free"),
    change: fields("port")
  },
  {
    error: new AnswerError({ status: 429, message: "slow down" }),
    what: words("slow down"),
    evidence: fields("status"),
    comeBack: none("the test chose this answer"),
    change: none("the test chose this answer")
  },
  {
    error: new InputTooLarge({ bytes: 70_000, allowedBytes: 65_536 }),
    what: words("the prompt"),
    evidence: { fields: ["bytes", "allowedBytes"], words: "has 70000 bytes" },
    comeBack: permanent,
    change: words("shorten or split it")
  },
  {
    error: new LocalModelStopped({ why: "Died" }),
    what: words("the local model's thread died"),
    evidence: fields("why"),
    comeBack: words("the next call starts a new one"),
    change: none("nothing: the next call starts a new thread")
  },
  {
    error: new LocalModelStopped({ why: "Closed" }),
    what: words("the local model is closed"),
    evidence: fields("why"),
    comeBack: none("never: its layer is closed"),
    change: words("the scope of its layer was closed")
  },
  {
    error: new ProbedTooLittle({ interrupted: 3, points: 301 }),
    what: words("3 of 301 runs were interrupted"),
    evidence: fields("interrupted", "points"),
    comeBack: permanent,
    change: words("Make the body take more turns")
  },
  {
    error: new AskLater({
      reason: "The rate limit of main was reached",
      isCall: true,
      retryAfter: Duration.seconds(3)
    }),
    what: words("The rate limit of main"),
    evidence: fields("reason", "isCall"),
    comeBack: fields("retryAfter"),
    change: none("the worker asks again by itself")
  },
  {
    error: new BatchNotFound({ id: "batch_1" }),
    what: words("No batch has the id batch_1"),
    evidence: fields("id"),
    comeBack: permanent,
    change: words("list the batches")
  },
  {
    error: new FileNotFound({ id: "file-1" }),
    what: words("No file has the id file-1"),
    evidence: fields("id"),
    comeBack: permanent,
    change: words("upload it again")
  },
  {
    error: new FileInUse({ id: "file-1" }),
    what: words("uses the file file-1"),
    evidence: fields("id"),
    comeBack: none("when the batch has ended"),
    change: words("Cancel the batch first")
  },
  {
    error: new BatchRunning({ id: "batch_1", state: "in_progress" }),
    what: words("Batch batch_1 is in_progress"),
    evidence: fields("id", "state"),
    comeBack: none("when the batch has ended"),
    change: words("Cancel it first")
  },
  {
    error: new BudgetSpent({ id: "batch_1", micros: 990_000, maxMicros: 1_000_000 }),
    what: words("Batch batch_1 has spent"),
    evidence: fields("id", "micros", "maxMicros"),
    comeBack: permanent,
    change: words("Retry it with a larger budget")
  },
  {
    error: new BatchStoreError({ operation: "read a batch", reason: "ConnectionError", isRetryable: true }),
    what: words("failed to read a batch"),
    evidence: fields("operation", "reason", "isRetryable"),
    comeBack: none("when the database answers"),
    change: words("Try again")
  },
  {
    error: new InvalidRequest({ seq: 4, why: "DuplicateKey" }),
    what: words("Request 5 has the key of another request"),
    evidence: fields("seq", "why"),
    comeBack: permanent,
    change: words("Give each request its own key")
  },
  {
    error: new TablesOutdated({ migrations: "stores", command: "sluice migrate URL", found: 1, needed: 2 }),
    what: words("stores: the tables"),
    evidence: { fields: ["migrations", "found", "needed"], words: "have version 1, and version 2 is needed" },
    comeBack: none("when the tables are migrated"),
    change: words("Run `sluice migrate URL`")
  },
  {
    error: new MigrationFailed({ migrations: "stores", description: "42501; use a role that may create tables" }),
    what: words("Nothing was changed"),
    evidence: { fields: ["migrations", "description"], words: "42501" },
    comeBack: none("a person has to find out why"),
    change: words("use a role that may create tables")
  },
  {
    error: new ContractBroken({ check: "lease", promise: "a lease expires", expected: "free", actual: "taken" }),
    what: words("promised: a lease expires"),
    evidence: fields("check", "expected", "actual"),
    comeBack: permanent,
    change: words("expected: free")
  },
  {
    error: new ModelDiffers({ seed: 7, commands: ["read", "record 0"], expected: "ok", actual: "not ok" }),
    what: words("seed 7"),
    evidence: fields("seed", "commands", "expected", "actual"),
    comeBack: permanent,
    change: words("expected: ok")
  }
]

/** An error class that is a schema. */
type ErrorClass = (abstract new(...args: never) => Error) & Schema.Codec<Error, unknown> & {
  readonly fields: Readonly<Record<string, unknown>>
}

const isErrorClass = (value: unknown): value is ErrorClass =>
  typeof value === "function" && value.prototype instanceof Error && Schema.isSchema(value)

const classOf = (error: Error): ErrorClass => {
  const { constructor } = error
  if (!isErrorClass(constructor)) throw new Error(`${error.name} has no schema`)
  return constructor
}

const exported = async (): Promise<ReadonlySet<ErrorClass>> => {
  const modules = globSync("packages/{core,ai,redis,sql,batch,local-model,testing}/src/**/*.ts", {
    cwd: root,
    exclude: ["**/internal/**"]
  })
  const classes = new Set<ErrorClass>()
  for (const module of modules) {
    const members: object = await import(/* @vite-ignore */ `${root}${module}`)
    for (const member of Object.values(members)) if (isErrorClass(member)) classes.add(member)
  }
  return classes
}

const encode = (error: Error): unknown => JSON.parse(JSON.stringify(Schema.encodeSync(classOf(error))(error)))

describe("errors", () => {
  it("the table has every error class that a package exports", async () => {
    const names = (classes: Iterable<ErrorClass>) => [...new Set([...classes].map(({ name }) => name))].toSorted()
    assert.deepStrictEqual(names(table.map(({ error }) => classOf(error))), names(await exported()))
  })

  it("every error has a unique schema id that ends with its tag", () => {
    // The name of an error is the id of its schema.
    const ids = new Map(table.map(({ error }) => [classOf(error), error.name]))
    assert.strictEqual(new Set(ids.values()).size, ids.size)
    for (const { error: { name, ...fields } } of table) {
      assert.match(name, /^@sluice\/[a-z-]+(\/testing)?\/[A-Z][A-Za-z]{3,20}$/)
      assert.isTrue(name.endsWith(`/${String(Reflect.get(fields, "_tag"))}`), name)
    }
  })

  for (const { change, comeBack, error, evidence, what } of table) {
    describe(`${String(Reflect.get(error, "_tag"))}: ${error.message.split("\n")[0]}`, () => {
      const answers = {
        "what failed": what,
        "the evidence": evidence,
        "when to come back": comeBack,
        "what to change": change
      }
      for (const [question, answer] of Object.entries(answers)) {
        it(
          answer.none === undefined
            ? `the error says ${question}`
            : `the error need not say ${question}: ${answer.none}`,
          () => {
            for (const field of answer.fields ?? []) {
              assert.property(classOf(error).fields, field)
              assert.isDefined(Reflect.get(error, field), field)
            }
            if (answer.words !== undefined) assert.include(error.message, answer.words)
          }
        )
      }

      it.effect("the error is unchanged after JSON", () =>
        Effect.gen(function*() {
          const decoded = yield* Schema.decodeUnknownEffect(classOf(error))(encode(error))
          assert.deepStrictEqual(decoded, error)
          assert.strictEqual(decoded.constructor, error.constructor)
          assert.strictEqual(decoded.message, error.message)
          assert.propertyVal(encode(error), "_tag", Reflect.get(error, "_tag"))
        }))

      it("the message and the stack contain no key", () => {
        for (const field of ["key", "path"]) {
          if (field in classOf(error).fields) assert.include(String(Reflect.get(error, field)), canary)
        }
        assert.notInclude(error.message, canary)
        assert.notInclude(String(error), canary)
        assert.notInclude(error.stack ?? "", canary)
      })
    })
  }

  it.effect("InvalidOptions keeps the actual value after JSON, even if JSON cannot represent it", () =>
    Effect.sync(() => {
      for (
        const actual of [Number.NaN, Number.POSITIVE_INFINITY, undefined, 10n, Symbol("s"), Object.create(null), []]
      ) {
        const issue = { option: "capacity", actual, requirement: "must be a whole number" }
        const error = new InvalidOptions({ module: "Backpressure", issues: [issue] })
        const decoded = Schema.decodeUnknownSync(InvalidOptions)(encode(error))
        assert.strictEqual(decoded.message, error.message)
        assert.notInclude(decoded.message, "null")
      }
    }))
})
