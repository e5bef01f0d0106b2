import { assert, describe, it } from "@effect/vitest"
import { isCoded, problem, toClient, toProvider } from "../../src/internal/front/headers.ts"

describe("toProvider", () => {
  it("passes on the headers of the client but for credentials and those of its connection", () => {
    const sent = toProvider({
      "accept": "text/event-stream",
      "accept-encoding": "gzip",
      "anthropic-beta": "a,b",
      "anthropic-version": "2023-06-01",
      "api-key": "secret",
      "authorization": "Bearer secret",
      "baggage": "user=1",
      "connection": "Keep-Alive, X-Hop",
      "content-length": "3",
      "content-type": "application/json",
      "cookie": "secret",
      "expect": "100-continue",
      "forwarded": "for=1.2.3.4",
      "host": "127.0.0.1",
      "idempotency-key": "k",
      "keep-alive": "timeout=5",
      "openai-organization": "org",
      "proxy-authorization": "secret",
      "proxy-x": "secret",
      "te": "trailers",
      "traceparent": "00-1",
      "trailer": "x",
      "transfer-encoding": "chunked",
      "upgrade": "websocket",
      "user-agent": "openai-python",
      "via": "1.1 x",
      "x-api-key": "secret",
      "x-forwarded-for": "1.2.3.4",
      "x-goog-api-key": "secret",
      "x-hop": "1",
      "x-list": ["a", "b"],
      "x-real-ip": "1.2.3.4",
      "x-sluice-call": "1",
      "x-stainless-lang": "python",
      "x-undefined": undefined
    }, { own: { "x-api-key": "ours" } })
    assert.deepStrictEqual(sent, {
      "accept": "text/event-stream",
      "accept-encoding": "identity",
      "anthropic-beta": "a,b",
      "anthropic-version": "2023-06-01",
      "content-type": "application/json",
      "idempotency-key": "k",
      "openai-organization": "org",
      "user-agent": "openai-python",
      "x-api-key": "ours",
      "x-list": ["a", "b"],
      "x-stainless-lang": "python"
    })
  })

  it("replaces a client's header by the target's, and a default by the client's", () => {
    const sent = toProvider({ "anthropic-version": "client", "openai-project": "client" }, {
      own: { "openai-project": "target" },
      defaults: { "anthropic-version": "default", "idempotency-key": "new" }
    })
    assert.deepStrictEqual(sent, {
      "accept-encoding": "identity",
      "anthropic-version": "client",
      "idempotency-key": "new",
      "openai-project": "target"
    })
  })

  it("does not let a client drop the target's key by naming it in its connection", () => {
    const sent = toProvider({ connection: "authorization, content-type" }, {
      own: { authorization: "Bearer ours" }
    })
    assert.strictEqual(sent["authorization"], "Bearer ours")
  })
})

describe("toClient", () => {
  const received = {
    "access-control-allow-origin": "*",
    "alt-svc": "h3=\":443\"",
    "connection": "x-hop",
    "content-encoding": "gzip",
    "content-length": "3",
    "content-type": "application/json",
    "keep-alive": "timeout=5",
    "proxy-authenticate": "Basic",
    "request-id": "r",
    "retry-after": "2",
    "set-cookie": ["a=1", "b=2"],
    "strict-transport-security": "max-age=1",
    "trailer": "x",
    "transfer-encoding": "chunked",
    "upgrade": "h2c",
    "x-hop": "1",
    "x-ratelimit-remaining-requests": "9",
    "x-sluice-target": "theirs"
  }
  const always = {
    "content-type": "application/json",
    "request-id": "r",
    "retry-after": "2",
    "x-ratelimit-remaining-requests": "9",
    "x-sluice-call": "c"
  }
  const own = { "x-sluice-call": "c" }

  it("passes on the headers of the provider but for those of its connection and its origin", () => {
    assert.deepStrictEqual(toClient(received, { own, changesLength: false }), {
      ...always,
      "content-encoding": "gzip",
      "content-length": "3"
    })
  })

  it("leaves out the length of a stream", () => {
    assert.deepStrictEqual(toClient(received, { own, changesLength: true }), { ...always, "content-encoding": "gzip" })
  })
})

describe("problem", () => {
  const refused: ReadonlyArray<readonly [why: string, headers: Record<string, string | ReadonlyArray<string>>]> = [
    ["a line end in a value", { "x-a": "1\r\nhost: x" }],
    ["a line feed in a value of several", { "x-a": ["1", "2\n"] }],
    ["a zero byte", { "x-a": "\0" }],
    ["a character that is no byte", { "x-a": "漢" }],
    ["a space in a name", { "x a": "1" }],
    ["a colon in a name", { "x:a": "1" }],
    ["an empty name", { "": "1" }],
    ["two content lengths", { "content-length": ["3", "3"] }],
    ["a list of content lengths", { "content-length": "3, 3" }],
    ["a content length with a sign", { "content-length": "+3" }],
    ["a content length in hexadecimal", { "content-length": "0x3" }],
    ["an empty content length", { "content-length": "" }],
    ["a content length beside a transfer coding", { "content-length": "3", "transfer-encoding": "chunked" }]
  ]
  for (const [why, headers] of refused) {
    it(`refuses ${why} and shows no value`, () => {
      const text = problem(headers)
      assert.isDefined(text)
      assert.notInclude(text, "host: x")
    })
  }

  it("accepts what clients send", () => {
    assert.isUndefined(problem({
      "content-length": "3",
      "user-agent": "a/1 (\tb) é",
      "x-list": ["a", "b"],
      "x-undefined": undefined
    }))
    assert.isUndefined(problem({ "transfer-encoding": "chunked" }))
  })
})

describe("isCoded", () => {
  it("tells a compressed body", () => {
    assert.isTrue(isCoded({ "content-encoding": "GZIP" }))
    assert.isTrue(isCoded({ "content-encoding": "identity, br" }))
    assert.isFalse(isCoded({ "content-encoding": "Identity" }))
    assert.isFalse(isCoded({ "content-encoding": "" }))
    assert.isFalse(isCoded({}))
  })
})
