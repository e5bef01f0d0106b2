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

const describeOutcome = (error: AiError.AiError): string => {
  const outcome = AiOutcome.fromAiError(error)
  switch (outcome._tag) {
    case "Failure":
      return `Failure ${outcome.retryable ? "retryable" : "final"}${
        formatRetryAfter(outcome.retryAfter)
      } weight ${outcome.weight}`
    case "Throttled":
      return `Throttled${formatRetryAfter(outcome.retryAfter)}`
    default:
      return outcome._tag
  }
}

const formatRetryAfter = (retryAfter: Duration.Duration | undefined) =>
  retryAfter === undefined ? "" : ` ${Duration.format(retryAfter)}`

const description = "why"
const network = (reason: AiError.NetworkError["reason"]) =>
  new AiError.NetworkError({ reason, method: "POST", url: "http://localhost" })

const denied = (kind: AiError.AuthenticationError["kind"], description?: string) =>
  new AiError.AuthenticationError({ kind, description })
const shouldRetry = (advice: string, status: number) => ({
  response: { status, headers: { "x-should-retry": advice } }
})

/** Description, reason, outcome, remedy. */
const table: ReadonlyArray<readonly [string, AiError.AiErrorReason, string, AiOutcome.Remedy]> = [
  ["a rate limit", new AiError.RateLimitError({}), "Throttled", "Wait"],
  [
    "a rate limit with a Retry-After",
    new AiError.RateLimitError({ retryAfter: Duration.seconds(2) }),
    "Throttled 2s",
    "Wait"
  ],
  [
    "a rate limit with the delay in its text",
    new AiError.RateLimitError({ http: { ...http(429), body: "Please try again in 634ms." } }),
    "Throttled 634ms",
    "Wait"
  ],
  [
    "another adapter's rate limit whose code is an exhausted quota",
    new AiError.RateLimitError({ http: { ...http(429), body: `{"error":{"code":"insufficient_quota"}}` } }),
    "Ignored",
    "Credential"
  ],
  [
    "Google's rate limit per minute, whose text mentions a quota",
    new AiError.RateLimitError({
      http: { ...http(429), body: "You exceeded your current quota, please check your plan. Please retry in 26.5s." }
    }),
    "Throttled 26s 500ms",
    "Wait"
  ],
  [
    "a rate limit with status 529",
    new AiError.RateLimitError({ http: http(529) }),
    "Failure retryable weight 1",
    "Retry"
  ],
  [
    "a provider error",
    new AiError.InternalProviderError({ description }),
    "Failure retryable weight 1",
    "Retry"
  ],
  [
    "a provider error with a Retry-After",
    new AiError.InternalProviderError({ description, http: http(503, { "retry-after": "4" }) }),
    "Failure retryable 4s weight 1",
    "Retry"
  ],
  [
    "a provider error with status 429",
    new AiError.InternalProviderError({ description, http: http(429) }),
    "Throttled",
    "Wait"
  ],
  [
    "a local server's 500 for a prompt that is too long",
    new AiError.InternalProviderError({
      description: "the request exceeds the available context size",
      http: http(500)
    }),
    "Ignored",
    "Context"
  ],
  [
    "a gateway's 503 whose text mentions a context",
    new AiError.InternalProviderError({ description: "no server with this context size is up", http: http(503) }),
    "Failure retryable weight 1",
    "Retry"
  ],
  ["a lost connection", network("TransportError"), "Failure retryable weight 1", "Retry"],
  ["a request that cannot be encoded", network("EncodeError"), "Ignored", "Final"],
  ["an invalid URL", network("InvalidUrlError"), "Ignored", "Elsewhere"],
  [
    "a response in another format",
    new AiError.InvalidResponseError({ description }),
    "Failure final weight 1",
    "Elsewhere"
  ],
  ["a bad request", new AiError.InvalidRequestError({ http: http(400) }), "Ignored", "Final"],
  ["a bad request within a stream", new AiError.InvalidRequestError({ http: http(200) }), "Ignored", "Final"],
  ["a bad request without details", new AiError.InvalidRequestError({}), "Ignored", "Final"],
  ["a model that is not found", new AiError.InvalidRequestError({ http: http(404) }), "Ignored", "Elsewhere"],
  ["a redirect", new AiError.InvalidRequestError({ http: http(307) }), "Ignored", "Elsewhere"],
  ["a bad request with status 405", new AiError.InvalidRequestError({ http: http(405) }), "Ignored", "Elsewhere"],
  ["a request that is too large", new AiError.InvalidRequestError({ http: http(413) }), "Ignored", "Context"],
  [
    "a prompt that is too long by the code that Effect's adapter records",
    new AiError.InvalidRequestError({
      http: http(400),
      metadata: { openai: { errorCode: "context_length_exceeded", errorType: null } }
    }),
    "Ignored",
    "Context"
  ],
  [
    "a prompt that is too long by this package's description, with a body that is cut",
    new AiError.InvalidRequestError({
      http: { ...http(400), body: `{"error":{"message":"Too long.","code":"context_len` },
      description: "HTTP 400 (context_length_exceeded): Too long."
    }),
    "Ignored",
    "Context"
  ],
  [
    "a bad request whose text says that the credit is used up",
    new AiError.InvalidRequestError({
      description: "Your credit balance is too low to access the API",
      http: http(400)
    }),
    "Ignored",
    "Credential"
  ],
  ...[408, 409, 425, 529].flatMap((status) => [
    [
      `another adapter's bad request with status ${status}`,
      new AiError.InvalidRequestError({ http: http(status) }),
      "Failure retryable weight 1",
      "Retry"
    ] as const,
    [
      `an unknown error with status ${status} and a Retry-After`,
      new AiError.UnknownError({ http: http(status, { "retry-after": "1" }) }),
      "Failure retryable 1s weight 1",
      "Retry"
    ] as const
  ]),
  [
    "an unknown error with status 429",
    new AiError.UnknownError({ http: http(429, { "retry-after": "1" }) }),
    "Throttled 1s",
    "Wait"
  ],
  [
    "an unknown error with status 502",
    new AiError.UnknownError({ http: http(502) }),
    "Failure retryable weight 1",
    "Retry"
  ],
  ["an unknown error with status 402", new AiError.UnknownError({ http: http(402) }), "Ignored", "Credential"],
  ["an unknown error with status 404", new AiError.UnknownError({ http: http(404) }), "Ignored", "Elsewhere"],
  ["an unknown error with status 413", new AiError.UnknownError({ http: http(413) }), "Ignored", "Context"],
  ["an unknown error with status 422", new AiError.UnknownError({ http: http(422) }), "Ignored", "Final"],
  ["an unknown error with status 302", new AiError.UnknownError({ http: http(302) }), "Ignored", "Elsewhere"],
  ["an unknown error", new AiError.UnknownError({}), "Failure final weight 1", "Elsewhere"],
  [
    "an unknown error with status 200",
    new AiError.UnknownError({ http: http(200) }),
    "Failure final weight 1",
    "Elsewhere"
  ],
  [
    "an unknown error with status 200 and the text of a prompt that is too long",
    new AiError.UnknownError({ description: "prompt is too long: 3 tokens > 2 maximum", http: http(200) }),
    "Ignored",
    "Context"
  ],
  ["a wrong key", denied("InvalidKey"), "Ignored", "Credential"],
  ["a key without permission", denied("InsufficientPermissions"), "Ignored", "Credential"],
  [
    "a key without access to the model",
    denied("InsufficientPermissions", "Project `p` does not have access to model `m`"),
    "Ignored",
    "Elsewhere"
  ],
  [
    "a key in an unsupported country",
    denied("InsufficientPermissions", "HTTP 403 (unsupported_country_region_territory)"),
    "Ignored",
    "Elsewhere"
  ],
  ["an exhausted quota", new AiError.QuotaExhaustedError({}), "Ignored", "Credential"],
  ["a prompt against the content policy", new AiError.ContentPolicyError({ description }), "Ignored", "Final"],
  ["an unsupported schema", new AiError.UnsupportedSchemaError({ description }), "Ignored", "Elsewhere"],
  ["unsupported input", new AiError.InvalidUserInputError({ description }), "Ignored", "Elsewhere"],
  [
    "a wrong tool configuration",
    new AiError.ToolConfigurationError({ toolName: "t", description }),
    "Ignored",
    "Final"
  ],
  ["a missing toolkit", new AiError.ToolkitRequiredError({ pendingApprovals: [] }), "Ignored", "Final"],
  [
    "a tool result of the wrong type",
    new AiError.InvalidToolResultError({ toolName: "t", description }),
    "Ignored",
    "Final"
  ],
  [
    "a tool result that cannot be encoded",
    new AiError.ToolResultEncodingError({ toolName: "t", toolResult: 1, description }),
    "Ignored",
    "Final"
  ],
  ["invalid output", new AiError.InvalidOutputError({ description }), "Success", "Reask"],
  [
    "an object that does not match its schema",
    new AiError.StructuredOutputError({ description, responseText: "" }),
    "Success",
    "Reask"
  ],
  [
    "a call of an unknown tool",
    new AiError.ToolNotFoundError({ toolName: "t", availableTools: [] }),
    "Success",
    "Reask"
  ],
  [
    "a tool call with wrong parameters",
    new AiError.ToolParameterValidationError({ toolName: "t", description }),
    "Success",
    "Reask"
  ],
  [
    "a provider error with x-should-retry: false",
    new AiError.InternalProviderError({ description, http: shouldRetry("false", 500) }),
    "Failure final weight 1",
    "Elsewhere"
  ],
  [
    "a rate limit with x-should-retry: false",
    new AiError.RateLimitError({ http: shouldRetry("false", 429) }),
    "Ignored",
    "Credential"
  ],
  [
    "a rate limit with x-should-retry: true",
    new AiError.RateLimitError({ http: shouldRetry("true", 429) }),
    "Throttled",
    "Wait"
  ],
  [
    "a bad request with x-should-retry: true",
    new AiError.InvalidRequestError({ http: shouldRetry("true", 400) }),
    "Failure retryable weight 1",
    "Retry"
  ],
  [
    "a bad request with x-should-retry: false",
    new AiError.InvalidRequestError({ http: shouldRetry("false", 400) }),
    "Ignored",
    "Final"
  ],
  [
    "a prompt that is too long, with x-should-retry: true",
    new AiError.InvalidRequestError({ description: "prompt is too long", http: shouldRetry("true", 400) }),
    "Ignored",
    "Context"
  ],
  [
    "a provider error with an unknown x-should-retry",
    new AiError.InternalProviderError({ description, http: shouldRetry("maybe", 500) }),
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
    new BackpressureShed({ policy: "p", why: "Full", permits: 1, running: 1, queued: 0, capacity: 1 }),
    "Ignored",
    "Wait"
  ],
  [noTarget("CircuitOpen", "Credential"), "Ignored", "Wait"],
  [noTarget("RateLimited", "ContextTooSmall"), "Ignored", "Wait"],
  [noTarget(), "Ignored", "Wait"],
  [noTarget("Credential", "Credential"), "Ignored", "Credential"],
  [noTarget("ContextTooSmall"), "Ignored", "Context"],
  [new DeadlineExceeded({ at: "Queue", budget: limit }), "Ignored", "Final"],
  [new AiRejection.ModelNotOffered({ model: "huge", offered: [] }), "Ignored", "Elsewhere"],
  [new AttemptTimeout({ after: limit }), "Failure retryable weight 1", "Retry"],
  [new AiRejection.FirstTokenTimeout({ target, limit }), "Failure retryable weight 1", "Retry"],
  [new AiRejection.IdleTimeout({ target, limit, parts: 1 }), "Failure retryable weight 1", "Retry"],
  [new AiRejection.TruncatedStream({ target, parts: 1, hadOutput: true }), "Failure retryable weight 1", "Retry"],
  [new AiRejection.MalformedEvent({ target, sample: "{" }), "Failure retryable weight 1", "Retry"],
  [new AiRejection.EmptyAnswer({ target }), "Success", "Reask"]
]

/** Error texts for a prompt that is too long, as users of each provider reported them. */
const tooLong: ReadonlyArray<readonly [string, string]> = [
  ["OpenAI", "This model's maximum context length is 8192 tokens. However, your messages resulted in 8545 tokens."],
  ["OpenAI, Responses", "Your input exceeds the context window of this model. Please adjust your input and try again."],
  ["OpenAI, by code", `{"error":{"message":"Input too long.","code":"context_length_exceeded"}}`],
  ["Anthropic", "prompt is too long: 213462 tokens > 200000 maximum"],
  ["Anthropic, with its output tokens", "input length and `max_tokens` exceed context limit: 199211 + 8192 > 200000"],
  ["Anthropic, by size", `{"error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}`],
  ["Gemini", "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)."],
  ["Mistral", "Prompt contains 40046 tokens and 0 draft tokens, too large for model with 32768 maximum context length"],
  ["Groq", "Please reduce the length of the messages or completion."],
  ["Groq, by its rate limit", "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 7000"],
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
  ["Text Generation Inference", "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens"],
  [
    "Text Generation Inference, with a prefix",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 1097"
  ],
  ["OpenAI, embeddings", "Invalid 'input[0]': maximum context length is 8192 tokens."],
  [
    "vLLM, with its output tokens",
    "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 4096 tokens."
  ],
  [
    "vLLM, in its second sentence",
    "You passed 5001 input tokens and requested 1000 output tokens. However, the model's context length is only 5000 tokens."
  ],
  [
    "LiteLLM",
    "litellm.ContextWindowExceededError: litellm.BadRequestError: OpenAIException - This model's maximum context length is 8192 tokens."
  ],
  [
    "a gateway that passes on an exception",
    `Error code: 400 - {'error': {'message': "This model's maximum context length is 8192 tokens.", 'code': 400}}`
  ],
  ["DashScope", "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]"]
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
  ["Gemini, in an unsupported location", "User location is not supported for the API use."],
  ["Ollama", `model "llama9.1" not found, try pulling it first`],
  [
    "Anthropic on Bedrock",
    "Access to Anthropic models is not allowed from unsupported countries, regions, or territories."
  ]
]

const badRequests: ReadonlyArray<string> = [
  "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
  "Invalid value for 'temperature': must be <= 2",
  "messages: roles must alternate between \"user\" and \"assistant\"",
  "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for claude-3-5-sonnet",
  "Invalid schema for function 'f': not of type 'object'",
  "tool_use ids were found without tool_result blocks immediately after"
]

describe("AiOutcome.fromAiError", () => {
  for (const [what, reason, outcome] of table) {
    it(`${what} is ${outcome}`, () => assert.strictEqual(describeOutcome(error(reason)), outcome))
  }

  for (const [rejection, outcome] of rejections) {
    it(`the rejection "${rejection.message}" is ${outcome}`, () => {
      const error = AiRejection.toAiError(rejection, "generateText")
      assert.strictEqual(describeOutcome(error), outcome)
      // A copy, as it arrives from another process or in a stream part.
      assert.strictEqual(describeOutcome(AiError.make({ ...error, reason: error.reason })), outcome)
    })
  }

  it("the table has a row for every reason", () => {
    const rows = new Set(table.map(([, reason]) => reason._tag))
    for (const reason of AiError.AiErrorReason.members) assert.isTrue(rows.has(reason.fields._tag.schema.literal))
  })
})

describe("AiOutcome.remedy", () => {
  const remedy = (reason: AiError.AiErrorReason) => AiOutcome.remedy(error(reason))

  for (const [what, reason, , expected] of table) {
    it(`the remedy for ${what} is ${expected}`, () => assert.strictEqual(remedy(reason), expected))
  }

  for (const [rejection, , expected] of rejections) {
    it(`the remedy for the rejection "${rejection.message}" is ${expected}`, () =>
      assert.strictEqual(AiOutcome.remedy(AiRejection.toAiError(rejection, "streamText")), expected))
  }

  // The reasons that adapters build for one error text. Effect's adapters can fall back to the status alone.
  const shapes = (status: number, text: string): ReadonlyArray<AiError.AiErrorReason> => [
    AiError.reasonFromHttpStatus({ status, http: { ...http(status), body: text } }),
    AiError.reasonFromHttpStatus({ status, http: http(status), description: text }),
    new AiError.InvalidRequestError({ description: text, http: http(200) })
  ]

  for (const [provider, text] of tooLong) {
    it(`the remedy for a prompt that is too long for ${provider} is Context`, () => {
      for (const status of [400, 413, 422]) {
        for (const reason of shapes(status, text)) {
          assert.strictEqual(remedy(reason), "Context", `${status} ${reason._tag}`)
        }
      }
    })
  }

  for (const [provider, text] of noSuchModel) {
    it(`the remedy for a model that ${provider} does not have is Elsewhere`, () => {
      for (const status of [400, 403, 404]) {
        for (const reason of shapes(status, text)) {
          assert.strictEqual(remedy(reason), "Elsewhere", `${status} ${reason._tag}`)
        }
      }
    })
  }

  for (const text of badRequests) {
    it(`the remedy for the bad request "${text}" is Final`, () => {
      for (const reason of shapes(400, text)) assert.strictEqual(remedy(reason), "Final")
    })
  }

  it("a quota error quoted from a prompt does not change the remedy of a bad request", () => {
    const quoted = "insufficient_quota\nYour credit balance is too low, billing_error"
    const bodies = [
      JSON.stringify({ detail: [{ type: "string_pattern", msg: "does not match", input: quoted }] }),
      JSON.stringify({ error: { message: `cannot read "${quoted}"`, type: "invalid_request_error", code: 400 } }),
      JSON.stringify({ error: { message: `in\n${quoted}`, code: `bad ${quoted}` } }),
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

  it("an exhausted quota is recognised by its code, whatever the status", () => {
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

  it("only the beginning of a body is read", () => {
    const body = `${" ".repeat(5000)}prompt is too long`
    assert.strictEqual(remedy(new AiError.InvalidRequestError({ http: { ...http(400), body } })), "Final")
  })

  it("each status that Effect maps to a reason has its remedy", () => {
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

  it("the remedy never contradicts the outcome", () => {
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
      const outcome = describeOutcome(each)
      assert.isTrue(allowed[AiOutcome.remedy(each)].some((start) => outcome.startsWith(start)), each.message)
    }
  })
})

describe("AiOutcome.classify", () => {
  const tooMany = error(new AiError.RateLimitError({}))

  it("classify reads the first failure of an exit", () => {
    assert.strictEqual(AiOutcome.classify(Exit.fail(tooMany), 0)?._tag, "Throttled")
    assert.strictEqual(
      AiOutcome.classify(Exit.failCause(Cause.combine(Cause.interrupt(1), Cause.fail(tooMany))), 0)?._tag,
      "Throttled"
    )
  })

  it("classify returns undefined for successes, other failures, defects and interruptions", () => {
    assert.isUndefined(AiOutcome.classify(Exit.succeed(tooMany), 0))
    assert.isUndefined(AiOutcome.classify(Exit.fail("other"), 0))
    assert.isUndefined(AiOutcome.classify(Exit.fail({ _tag: "AiError" }), 0))
    assert.isUndefined(AiOutcome.classify(Exit.die(tooMany), 0))
    assert.isUndefined(AiOutcome.classify(Exit.interrupt(1), 0))
  })

  it("classify returns undefined for a failure beside a defect", () => {
    assert.isUndefined(AiOutcome.classify(Exit.failCause(Cause.combine(Cause.fail(tooMany), Cause.die("bug"))), 0))
  })
})
