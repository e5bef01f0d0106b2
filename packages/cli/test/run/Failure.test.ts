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

const asked: Failure.Asked = {
  url: "http://localhost:1/v1",
  model: "m",
  keySource: "OPENAI_API_KEY",
  hasKey: true,
  isOwnModel: false
}

describe("Failure", () => {
  it("keeps tag, message and retryAfter of a provider's error", () => {
    assert.deepStrictEqual(Failure.describe(ai(new AiError.RateLimitError({ retryAfter: Duration.seconds(2) }))), {
      tag: "RateLimitError",
      message: "the provider asks for fewer requests (HTTP 429)",
      retryAfter: 2000
    })
  })

  it("tells what Sluice itself had to say, and which flag allows more", () => {
    const described = (rejection: AiRejection.Rejection) =>
      Failure.describe(AiRejection.toAiError(rejection, "streamText"))
    const limit = Duration.seconds(20)
    const open = { target: "main", why: "CircuitOpen", retryAfter: Duration.seconds(3) } as const
    assert.deepStrictEqual(described(new AiRejection.NoTarget({ targets: [open], retryAfter: open.retryAfter })), {
      tag: "NoTarget",
      message: "no target can be asked: main has an open circuit; retry in 3s",
      retryAfter: 3000
    })
    const flags = [
      described(new Sluice.AttemptTimeout({ after: Duration.seconds(60) })),
      described(new AiRejection.FirstTokenTimeout({ target: "main", limit })),
      described(new AiRejection.IdleTimeout({ target: "main", limit, parts: 7 })),
      described(new Deadline.DeadlineExceeded({ at: "Queue", budget: Duration.seconds(90) }))
    ]
    assert.deepStrictEqual(flags.map(({ tag }) => tag), [
      "AttemptTimeout",
      "FirstTokenTimeout",
      "IdleTimeout",
      "DeadlineExceeded"
    ])
    assert.deepStrictEqual(flags.map(({ message }) => message), [
      "no whole answer within 1m 00s; --timeout allows more",
      "main: no first token within 20s; --first-token-timeout allows more",
      "main: silent for 20s after 7 parts; --idle-timeout allows more",
      "no answer within 1m 30s; --deadline allows more"
    ])
  })

  it("makes one line of any message, and says something about anything", () => {
    assert.strictEqual(Failure.describe(new Error("a\n  b")).message, "a b")
    assert.deepStrictEqual(Failure.describe(undefined), {
      tag: "Unknown",
      message: "it failed, and nothing is known about it",
      retryAfter: undefined
    })
  })

  it("names reasons from a list of ours", () => {
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
        "silence",
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
      asked
    )

  it("speaks of flags and variables, and tells no key", () => {
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

  it("ends the run for a key that is refused, and names where it comes from", () => {
    const error = ai(new AiError.AuthenticationError({ kind: "InvalidKey", description: "HTTP 401" }))
    assert.strictEqual(Failure.fatal(error, asked), "the key from OPENAI_API_KEY was refused: HTTP 401")
    assert.include(Failure.fatal(error, { ...asked, hasKey: false }) ?? "", "wants a key: set OPENAI_API_KEY")
  })

  it("ends the run for a URL where nobody listens, but not for a connection that was lost", () => {
    for (const code of ["ECONNREFUSED", "ENOTFOUND", "CERT_HAS_EXPIRED", "DEPTH_ZERO_SELF_SIGNED_CERT"]) {
      assert.include(Failure.fatal(network(`${code}: no`), asked) ?? "", "cannot reach http://localhost:1/v1")
    }
    assert.isUndefined(Failure.fatal(network("read ECONNRESET"), asked))
  })

  it("ends the run for a model that nobody knows, unless the line named it", () => {
    assert.include(Failure.fatal(refused(404), asked) ?? "", "no such model")
    assert.isUndefined(Failure.fatal(refused(404), { ...asked, isOwnModel: true }))
  })

  it("ends the run for a parameter of all prompts, not for a bad prompt", () => {
    assert.include(Failure.fatal(refused(400, "temperature"), asked) ?? "", "refuses temperature")
    assert.isUndefined(Failure.fatal(refused(400, "messages"), asked))
    assert.isUndefined(Failure.fatal(refused(400), asked))
  })

  it("ends the run for a redirect, an empty account, and what is no API", () => {
    assert.isString(Failure.fatal(refused(302), { ...asked, isOwnModel: true }))
    assert.isString(Failure.fatal(ai(new AiError.QuotaExhaustedError({})), asked))
    assert.isString(Failure.fatal(ai(new AiError.InvalidResponseError({ description: "text/html" })), asked))
  })

  it("lets pass what passes: limits, overload, timeouts, refusals", () => {
    const json = { response: { status: 200, headers: { "content-type": "application/json" } } }
    const passing = [
      ai(new AiError.RateLimitError({})),
      ai(new AiError.InvalidResponseError({ description: "an event of more than 1048576 characters", http: json })),
      ai(new AiError.InternalProviderError({ description: "x", http: http(503) })),
      ai(new AiError.ContentPolicyError({ description: "x" })),
      { _tag: "AttemptTimeout" },
      { _tag: "Rejected" }
    ]
    for (const error of passing) assert.isUndefined(Failure.fatal(error, asked))
  })
})
