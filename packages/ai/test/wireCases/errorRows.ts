import type { Remedy } from "@sluice/ai/AiOutcome"

/** An error response. `report`: the repository and the number of a public report, or another source. */
export interface ErrorRow {
  readonly report: string
  readonly from: string
  readonly status: number
  /** The body: JSON, or a text that is sent unchanged. */
  readonly body: unknown
  readonly headers?: { readonly [name: string]: string }
  /** The same error within a stream. Default: the `error` of the body. `false`: it has no such form. */
  readonly inStream?: object | false
}

/** An error that quotes a prompt. */
export interface Quotation {
  readonly status: number
  readonly body: unknown
  readonly remedy: Remedy
}

const google = (message: string, reason: string) => ({
  error: {
    code: 400,
    message,
    status: "INVALID_ARGUMENT",
    details: [
      { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason, domain: "googleapis.com" },
      { "@type": "type.googleapis.com/google.rpc.LocalizedMessage", locale: "en-US", message }
    ]
  }
})

const xAi = {
  code: "The caller does not have permission to execute the specified operation",
  error: "Content violates usage guidelines. Team: t, API key ID: k, Model: grok-4, Failed check: SAFETY_CHECK_TYPE_BIO"
}

const azure =
  "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry."

/** Kind 2: a refusal of one prompt, whatever the status. */
export const refusals: ReadonlyArray<ErrorRow> = [
  {
    report: "sub2api 4785",
    from: "xAI through a gateway",
    status: 403,
    body: { error: { message: "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_CYBER" } }
  },
  { report: "inspect_ai 2267", from: "xAI", status: 403, body: xAi, inStream: { message: xAi.error, code: xAi.code } },
  {
    report: "llmgateway 1785",
    from: "xAI with a code",
    status: 403,
    body: { error: { message: "Forbidden", code: "SAFETY_CHECK_TYPE_CSAM" } }
  },
  {
    report: "big-AGI 352",
    from: "OpenRouter",
    status: 403,
    body: {
      error: {
        code: 403,
        message: "openai/gpt-4-32k requires moderation on OpenAI. Your input was flagged for \"self-harm\".",
        metadata: { reasons: ["self-harm"], flagged_input: "how to", provider_name: "OpenAI" }
      }
    }
  },
  {
    report: "litellm 16231",
    from: "Azure through LiteLLM",
    status: 403,
    body: {
      error: {
        message: `litellm.BadRequestError: litellm.ContentPolicyViolationError: AzureException - ${azure}`,
        type: null,
        code: "400",
        provider_specific_fields: { innererror: { code: "ResponsibleAIPolicyViolation" } }
      }
    }
  },
  {
    report: "openai-python 331",
    from: "Azure",
    status: 400,
    body: { error: { message: azure, type: null, param: "prompt", code: "content_filter", status: 400 } }
  },
  {
    report: "camel-ai/owl 432",
    from: "DashScope",
    status: 403,
    body: {
      error: {
        code: "data_inspection_failed",
        type: "data_inspection_failed",
        message: "Input data may contain inappropriate content."
      }
    }
  },
  {
    report: "qwen-code 2905",
    from: "DashScope, its code in the message",
    status: 403,
    body: {
      error: {
        message: "<400> InternalError.Algo.DataInspectionFailed: Input text data may contain inappropriate content.",
        type: "invalid_request_error"
      }
    }
  },
  {
    report: "dify 7932",
    from: "DashScope with 500",
    status: 500,
    body: {
      error: { code: "DataInspectionFailed", message: "Input or output data may contain inappropriate content." }
    }
  },
  {
    report: "BettaFish 108",
    from: "DeepSeek",
    status: 403,
    body: { error: { message: "Content Exists Risk", type: "invalid_request_error", code: "invalid_request_error" } }
  },
  {
    report: "DeepSeek-V2 30",
    from: "DeepSeek, in `detail`",
    status: 403,
    body: { detail: "Content Exists Risk" },
    inStream: { message: "Content Exists Risk" }
  },
  {
    report: "helm 3770",
    from: "a gateway's 401",
    status: 401,
    body: { error: { message: "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_DATA_LEAKAGE" } }
  },
  {
    report: "OpenAI's help, code invalid_prompt",
    from: "OpenAI",
    status: 400,
    body: {
      error: {
        message: "Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please try again.",
        type: "invalid_request_error",
        code: "invalid_prompt"
      }
    }
  },
  {
    report: "Anthropic's documentation of refusals",
    from: "Anthropic",
    status: 403,
    body: { error: { message: "Output blocked by content filtering policy", type: "invalid_request_error" } }
  }
]

/** Kind 8: the key or the account, whatever the status. */
export const credentials: ReadonlyArray<ErrorRow> = [
  {
    report: "openai-scala-client 109",
    from: "Gemini, in an array",
    status: 400,
    body: [google("API key not valid. Please pass a valid API key.", "API_KEY_INVALID")],
    inStream: google("API key not valid. Please pass a valid API key.", "API_KEY_INVALID").error
  },
  {
    report: "plainbook 25",
    from: "Gemini, an expired key",
    status: 400,
    body: google("API key expired. Please renew the API key.", "API_KEY_INVALID")
  },
  {
    report: "continue 11336",
    from: "Gemini, as JSON in the message of a gateway",
    status: 400,
    body: {
      error: {
        message: JSON.stringify(google("API key expired. Please renew the API key.", "API_KEY_INVALID"), undefined, 2),
        code: 400,
        status: "Bad Request"
      }
    }
  },
  {
    report: "gemini-cli 25198",
    from: "Gemini, without details",
    status: 400,
    body: {
      error: { code: 400, message: "API Key not found. Please pass a valid API key.", status: "INVALID_ARGUMENT" }
    }
  },
  {
    report: "new-api 1401",
    from: "DashScope, an account in arrears",
    status: 400,
    body: {
      error: {
        code: "Arrearage",
        type: "Arrearage",
        message: "Access denied, please make sure your account is in good standing."
      }
    }
  },
  {
    report: "Roo-Code 12309",
    from: "DashScope, in words alone",
    status: 400,
    body: { error: { message: "Access denied due to overdue account" } }
  },
  {
    report: "continue 10778",
    from: "xAI",
    status: 400,
    body: {
      code: "Client specified an invalid argument",
      error: "Incorrect API key provided: na***ys. You can obtain an API key from https://console.x.ai."
    },
    inStream: { message: "Incorrect API key provided: na***ys. You can obtain an API key from https://console.x.ai." }
  },
  {
    report: "claude-code 72457",
    from: "Anthropic, a disabled organization",
    status: 400,
    body: { type: "error", error: { type: "invalid_request_error", message: "This organization has been disabled." } }
  },
  {
    report: "claude-code 4684",
    from: "Anthropic, no credit",
    status: 400,
    body: {
      type: "error",
      error: { type: "invalid_request_error", message: "Your credit balance is too low to access the Anthropic API." }
    }
  },
  {
    report: "Anthropic's documentation of spend limits",
    from: "Anthropic, its own limit",
    status: 400,
    body: {
      error: {
        type: "invalid_request_error",
        message: "You have reached your specified API usage limits. You will regain access on 2027-01-01 at 00:00 UTC."
      }
    }
  },
  {
    report: "SynapsCLI 101",
    from: "Kimi, a used-up week",
    status: 403,
    body: {
      error: { type: "access_terminated_error", message: "You've reached your usage limit for this billing cycle." }
    }
  },
  {
    report: "osaurus 2431",
    from: "Venice with 400",
    status: 400,
    body: { error: "Insufficient balance to complete request. Visit the settings to add credits." },
    inStream: { message: "Insufficient balance to complete request." }
  },
  {
    report: "Amazon's documentation of common errors",
    from: "Bedrock, an expired token",
    status: 400,
    body: { __type: "ExpiredTokenException", message: "The security token included in the request is expired" },
    inStream: { type: "ExpiredTokenException", message: "The security token included in the request is expired" }
  }
]

/** Kind 9: a 4xx that means the server's trouble. */
export const troubles: ReadonlyArray<ErrorRow> = [
  {
    report: "anthropic-sdk-python 432",
    from: "Bedrock",
    status: 424,
    body: { message: "The system encountered an unexpected error during processing. Try your request again." },
    inStream: { code: 424, message: "Try your request again." }
  },
  {
    report: "uipath-python 461",
    from: "a gateway",
    status: 424,
    body: { title: "Failed dependency", status: 424 },
    inStream: { status: 424 }
  },
  {
    report: "laravel/ai 925",
    from: "Groq, flex tier",
    status: 498,
    body: { error: { message: "Flex tier capacity exceeded", type: "capacity_exceeded" } }
  },
  { report: "oh-my-pi 11841", from: "a relay", status: 499, body: "", inStream: { code: 499, message: "closed" } },
  {
    report: "client-python 563",
    from: "nginx",
    status: 499,
    body: "<html>499 Client Closed Request</html>",
    inStream: false
  },
  {
    report: "Hugging Face TGI's documentation of errors",
    from: "TGI",
    status: 424,
    body: { error: "Request failed during generation", error_type: "generation" },
    inStream: { code: 424, message: "Request failed during generation" }
  },
  {
    report: "RFC 4918 section 11.3",
    from: "a server that loads its model",
    status: 423,
    body: { error: { message: "model is loading" } },
    inStream: { code: 423, message: "model is loading" }
  },
  {
    report: "cloudflare/ai 436",
    from: "AI Gateway with 400",
    status: 400,
    body: { success: false, error: [{ code: 2005, message: "Failed to get response from provider" }] },
    inStream: { code: 2005, message: "Failed to get response from provider" }
  },
  {
    report: "hass_local_openai_llm 89",
    from: "OpenCode with 400",
    status: 400,
    body: {
      error: { message: "Error from provider (Console Go): Upstream request failed", type: "invalid_request_error" }
    }
  },
  {
    report: "opencode 40194",
    from: "OpenCode with 403",
    status: 403,
    body: { error: { message: "Upstream request failed: [server_error] Upstream response was not valid JSON" } }
  },
  {
    report: "LightRAG 3144",
    from: "OpenAI with 400",
    status: 400,
    body: {
      error: {
        message:
          "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library correctly.)",
        type: "invalid_request_error"
      }
    }
  },
  {
    report: "anthropic-sdk-python 1289",
    from: "Bedrock with 400",
    status: 400,
    headers: { "x-amzn-errortype": "ModelTimeoutException:http://internal.amazon.com/coral/" },
    body: { message: "Model has timed out in processing the request." },
    inStream: { type: "ModelTimeoutException", message: "Model has timed out in processing the request." }
  }
]

/** Kind 9: throttling with status 400. */
export const throttlings: ReadonlyArray<ErrorRow> = [
  {
    report: "anthropic-sdk-python 1289",
    from: "Bedrock, in a header",
    status: 400,
    headers: { "x-amzn-errortype": "ThrottlingException" },
    body: { message: "Too many tokens, please wait before trying again." },
    inStream: { type: "ThrottlingException", message: "Too many tokens, please wait before trying again." }
  },
  {
    report: "lobehub 3994",
    from: "Bedrock, in the type",
    status: 400,
    body: { error: { message: "Too many requests, please wait before trying again.", type: "ThrottlingException" } }
  },
  {
    report: "opencode 39623",
    from: "Bedrock, in words alone",
    status: 400,
    body: { error: { message: "Too many tokens, please wait before trying again." } }
  },
  {
    report: "quotio 375",
    from: "Gemini through a proxy",
    status: 400,
    body: {
      error: {
        type: "invalid_request_error",
        message: "RESOURCE_EXHAUSTED: You have exhausted your capacity on m. Quota will reset after 2h9m48s."
      }
    }
  }
]

/** Prompts with the words of each kind. */
export const prompts: ReadonlyArray<string> = [
  "Content violates usage guidelines",
  "insufficient_quota",
  "API key not valid",
  "This organization has been disabled",
  "Too many requests, please wait",
  "Upstream request failed",
  "What is the maximum context length, 8192 or less",
  "my credit balance is too low",
  "The model `m` does not exist",
  "User location is not supported"
]

const quoted = prompts.join(". ")

/** Ways in which servers quote a prompt in an error that says nothing else. */
export const quoting = (type: string, prompt: string): ReadonlyArray<unknown> => [
  // As texts: the privacy run takes the fields of objects for prompts, which the messages of the other rows must not have.
  `{"error":{"type":"${type}","message":"no"},"request":[{"role":"user","content":"${prompt}"}]}`,
  `{"error":{"type":"${type}","message":"no","input":"${prompt}"},"messages":[{"content":"${prompt}"}]}`,
  { error: { type, message: `no answer to "${prompt}"` } },
  { error: { type, message: `no answer to '${prompt}'` } },
  { error: { type, message: `no answer to the prompt: ${prompt}` } },
  { error: { type, message: `no answer. The prompt was ${prompt}` } },
  { error: { type, message: `no answer\n${prompt}` } },
  { error: { type, message: `messages.0.content: ${prompt}` } },
  `no answer to {"content":"${prompt}"}`
]

/** Their statuses and types, and the remedies of these. */
export const quotingStatuses: ReadonlyArray<readonly [status: number, type: string, remedy: Remedy]> = [
  [400, "invalid_request_error", "Final"],
  [403, "permission_error", "Credential"],
  [429, "rate_limit_error", "Wait"],
  [500, "api_error", "Retry"]
]

/** Errors that quote a prompt which has the words of every kind. The status decides. */
export const quotations: ReadonlyArray<Quotation> = [
  {
    status: 400,
    body: { error: { message: `cannot read "${quoted}"`, type: "invalid_request_error" } },
    remedy: "Final"
  },
  { status: 400, body: { error: { message: `messages.0.content: ${quoted}`, code: "bad_value" } }, remedy: "Final" },
  { status: 400, body: { error: { message: `invalid\n${quoted}`, code: `bad ${quoted}` } }, remedy: "Final" },
  {
    status: 422,
    body: `{"detail":[{"type":"string_type","msg":"not a string","input":"${quoted}"}]}`,
    remedy: "Final"
  },
  {
    status: 400,
    body: `{"error":{"message":"no","prompt":"${quoted}","messages":[{"content":"${quoted}"}]}}`,
    remedy: "Final"
  },
  { status: 400, body: `cannot read {"error":{"code":"insufficient_quota"}}`, remedy: "Final" },
  {
    status: 400,
    body: { error: { message: "ValueError: AuthenticationError: not a number", type: "invalid_request_error" } },
    remedy: "Final"
  },
  { status: 403, body: { error: { message: `The key may not send "${quoted}"` } }, remedy: "Credential" },
  { status: 401, body: { error: { message: `Denied. ${quoted}` } }, remedy: "Credential" },
  { status: 429, body: { error: { message: `Slow down. Prompt: Content violates usage guidelines` } }, remedy: "Wait" }
]
