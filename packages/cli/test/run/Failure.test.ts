import * as AiRejection from "@sluice/ai/AiRejection"
import * as Deadline from "@sluice/core/Deadline"
import { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { AiError } from "effect/ai"
import * as Failure from "../../src/run/Failure.ts"

const ai = (reason: AiError.AiErrorReason) => AiError.make({ module: "Test", method: "streamText", reason })
const http = (status: number) => ({ response: { status, headers: {} } })

const settings: Failure.CallSettings = {
  url: "http://localhost:1/v1",
  model: "m",
  keySource: "OPENAI_API_KEY",
  wire: "openai",
  hasKey: true,
  isOwnModel: false
}

describe("Failure", () => {
  it("a provider's error keeps its tag, message and retryAfter", () => {
    assert.deepStrictEqual(Failure.describe(ai(new AiError.RateLimitError({ retryAfter: Duration.seconds(2) }))), {
      tag: "RateLimitError",
      message: "the provider is rate-limiting (HTTP 429)",
      retryAfter: 2000
    })
  })

  it("a rejection keeps its tag, and its message names the flag to raise", () => {
    const described = (rejection: AiRejection.Rejection) =>
      Failure.describe(AiRejection.toAiError(rejection, "streamText"))
    const limit = Duration.seconds(20)
    const open = { target: "main", why: "CircuitOpen", retryAfter: Duration.seconds(3) } as const
    const noTarget = new AiRejection.NoTarget({ targets: [open], retryAfter: open.retryAfter })
    assert.deepStrictEqual(described(noTarget), { tag: "NoTarget", message: noTarget.message, retryAfter: 3000 })
    const firstToken = new AiRejection.FirstTokenTimeout({ target: "main", limit })
    const idle = new AiRejection.IdleTimeout({ target: "main", limit, parts: 7 })
    const timeouts = [
      described(new Sluice.AttemptTimeout({ after: Duration.seconds(60) })),
      described(firstToken),
      described(idle),
      described(new Deadline.DeadlineExceeded({ at: "Queue", budget: Duration.seconds(90) }))
    ]
    assert.deepStrictEqual(timeouts.map(({ tag }) => tag), [
      "AttemptTimeout",
      "FirstTokenTimeout",
      "IdleTimeout",
      "DeadlineExceeded"
    ])
    assert.deepStrictEqual(timeouts.map(({ message }) => message), [
      "no complete answer within 1m 00s; raise --timeout",
      `${firstToken.message}; raise --first-token-timeout`,
      `${idle.message}; raise --idle-timeout`,
      "no answer within 1m 30s; raise --deadline"
    ])
  })

  it("the advice names --timeout if that limits the first token as well", () => {
    const rejection = new AiRejection.FirstTokenTimeout({ target: "main", limit: Duration.seconds(60) })
    const error = AiRejection.toAiError(rejection, "streamText")
    assert.match(Failure.describe(error, { isFirstTokenByTimeout: true }).message, /; raise --timeout$/)
  })

  it("a Retry-After of 30 days is kept", () => {
    const error = ai(new AiError.RateLimitError({ retryAfter: Duration.days(30) }))
    assert.strictEqual(Failure.describe(error).retryAfter, 30 * 86_400_000)
  })

  it("a refused connection is an outage, and a reset or a stall may be caused by the prompt", () => {
    const network = (description: string) =>
      ai(new AiError.NetworkError({ reason: "TransportError", method: "POST", url: "http://x", description }))
    for (const code of ["ECONNREFUSED", "ENOTFOUND", "EHOSTUNREACH"]) {
      assert.isTrue(Failure.isOutage(network(code)), code)
    }
    for (const code of ["ECONNRESET", "EPIPE", "socket hang up"]) assert.isFalse(Failure.isOutage(network(code)), code)
    for (const status of [502, 503, 504, 529]) {
      assert.isTrue(Failure.isOutage(ai(new AiError.InternalProviderError({ description: "x", http: http(status) }))))
    }
    assert.isFalse(Failure.isOutage(ai(new AiError.InternalProviderError({ description: "x", http: http(500) }))))
  })

  it("a message is one line, and an unknown failure has one too", () => {
    assert.strictEqual(Failure.describe(new Error("a\n  b")).message, "a b")
    assert.deepStrictEqual(Failure.describe(undefined), {
      tag: "Unknown",
      message: "failed for an unknown reason",
      retryAfter: undefined
    })
  })

  it("the reason of a failed attempt never contains the provider's text", () => {
    const faults: ReadonlyArray<readonly [type: string, status?: number]> = [
      ["RateLimitError", 429],
      ["InternalProviderError", 503],
      ["TruncatedStream"],
      ["MalformedEvent"],
      ["InternalProviderError", 200],
      ["NetworkError"],
      ["AttemptTimeout"],
      ["FirstTokenTimeout"],
      ["IdleTimeout"],
      ["EmptyAnswer"],
      ["ContentPolicyError"]
    ]
    assert.deepStrictEqual(
      faults.map(([type, status]) =>
        Failure.reasonOf({ type, message: "whatever", ...(status === undefined ? {} : { status }) })
      ),
      [
        "rate limit",
        "HTTP 503",
        "cut short",
        "unreadable",
        "unreadable",
        "network",
        "timeout",
        "no first token",
        "idle timeout",
        "empty",
        "content policy"
      ]
    )
  })
})

describe("Failure.unusable", () => {
  const unusable = (option: string, actual: unknown, requirement: string) =>
    Failure.unusable(
      new InvalidOptions({ module: "OpenAiCompatible", issues: [{ option, actual, requirement }] }),
      settings
    )

  it("the message names flags and variables, and contains no key", () => {
    assert.strictEqual(
      unusable("apiKey", "two words", "must be visible ASCII characters"),
      "the key from OPENAI_API_KEY must be visible ASCII characters"
    )
    assert.match(
      unusable("url", "http://localhost:1", "must be https://"),
      /^http:\/\/localhost:1\/v1 .*--allow-insecure-key/
    )
  })
})

describe("Failure.fatal", () => {
  const network = (description: string) =>
    ai(new AiError.NetworkError({ reason: "TransportError", method: "POST", url: "http://x", description }))
  const refused = (status: number, parameter?: string) =>
    ai(new AiError.InvalidRequestError({ description: "said so", parameter, http: http(status) }))

  it("a refused key stops the run, and the message names its source", () => {
    const error = ai(new AiError.AuthenticationError({ kind: "InvalidKey", description: "HTTP 401" }))
    assert.strictEqual(Failure.fatal(error, settings), "the key from OPENAI_API_KEY was refused: HTTP 401")
    assert.include(Failure.fatal(error, { ...settings, hasKey: false }) ?? "", "requires a key: set OPENAI_API_KEY")
  })

  it("an unreachable URL stops the run, but a lost connection does not", () => {
    for (const code of ["ECONNREFUSED", "ENOTFOUND", "CERT_HAS_EXPIRED", "DEPTH_ZERO_SELF_SIGNED_CERT"]) {
      assert.include(Failure.fatal(network(`${code}: no`), settings) ?? "", "cannot reach http://localhost:1/v1")
    }
    assert.isUndefined(Failure.fatal(network("read ECONNRESET"), settings))
  })

  it("an unknown model stops the run, unless the line named it", () => {
    assert.include(Failure.fatal(refused(404), settings) ?? "", "no such model or API")
    assert.isUndefined(Failure.fatal(refused(404), { ...settings, isOwnModel: true }))
  })

  it("a refused parameter of all prompts stops the run, but a refused prompt does not", () => {
    assert.include(Failure.fatal(refused(400, "temperature"), settings) ?? "", "refuses temperature")
    assert.isUndefined(Failure.fatal(refused(400, "temperature"), { ...settings, ownFields: ["seed", "temperature"] }))
    assert.include(Failure.fatal(refused(400, "temperature"), { ...settings, ownFields: ["seed"] }) ?? "", "refuses")
    assert.isUndefined(Failure.fatal(refused(400, "messages"), settings))
    assert.isUndefined(Failure.fatal(refused(400), settings))
  })

  it("a redirect, an account without quota and a page that is no API stop the run", () => {
    assert.isString(Failure.fatal(refused(302), { ...settings, isOwnModel: true }))
    assert.isString(Failure.fatal(ai(new AiError.QuotaExhaustedError({})), settings))
    assert.isString(Failure.fatal(ai(new AiError.InvalidResponseError({ description: "text/html" })), settings))
  })

  it("a page that is no API is reported in the words of the target's format", () => {
    const error = ai(new AiError.InvalidResponseError({ description: "text/html" }))
    assert.include(Failure.fatal(error, settings) ?? "", "like an OpenAI-compatible API")
    assert.include(Failure.fatal(error, { ...settings, wire: "anthropic" }) ?? "", "like Anthropic's Messages API")
  })

  it("rate limits, overload, timeouts and refused prompts do not stop the run", () => {
    const json = { response: { status: 200, headers: { "content-type": "application/json" } } }
    const temporary = [
      ai(new AiError.RateLimitError({})),
      ai(new AiError.InvalidResponseError({ description: "an event of more than 1048576 characters", http: json })),
      ai(new AiError.InternalProviderError({ description: "x", http: http(503) })),
      ai(new AiError.ContentPolicyError({ description: "x" })),
      { _tag: "AttemptTimeout" },
      { _tag: "Rejected" }
    ]
    for (const error of temporary) assert.isUndefined(Failure.fatal(error, settings))
  })
})
