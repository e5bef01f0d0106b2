import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Exit } from "effect"
import { AiError } from "effect/ai"
import * as AiOutcome from "@sluice/ai/AiOutcome"

const error = (reason: AiError.AiErrorReason) => AiError.make({ module: "Test", method: "generateText", reason })

const http = (status: number, headers: Record<string, string> = {}) => ({ response: { status, headers } })

const says = (reason: AiError.AiErrorReason): string => {
  const outcome = AiOutcome.fromAiError(error(reason))
  switch (outcome._tag) {
    case "Failure":
      return `Failure ${outcome.retryable ? "retryable" : "final"}${wait(outcome.retryAfter)} weight ${outcome.weight}`
    case "Throttled":
      return `Throttled${wait(outcome.retryAfter)}`
    default:
      return outcome._tag
  }
}

const wait = (retryAfter: Duration.Duration | undefined) =>
  retryAfter === undefined ? "" : ` ${Duration.format(retryAfter)}`

const description = "why"
const network = (reason: AiError.NetworkError["reason"]) =>
  new AiError.NetworkError({ reason, method: "POST", url: "http://localhost" })

const table: ReadonlyArray<readonly [string, AiError.AiErrorReason, string]> = [
  ["a rate limit", new AiError.RateLimitError({}), "Throttled"],
  ["a rate limit with a wait", new AiError.RateLimitError({ retryAfter: Duration.seconds(2) }), "Throttled 2s"],
  ["a fault of the provider", new AiError.InternalProviderError({ description }), "Failure retryable weight 1"],
  [
    "a fault of the provider with a wait",
    new AiError.InternalProviderError({ description, http: http(503, { "retry-after": "4" }) }),
    "Failure retryable 4s weight 1"
  ],
  ["a lost connection", network("TransportError"), "Failure retryable weight 1"],
  ["a request that cannot be encoded", network("EncodeError"), "Ignored"],
  ["a URL that is none", network("InvalidUrlError"), "Ignored"],
  ["an answer in another format", new AiError.InvalidResponseError({ description }), "Failure final weight 1"],
  ["a bad request", new AiError.InvalidRequestError({ http: http(400) }), "Ignored"],
  ["a model that is not found", new AiError.InvalidRequestError({ http: http(404) }), "Ignored"],
  [
    "a conflict, as another adapter names it",
    new AiError.InvalidRequestError({ http: http(409) }),
    "Failure retryable weight 1"
  ],
  ["an unknown 408", new AiError.UnknownError({ http: http(408) }), "Failure retryable weight 1"],
  ["an unknown 409", new AiError.UnknownError({ http: http(409) }), "Failure retryable weight 1"],
  ["an unknown 425", new AiError.UnknownError({ http: http(425) }), "Failure retryable weight 1"],
  ["an unknown 429", new AiError.UnknownError({ http: http(429, { "retry-after": "1" }) }), "Throttled 1s"],
  [
    "an unknown 529",
    new AiError.UnknownError({ http: http(529, { "retry-after": "1" }) }),
    "Failure retryable 1s weight 1"
  ],
  ["an unknown 404", new AiError.UnknownError({ http: http(404) }), "Ignored"],
  ["something unknown", new AiError.UnknownError({}), "Failure final weight 1"],
  ["a wrong key", new AiError.AuthenticationError({ kind: "InvalidKey" }), "Ignored"],
  ["an empty account", new AiError.QuotaExhaustedError({}), "Ignored"],
  ["a question against the rules", new AiError.ContentPolicyError({ description }), "Ignored"],
  ["a schema that is not supported", new AiError.UnsupportedSchemaError({ description }), "Ignored"],
  ["input that is not supported", new AiError.InvalidUserInputError({ description }), "Ignored"],
  ["a tool that is set up wrong", new AiError.ToolConfigurationError({ toolName: "t", description }), "Ignored"],
  ["a toolkit that is missing", new AiError.ToolkitRequiredError({ pendingApprovals: [] }), "Ignored"],
  ["a tool's result of another type", new AiError.InvalidToolResultError({ toolName: "t", description }), "Ignored"],
  [
    "a tool's result that cannot be encoded",
    new AiError.ToolResultEncodingError({ toolName: "t", toolResult: 1, description }),
    "Ignored"
  ],
  ["output that does not fit", new AiError.InvalidOutputError({ description }), "Success"],
  [
    "an object that does not fit",
    new AiError.StructuredOutputError({ description, responseText: "" }),
    "Success"
  ],
  [
    "a call of a tool that does not exist",
    new AiError.ToolNotFoundError({ toolName: "t", availableTools: [] }),
    "Success"
  ],
  [
    "a call of a tool with wrong parameters",
    new AiError.ToolParameterValidationError({ toolName: "t", description }),
    "Success"
  ]
]

describe("AiOutcome.fromAiError", () => {
  for (const [what, reason, outcome] of table) {
    it(`${what} is ${outcome}`, () => assert.strictEqual(says(reason), outcome))
  }

  it("has a row for every reason", () => {
    const rows = new Set(table.map(([, reason]) => reason._tag))
    for (const reason of AiError.AiErrorReason.members) assert.isTrue(rows.has(reason.fields._tag.schema.literal))
  })
})

describe("AiOutcome.classify", () => {
  const limit = error(new AiError.RateLimitError({}))

  it("reads the first failure of an exit", () => {
    assert.strictEqual(AiOutcome.classify(Exit.fail(limit), 0)?._tag, "Throttled")
    assert.strictEqual(
      AiOutcome.classify(Exit.failCause(Cause.combine(Cause.interrupt(1), Cause.fail(limit))), 0)?._tag,
      "Throttled"
    )
  })

  it("passes on what is no AiError: successes, other failures, defects and interruptions", () => {
    assert.isUndefined(AiOutcome.classify(Exit.succeed(limit), 0))
    assert.isUndefined(AiOutcome.classify(Exit.fail("other"), 0))
    assert.isUndefined(AiOutcome.classify(Exit.fail({ _tag: "AiError" }), 0))
    assert.isUndefined(AiOutcome.classify(Exit.die(limit), 0))
    assert.isUndefined(AiOutcome.classify(Exit.interrupt(1), 0))
  })

  it("passes on a failure beside a defect, which is stronger", () => {
    assert.isUndefined(AiOutcome.classify(Exit.failCause(Cause.combine(Cause.fail(limit), Cause.die("bug"))), 0))
  })
})
