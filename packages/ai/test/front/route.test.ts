import { assert, describe, it } from "@effect/vitest"
import { route, urlOf } from "../../src/internal/front/route.ts"

describe("route", () => {
  const paths: ReadonlyArray<
    readonly [method: string, path: string, operation: string, speaks: string, suffix: string]
  > = [
    ["POST", "/v1/chat/completions", "chat", "openai", "/chat/completions"],
    ["POST", "/v1/chat/completions/", "chat", "openai", "/chat/completions"],
    ["POST", "/chat/completions", "chat", "openai", "/chat/completions"],
    ["POST", "/api/ai/v1/chat/completions", "chat", "openai", "/chat/completions"],
    ["POST", "/api/v1/ai/v1/chat/completions", "chat", "openai", "/chat/completions"],
    ["POST", "/v1beta/openai/chat/completions", "chat", "openai", "/chat/completions"],
    ["POST", "/openai/v1/responses", "responses", "openai", "/responses"],
    [
      "POST",
      "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
      "chat",
      "openai",
      "/chat/completions"
    ],
    ["POST", "/v1/responses", "responses", "openai", "/responses"],
    ["POST", "/v1/embeddings", "embeddings", "openai", "/embeddings"],
    ["POST", "/v1/messages?beta=true", "messages", "anthropic", "/messages"],
    ["POST", "/v1/messages/count_tokens", "countTokens", "anthropic", "/messages/count_tokens"],
    ["GET", "/v1/models", "models", "openai", "/models"],
    ["GET", "/v1/models/ft:gpt-4o:org::1", "models", "openai", "/models/ft:gpt-4o:org::1"],
    ["DELETE", "/v1/models/a", "other", "openai", "/models/a"],
    // Not Anthropic's messages, and not a new response.
    ["POST", "/v1/threads/t_1/messages", "other", "openai", "/threads/t_1/messages"],
    ["GET", "/v1/responses/r_1", "other", "openai", "/responses/r_1"],
    ["GET", "/v1/chat/completions", "other", "openai", "/chat/completions"],
    ["POST", "/v1/responses/r_1/cancel", "other", "openai", "/responses/r_1/cancel"],
    ["POST", "/v1/messages/batches", "other", "anthropic", "/messages/batches"],
    ["POST", "/v1/files", "other", "openai", "/files"]
  ]
  for (const [method, path, operation, speaks, suffix] of paths) {
    it(`takes ${method} ${path} for ${operation} of ${speaks}`, () => {
      const found = route(method, path, false)
      assert.deepStrictEqual([found?.operation, found?.speaks, found?.suffix], [operation, speaks, suffix])
    })
  }

  it("tells the APIs apart by the headers where their paths are the same", () => {
    assert.strictEqual(route("GET", "/v1/models", true)?.speaks, "anthropic")
    assert.strictEqual(route("POST", "/v1/files", true)?.speaks, "anthropic")
    assert.strictEqual(route("POST", "/v1/chat/completions", true)?.speaks, "openai")
  })

  it("reads the deployment in a path of Azure", () => {
    assert.strictEqual(route("POST", "/openai/deployments/gpt-4o/chat/completions", false)?.deployment, "gpt-4o")
  })

  it("keeps the query as it is, but for a key", () => {
    assert.strictEqual(route("POST", "/v1/messages?beta=true&x=%2F+a", false)?.query, "beta=true&x=%2F+a")
    assert.strictEqual(route("POST", "/v1/messages?key=secret&beta=true&KEY=secret", false)?.query, "beta=true")
  })

  const refused = [
    "",
    "/",
    "/v1",
    "/v1/",
    "/health",
    "v1/messages",
    "http://host/v1/messages",
    "//host/v1/messages",
    "/v1//messages",
    "/v1/../messages",
    "/v1/files/../messages",
    "/v1/files/./x",
    "/v1/files/..",
    "/v1/files/%2e%2e/admin",
    "/v1/files%2fadmin",
    "/v1/files/%2Fadmin",
    "/v1/files/a%00",
    "/v1/files\\admin",
    "/v1/files/a#b",
    "/v1/files/a;b",
    "/v1/files/ä",
    "/v1/files/a b",
    "/v1/files/a\r\nhost: x",
    "/v1/files?a=\r\nhost: x",
    "/v1/files?a#b",
    "/openai/deployments/../chat/completions"
  ]
  for (const path of refused) {
    it(`refuses ${JSON.stringify(path)}`, () => assert.isUndefined(route("POST", path, false)))
  }
})

describe("urlOf", () => {
  const targets: ReadonlyArray<readonly [base: string, speaks: "openai" | "anthropic", client: string, url: string]> = [
    ["https://api.openai.com/v1", "openai", "/v1/chat/completions", "https://api.openai.com/v1/chat/completions"],
    ["https://api.openai.com/v1/", "openai", "/v1/files/f_1/content", "https://api.openai.com/v1/files/f_1/content"],
    [
      "https://x.example/v1/chat/completions",
      "openai",
      "/v1/chat/completions",
      "https://x.example/v1/chat/completions"
    ],
    [
      "https://generativelanguage.googleapis.com/v1beta/openai",
      "openai",
      "/v1/chat/completions",
      "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions"
    ],
    [
      "https://x.openai.azure.com/openai/deployments/d?api-version=2",
      "openai",
      "/openai/deployments/other/chat/completions?api-version=1&a=%2F",
      "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2&a=%2F"
    ],
    [
      "https://api.anthropic.com",
      "anthropic",
      "/v1/messages?beta=true",
      "https://api.anthropic.com/v1/messages?beta=true"
    ],
    ["https://api.anthropic.com/v1", "anthropic", "/v1/messages", "https://api.anthropic.com/v1/messages"],
    [
      "https://api.anthropic.com/v1/messages",
      "anthropic",
      "/v1/messages/count_tokens",
      "https://api.anthropic.com/v1/messages/count_tokens"
    ],
    ["http://127.0.0.1:8080/anthropic", "anthropic", "/v1/messages", "http://127.0.0.1:8080/anthropic/v1/messages"]
  ]
  for (const [base, speaks, client, url] of targets) {
    it(`sends ${client} to ${url}`, () => {
      const found = route("POST", client, false)
      assert.isDefined(found)
      assert.strictEqual(urlOf(base, speaks, found!).href, url)
    })
  }
})
