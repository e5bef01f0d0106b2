import { assert, describe, it } from "@effect/vitest"
import * as Arguments from "../src/Arguments.ts"
import * as Options from "../src/options.ts"
import * as UrlSecrets from "../src/UrlSecrets.ts"

const canary = "c4n4ry-5e7d"

describe("UrlSecrets", () => {
  it.each([
    "key",
    "KEY",
    "api_key",
    "api-key",
    "apikey",
    "apiKey",
    "x-api-key",
    "subscription-key",
    "Ocp-Apim-Subscription-Key",
    "token",
    "access_token",
    "accessToken",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Goog-Signature",
    "AWSAccessKeyId",
    "sig",
    "signature",
    "secret",
    "client_secret",
    "password",
    "passwd",
    "pwd",
    "auth",
    "jwt",
    "code",
    "api%5Fkey"
  ])("the value of ?%s= is hidden in a text, and known as a secret", (name) => {
    for (
      const text of [`cannot reach https://a.example/v1?${name}=${canary}`, `see "/v1?b=1&${name}=${canary}#x" please`]
    ) {
      assert.notInclude(UrlSecrets.hide(text), canary)
      assert.include(UrlSecrets.hide(text), `${name}=[masked]`)
    }
    assert.deepStrictEqual(UrlSecrets.of(`https://a.example/v1?b=1&${name}=${canary}`), [canary])
  })

  it.each(["api-version", "keyword", "monkey", "max_tokens", "model", "deployment", "design", "page", "encode"])(
    "the value of ?%s= is shown",
    (name) => {
      const text = `see https://a.example/v1?${name}=2024-10-21`
      assert.strictEqual(UrlSecrets.hide(text), text)
      assert.deepStrictEqual(UrlSecrets.of(`https://a.example/v1?${name}=x`), [])
    }
  )

  it("a user and a password are hidden, and an address with @ in its path is not changed", () => {
    assert.strictEqual(
      UrlSecrets.hide(`at https://me:${canary}@a.example/v1, and`),
      "at https://[masked]@a.example/v1, and"
    )
    assert.strictEqual(UrlSecrets.hide(`https://${canary}@a.example`), "https://[masked]@a.example")
    for (const text of ["see https://a.example/@user/x", "write to ann@a.example", "a: b"]) {
      assert.strictEqual(UrlSecrets.hide(text), text)
    }
  })

  it("a shown URL has no user, query and fragment", () => {
    assert.strictEqual(
      UrlSecrets.shown(`https://me:${canary}@a.example:8443/v1?x=${canary}#${canary}`),
      "https://a.example:8443/v1"
    )
    assert.strictEqual(UrlSecrets.shown("http://a.example"), "http://a.example")
    assert.strictEqual(UrlSecrets.shown("http://a.example/"), "http://a.example/")
    assert.strictEqual(UrlSecrets.shown("sqlite:batches.sqlite"), "sqlite:batches.sqlite")
    assert.strictEqual(UrlSecrets.shown("sqlite:///data/batches.sqlite"), "sqlite:///data/batches.sqlite")
  })
})

describe("usage errors", () => {
  it.each<ReadonlyArray<string>>([
    ["x", "--url", `https://me:${canary}@a.example/v1`],
    ["x", "--url", `https://${canary}:@a.example/v1`],
    ["x", "--url", `http://me:${canary}/#?@a.example/v1`],
    ["x", "--url", `me:${canary}@a.example/v1`],
    ["x", "--url", `https:/me:${canary}@a.example`],
    ["x", "--url", `ftp://a.example/v1?key=${canary}`],
    ["x", "--target", `a=https://me:${canary}@a.example/v1#m`],
    ["x", "--target", `a=anthropic:https://me:${canary}@a.example/v1#m`],
    ["x", "--target", `a=me:${canary}@a.example/v1#m`],
    ["x", "--target", `https://me:${canary}@a.example/v1#m`],
    ["x", "--target", `a=https://a.example/v1?token=${canary}`],
    ["x", "--target", `a=https://me:${canary}@a.example/v1`],
    ["x", "--timeout", `https://me:${canary}@a.example`]
  ])("`sluice run %s %s %s` does not show the secret", (...args) => {
    const parsed = Arguments.parse(Options.run, args)
    assert.strictEqual(parsed._tag, "Wrong")
    assert.notInclude(parsed._tag === "Wrong" ? parsed.message : "", canary.slice(0, 6))
  })

  it.each([
    [`https://me:${canary}@a.example`],
    [`https://a.example/v1?key=${canary}`]
  ])("`sluice retry x %s` does not show the secret", (url) => {
    const parsed = Arguments.parse(Options.retry, ["x", url])
    assert.strictEqual(parsed._tag, "Wrong")
    assert.notInclude(parsed._tag === "Wrong" ? parsed.message : "", canary.slice(0, 6))
  })
})
