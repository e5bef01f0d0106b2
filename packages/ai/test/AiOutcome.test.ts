import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Exit } from "effect"
import { AiError } from "effect/ai"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AiRejection from "@sluice/ai/AiRejection"
import { BackpressureShed } from "@sluice/core/Backpressure"
import { CircuitOpen } from "@sluice/core/CircuitBreaker"
import { DeadlineExceeded } from "@sluice/core/Deadline"
import { AttemptTimeout } from "@sluice/core/Sluice"

const error = (reason: AiError.AiErrorReason) => AiError.make({ module: "Test", method: "generateText", reason })

const http = (status: number, headers: Record<string, string> = {}) => ({ response: { status, headers } })

const says = (error: AiError.AiError): string => {
  const outcome = AiOutcome.fromAiError(error)
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

const denied = (kind: AiError.AuthenticationError["kind"], description?: string) =>
  new AiError.AuthenticationError({ kind, description })
const advises = (advice: string, status: number) => ({ response: { status, headers: { "x-should-retry": advice } } })

/** What it is, the reason, its outcome and its remedy. */
const table: ReadonlyArray<readonly [string, AiError.AiErrorReason, string, AiOutcome.Remedy]> = [
  ["a rate limit", new AiError.RateLimitError({}), "Throttled", "Wait"],
  ["a rate limit with a wait", new AiError.RateLimitError({ retryAfter: Duration.seconds(2) }), "Throttled 2s", "Wait"],
  [
    "a rate limit that says its wait in words",
    new AiError.RateLimitError({ http: { ...http(429), body: "Please try again in 634ms." } }),
    "Throttled 634ms",
    "Wait"
  ],
  [
    "a rate limit, by another adapter, that says that the quota is used up",
    new AiError.RateLimitError({ http: { ...http(429), body: `{"error":{"code":"insufficient_quota"}}` } }),
    "Ignored",
    "Credential"
  ],
  [
    "a rate limit by the minute in Google's words, which speak of a quota",
    new AiError.RateLimitError({
      http: { ...http(429), body: "You exceeded your current quota, please check your plan. Please retry in 26.5s." }
    }),
    "Throttled 26s 500ms",
    "Wait"
  ],
  [
    "a rate limit that is an overload",
    new AiError.RateLimitError({ http: http(529) }),
    "Failure retryable weight 1",
    "Retry"
  ],
  [
    "a fault of the provider",
    new AiError.InternalProviderError({ description }),
    "Failure retryable weight 1",
    "Retry"
  ],
  [
    "a fault of the provider with a wait",
    new AiError.InternalProviderError({ description, http: http(503, { "retry-after": "4" }) }),
    "Failure retryable 4s weight 1",
    "Retry"
  ],
  [
    "a 429 that is called a fault",
    new AiError.InternalProviderError({ description, http: http(429) }),
    "Throttled",
    "Wait"
  ],
  [
    "a fault of a local server, whose prompt was too long",
    new AiError.InternalProviderError({
      description: "the request exceeds the available context size",
      http: http(500)
    }),
    "Ignored",
    "Context"
  ],
  [
    "a fault of a gateway, whatever it says of contexts",
    new AiError.InternalProviderError({ description: "no server with this context size is up", http: http(503) }),
    "Failure retryable weight 1",
    "Retry"
  ],
  ["a lost connection", network("TransportError"), "Failure retryable weight 1", "Retry"],
  ["a request that cannot be encoded", network("EncodeError"), "Ignored", "Final"],
  ["a URL that is none", network("InvalidUrlError"), "Ignored", "Elsewhere"],
  [
    "an answer in another format",
    new AiError.InvalidResponseError({ description }),
    "Failure final weight 1",
    "Elsewhere"
  ],
  ["a bad request", new AiError.InvalidRequestError({ http: http(400) }), "Ignored", "Final"],
  ["a bad request, within a stream", new AiError.InvalidRequestError({ http: http(200) }), "Ignored", "Final"],
  ["a bad request that nothing is known of", new AiError.InvalidRequestError({}), "Ignored", "Final"],
  ["a model that is not found", new AiError.InvalidRequestError({ http: http(404) }), "Ignored", "Elsewhere"],
  ["a redirect", new AiError.InvalidRequestError({ http: http(307) }), "Ignored", "Elsewhere"],
  ["another server's URL", new AiError.InvalidRequestError({ http: http(405) }), "Ignored", "Elsewhere"],
  ["a request that is too large", new AiError.InvalidRequestError({ http: http(413) }), "Ignored", "Context"],
  [
    "a prompt that is too long by a code that Effect's adapter noted",
    new AiError.InvalidRequestError({
      http: http(400),
      metadata: { openai: { errorCode: "context_length_exceeded", errorType: null } }
    }),
    "Ignored",
    "Context"
  ],
  [
    "no money left, as a bad request",
    new AiError.InvalidRequestError({
      description: "Your credit balance is too low to access the API",
      http: http(400)
    }),
    "Ignored",
    "Credential"
  ],
  ...[408, 409, 425, 529].flatMap((status) => [
    [
      `a bad request with ${status}, as other adapters name it`,
      new AiError.InvalidRequestError({ http: http(status) }),
      "Failure retryable weight 1",
      "Retry"
    ] as const,
    [
      `an unknown ${status}, with a wait`,
      new AiError.UnknownError({ http: http(status, { "retry-after": "1" }) }),
      "Failure retryable 1s weight 1",
      "Retry"
    ] as const
  ]),
  ["an unknown 429", new AiError.UnknownError({ http: http(429, { "retry-after": "1" }) }), "Throttled 1s", "Wait"],
  ["an unknown 502", new AiError.UnknownError({ http: http(502) }), "Failure retryable weight 1", "Retry"],
  ["an unknown 402", new AiError.UnknownError({ http: http(402) }), "Ignored", "Credential"],
  ["an unknown 404", new AiError.UnknownError({ http: http(404) }), "Ignored", "Elsewhere"],
  ["an unknown 413", new AiError.UnknownError({ http: http(413) }), "Ignored", "Context"],
  ["an unknown 422", new AiError.UnknownError({ http: http(422) }), "Ignored", "Final"],
  ["an unknown redirect", new AiError.UnknownError({ http: http(302) }), "Ignored", "Elsewhere"],
  ["something unknown", new AiError.UnknownError({}), "Failure final weight 1", "Elsewhere"],
  [
    "something unknown within an answer",
    new AiError.UnknownError({ http: http(200) }),
    "Failure final weight 1",
    "Elsewhere"
  ],
  [
    "something unknown within an answer, with the words of a prompt too long",
    new AiError.UnknownError({ description: "prompt is too long: 3 tokens > 2 maximum", http: http(200) }),
    "Ignored",
    "Context"
  ],
  ["a wrong key", denied("InvalidKey"), "Ignored", "Credential"],
  ["a key without the right", denied("InsufficientPermissions"), "Ignored", "Credential"],
  [
    "a key without this model",
    denied("InsufficientPermissions", "Project `p` does not have access to model `m`"),
    "Ignored",
    "Elsewhere"
  ],
  [
    "a key in the wrong country",
    denied("InsufficientPermissions", "HTTP 403 (unsupported_country_region_territory)"),
    "Ignored",
    "Elsewhere"
  ],
  ["an empty account", new AiError.QuotaExhaustedError({}), "Ignored", "Credential"],
  ["a question against the rules", new AiError.ContentPolicyError({ description }), "Ignored", "Final"],
  ["a schema that is not supported", new AiError.UnsupportedSchemaError({ description }), "Ignored", "Elsewhere"],
  ["input that is not supported", new AiError.InvalidUserInputError({ description }), "Ignored", "Elsewhere"],
  [
    "a tool that is set up wrong",
    new AiError.ToolConfigurationError({ toolName: "t", description }),
    "Ignored",
    "Final"
  ],
  ["a toolkit that is missing", new AiError.ToolkitRequiredError({ pendingApprovals: [] }), "Ignored", "Final"],
  [
    "a tool's result of another type",
    new AiError.InvalidToolResultError({ toolName: "t", description }),
    "Ignored",
    "Final"
  ],
  [
    "a tool's result that cannot be encoded",
    new AiError.ToolResultEncodingError({ toolName: "t", toolResult: 1, description }),
    "Ignored",
    "Final"
  ],
  ["output that does not fit", new AiError.InvalidOutputError({ description }), "Success", "Reask"],
  [
    "an object that does not fit",
    new AiError.StructuredOutputError({ description, responseText: "" }),
    "Success",
    "Reask"
  ],
  [
    "a call of a tool that does not exist",
    new AiError.ToolNotFoundError({ toolName: "t", availableTools: [] }),
    "Success",
    "Reask"
  ],
  [
    "a call of a tool with wrong parameters",
    new AiError.ToolParameterValidationError({ toolName: "t", description }),
    "Success",
    "Reask"
  ],
  [
    "a fault that is not to be repeated",
    new AiError.InternalProviderError({ description, http: advises("false", 500) }),
    "Failure final weight 1",
    "Elsewhere"
  ],
  [
    "a rate limit that is not to be waited for",
    new AiError.RateLimitError({ http: advises("false", 429) }),
    "Ignored",
    "Credential"
  ],
  [
    "a rate limit that may be repeated",
    new AiError.RateLimitError({ http: advises("true", 429) }),
    "Throttled",
    "Wait"
  ],
  [
    "a bad request that may be repeated",
    new AiError.InvalidRequestError({ http: advises("true", 400) }),
    "Failure retryable weight 1",
    "Retry"
  ],
  [
    "a bad request that is not to be repeated",
    new AiError.InvalidRequestError({ http: advises("false", 400) }),
    "Ignored",
    "Final"
  ],
  [
    "a prompt that is too long, though it may be repeated",
    new AiError.InvalidRequestError({ description: "prompt is too long", http: advises("true", 400) }),
    "Ignored",
    "Context"
  ],
  [
    "advice that is none",
    new AiError.InternalProviderError({ description, http: advises("maybe", 500) }),
    "Failure retryable weight 1",
    "Retry"
  ]
]

const target = "openai"
const limit = Duration.seconds(1)
const noTarget = (...why: ReadonlyArray<AiRejection.Unavailable["why"]>) =>
  new AiRejection.NoTarget({ targets: why.map((why) => ({ target, why })) })

const rejections: ReadonlyArray<readonly [AiRejection.Rejection, string, AiOutcome.Remedy]> = [
  [
    new CircuitOpen({ policy: "p", key: target, state: "Open", retryAfter: limit, calls: 5, failures: 5, slow: 0 }),
    "Ignored",
    "Wait"
  ],
  [
    new BackpressureShed({ policy: "p", why: "Full", permits: 1, depth: 1, queued: 0, capacity: 1 }),
    "Ignored",
    "Wait"
  ],
  [noTarget("CircuitOpen", "Credential"), "Ignored", "Wait"],
  [noTarget("RateLimited", "ContextTooSmall"), "Ignored", "Wait"],
  [noTarget(), "Ignored", "Wait"],
  [noTarget("Credential", "Credential"), "Ignored", "Credential"],
  [noTarget("ContextTooSmall"), "Ignored", "Context"],
  [new DeadlineExceeded({ at: "Queue", budget: limit }), "Ignored", "Final"],
  [new AttemptTimeout({ after: limit }), "Failure retryable weight 1", "Retry"],
  [new AiRejection.FirstTokenTimeout({ target, limit }), "Failure retryable weight 1", "Retry"],
  [new AiRejection.IdleTimeout({ target, limit, parts: 1 }), "Failure retryable weight 1", "Retry"],
  [new AiRejection.TruncatedStream({ target, parts: 1, hadOutput: true }), "Failure retryable weight 1", "Retry"],
  [new AiRejection.MalformedEvent({ target, sample: "{" }), "Failure retryable weight 1", "Retry"],
  [new AiRejection.EmptyAnswer({ target }), "Success", "Reask"]
]

/** What users of each have reported, for a prompt that is too long. */
const tooLong: ReadonlyArray<readonly [string, string]> = [
  ["OpenAI", "This model's maximum context length is 8192 tokens. However, your messages resulted in 8545 tokens."],
  ["OpenAI, Responses", "Your input exceeds the context window of this model. Please adjust your input and try again."],
  ["OpenAI, by code", `{"error":{"message":"Input too long.","code":"context_length_exceeded"}}`],
  ["Anthropic", "prompt is too long: 213462 tokens > 200000 maximum"],
  ["Anthropic, with its output", "input length and `max_tokens` exceed context limit: 199211 + 8192 > 200000"],
  ["Anthropic, by size", `{"error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}`],
  ["Gemini", "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)."],
  ["Mistral", "Prompt contains 40046 tokens and 0 draft tokens, too large for model with 32768 maximum context length"],
  ["Groq", "Please reduce the length of the messages or completion."],
  ["Groq, by its rate", "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 7000"],
  ["xAI", "This model's maximum prompt length is 131072 but the request contains 537812 tokens."],
  ["vLLM", "The decoder prompt (length 9000) is longer than the maximum model length of 8192."],
  ["SGLang", "length of prompt_tokens (163280) must be less than max_seq_len (32768)."],
  ["Ollama", "prompt too long; exceeded max context length by 4096 tokens"],
  ["llama.cpp", "the request exceeds the available context size, try increasing it"],
  ["llama.cpp, by type", `{"error":{"code":400,"type":"exceed_context_size_error","n_ctx":4096}}`],
  ["LM Studio", "tokens to keep from the initial prompt is greater than the context length"],
  ["Bedrock", "The model returned the following errors: Input is too long for requested model."],
  ["OpenRouter", "This endpoint's maximum context length is 131072 tokens. However, you requested about 140213 tokens"],
  ["Poolside", "Input length 300000 exceeds the maximum allowed input length of 262144 tokens."],
  ["Together", "The input (300 tokens) is longer than the model's context length (200 tokens)."],
  ["Copilot", "prompt token count of 5000 exceeds the limit of 4096"],
  ["Kimi", "Your request exceeded model token limit: 128000 (requested: 140000)"],
  ["MiniMax", "invalid params, context window exceeds limit"],
  ["Qwen", "Range of input length should be [1, 30000]"],
  ["Text Generation Inference", "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens"]
]

const noSuchModel: ReadonlyArray<readonly [string, string]> = [
  ["OpenAI", "The model `gpt-9.1` does not exist or you do not have access to it."],
  ["OpenAI, by code", `{"error":{"code":"model_not_found"}}`],
  ["DeepSeek", "Model Not Exist"],
  ["Mistral", "Invalid model: mistral-huge"],
  ["Groq", "The model `llama2-70b-4096` has been decommissioned and is no longer supported."],
  ["Bedrock", "The provided model identifier is invalid."],
  ["Bedrock, without access", "You don't have access to the model with the specified model ID."],
  ["OpenRouter", "openai/gpt-99 is not a valid model ID"],
  ["Gemini", "models/gemini-9.9-pro is not found for API version v1beta, or is not supported for generateContent."],
  ["Gemini, from where it is not served", "User location is not supported for the API use."],
  ["Ollama", `model "llama9.1" not found, try pulling it first`],
  [
    "Anthropic on Bedrock",
    "Access to Anthropic models is not allowed from unsupported countries, regions, or territories."
  ]
]

const mistakes: ReadonlyArray<string> = [
  "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
  "Invalid value for 'temperature': must be <= 2",
  "messages: roles must alternate between \"user\" and \"assistant\"",
  "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for claude-3-5-sonnet",
  "Invalid schema for function 'f': not of type 'object'",
  "tool_use ids were found without tool_result blocks immediately after"
]

describe("AiOutcome.fromAiError", () => {
  for (const [what, reason, outcome] of table) {
    it(`${what} is ${outcome}`, () => assert.strictEqual(says(error(reason)), outcome))
  }

  for (const [rejection, outcome] of rejections) {
    it(`${rejection.message} is ${outcome}`, () => {
      const error = AiRejection.toAiError(rejection, "generateText")
      assert.strictEqual(says(error), outcome)
      // As it comes from another process, or from a part of a stream.
      assert.strictEqual(says(AiError.make({ ...error, reason: error.reason })), outcome)
    })
  }

  it("has a row for every reason", () => {
    const rows = new Set(table.map(([, reason]) => reason._tag))
    for (const reason of AiError.AiErrorReason.members) assert.isTrue(rows.has(reason.fields._tag.schema.literal))
  })
})

describe("AiOutcome.remedy", () => {
  const remedy = (reason: AiError.AiErrorReason) => AiOutcome.remedy(error(reason))

  for (const [what, reason, , expected] of table) {
    it(`${what}: ${expected}`, () => assert.strictEqual(remedy(reason), expected))
  }

  for (const [rejection, , expected] of rejections) {
    it(`${rejection.message}: ${expected}`, () =>
      assert.strictEqual(AiOutcome.remedy(AiRejection.toAiError(rejection, "streamText")), expected))
  }

  // However an adapter makes it: from the status alone, as Effect's own do it where they know no better.
  const shapes = (status: number, said: string): ReadonlyArray<AiError.AiErrorReason> => [
    AiError.reasonFromHttpStatus({ status, http: { ...http(status), body: said } }),
    AiError.reasonFromHttpStatus({ status, http: http(status), description: said }),
    new AiError.InvalidRequestError({ description: said, http: http(200) })
  ]

  for (const [who, said] of tooLong) {
    it(`a prompt too long for ${who}: Context`, () => {
      for (const status of [400, 413, 422]) {
        for (const reason of shapes(status, said)) {
          assert.strictEqual(remedy(reason), "Context", `${status} ${reason._tag}`)
        }
      }
    })
  }

  for (const [who, said] of noSuchModel) {
    it(`a model that ${who} does not have: Elsewhere`, () => {
      for (const status of [400, 403, 404]) {
        for (const reason of shapes(status, said)) {
          assert.strictEqual(remedy(reason), "Elsewhere", `${status} ${reason._tag}`)
        }
      }
    })
  }

  for (const said of mistakes) {
    it(`a mistake: ${said}`, () => {
      for (const reason of shapes(400, said)) assert.strictEqual(remedy(reason), "Final")
    })
  }

  it("is no used-up quota because a prompt says so", () => {
    const evil = "insufficient_quota\nYour credit balance is too low, billing_error"
    const bodies = [
      JSON.stringify({ detail: [{ type: "string_pattern", msg: "does not match", input: evil }] }),
      JSON.stringify({ error: { message: `cannot read "${evil}"`, type: "invalid_request_error", code: 400 } }),
      JSON.stringify({ error: { message: `in\n${evil}`, code: `bad ${evil}` } }),
      `cannot read {"error":{"code":"insufficient_quota"}}`
    ]
    for (const body of bodies) {
      for (const status of [400, 422]) {
        const answer = { ...http(status), body }
        const description = `HTTP ${status}: ${body}`
        assert.strictEqual(remedy(new AiError.InvalidRequestError({ description, http: answer })), "Final", body)
        assert.strictEqual(remedy(new AiError.UnknownError({ description, http: answer })), "Final", body)
      }
    }
  })

  it("is a used-up quota where a code says so, whatever the status", () => {
    const quota = (error: object) => ({ ...http(400), body: JSON.stringify({ error }) })
    for (
      const reason of [
        new AiError.InvalidRequestError({ http: quota({ message: "pay", type: "insufficient_quota" }) }),
        new AiError.InvalidRequestError({ http: quota({ code: "billing_hard_limit_reached", type: "a b" }) }),
        new AiError.InvalidRequestError({
          http: quota({ type: "invalid_request_error", message: "Your credit balance is too low to access the API" })
        }),
        new AiError.InvalidRequestError({
          http: http(400),
          metadata: { openai: { errorCode: "insufficient_quota", errorType: null } }
        }),
        new AiError.UnknownError({ description: "insufficient_quota", http: http(429) })
      ]
    ) {
      assert.strictEqual(remedy(reason), "Credential")
    }
  })

  it("reads no more of a body than its beginning", () => {
    const body = `${" ".repeat(5000)}prompt is too long`
    assert.strictEqual(remedy(new AiError.InvalidRequestError({ http: { ...http(400), body } })), "Final")
  })

  it("is what Effect's map of statuses leaves open", () => {
    const byStatus = (status: number) => remedy(AiError.reasonFromHttpStatus({ status, http: http(status) }))
    const all = [400, 401, 402, 403, 404, 408, 409, 410, 413, 422, 425, 429, 500, 502, 503, 504, 529].map(byStatus)
    assert.deepStrictEqual(all, [
      "Final",
      "Credential",
      "Credential",
      "Credential",
      "Elsewhere",
      "Retry",
      "Retry",
      "Elsewhere",
      "Context",
      "Final",
      "Retry",
      "Wait",
      "Retry",
      "Retry",
      "Retry",
      "Retry",
      "Retry"
    ])
  })

  it("never contradicts the outcome", () => {
    const allowed: { readonly [_ in AiOutcome.Remedy]: ReadonlyArray<string> } = {
      Retry: ["Failure retryable"],
      Wait: ["Throttled", "Ignored"],
      Credential: ["Ignored"],
      Context: ["Ignored"],
      Elsewhere: ["Ignored", "Failure final"],
      Reask: ["Success"],
      Final: ["Ignored"]
    }
    const errors = [
      ...table.map(([, reason]) => error(reason)),
      ...rejections.map(([rejection]) => AiRejection.toAiError(rejection, "generateText"))
    ]
    for (const each of errors) {
      const outcome = says(each)
      assert.isTrue(allowed[AiOutcome.remedy(each)].some((start) => outcome.startsWith(start)), each.message)
    }
  })
})

describe("AiOutcome.classify", () => {
  const tooMany = error(new AiError.RateLimitError({}))

  it("reads the first failure of an exit", () => {
    assert.strictEqual(AiOutcome.classify(Exit.fail(tooMany), 0)?._tag, "Throttled")
    assert.strictEqual(
      AiOutcome.classify(Exit.failCause(Cause.combine(Cause.interrupt(1), Cause.fail(tooMany))), 0)?._tag,
      "Throttled"
    )
  })

  it("passes on what is no AiError: successes, other failures, defects and interruptions", () => {
    assert.isUndefined(AiOutcome.classify(Exit.succeed(tooMany), 0))
    assert.isUndefined(AiOutcome.classify(Exit.fail("other"), 0))
    assert.isUndefined(AiOutcome.classify(Exit.fail({ _tag: "AiError" }), 0))
    assert.isUndefined(AiOutcome.classify(Exit.die(tooMany), 0))
    assert.isUndefined(AiOutcome.classify(Exit.interrupt(1), 0))
  })

  it("passes on a failure beside a defect, which is stronger", () => {
    assert.isUndefined(AiOutcome.classify(Exit.failCause(Cause.combine(Cause.fail(tooMany), Cause.die("bug"))), 0))
  })
})
