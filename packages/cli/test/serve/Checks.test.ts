import { assert, describe, it } from "@effect/vitest"
import type { IncomingMessage } from "node:http"
import * as Checks from "../../src/serve/Checks.ts"

/** The head of a request, of which the checks read method and headers only. */
const head = (headers: IncomingMessage["headers"], method = "POST") => ({ headers, method }) as IncomingMessage

describe("checks of a request's head", () => {
  it("IP addresses, localhost and allowed names are answered, and no other host", () => {
    const isAllowed = (host: string | undefined) =>
      Checks.host(head(host === undefined ? {} : { host }), new Set(["gateway.example"])) === undefined
    const allowed = ["localhost", "LOCALHOST:4000", "127.0.0.1:1", "10.1.2.3", "[::1]:4000", "Gateway.Example:443"]
    for (const host of allowed) assert.isTrue(isAllowed(host), host)
    const refused = [
      undefined,
      "",
      "localhost.attacker.example",
      "my-localhost",
      "a.gateway.example",
      "127.0.0.1.nip.io",
      "user@127.0.0.1",
      "localhost:4000:1",
      "localhost/x",
      "[::1",
      "::1"
    ]
    for (const host of refused) assert.isFalse(isAllowed(host), host)
  })

  it("paths that could be resolved to others are refused", () => {
    for (const path of ["/v1/models/meta%2FLlama-3.1", "/v1/x.y", "/v1/..x", "/v1/chat/completions/"]) {
      assert.isUndefined(Checks.path(path), path)
    }
    for (
      const path of [
        "",
        "v1",
        "/v1/..",
        "/v1/./x",
        "/v1/%2e%2E/x",
        "/v1/a%2f..",
        "/v1//x",
        "/v1/\\x",
        "/%5c..",
        "/%",
        "/%0a"
      ]
    ) {
      assert.strictEqual(Checks.path(path)?.status, 400, path)
    }
  })

  it("only JSON is taken, and files at the paths that take files", () => {
    const status = (type: string | undefined, path: string, more = {}) =>
      Checks.contentType(head({ "content-type": type, "content-length": "2", ...more }), path)?.status
    assert.isUndefined(status("application/json", "/v1/x"))
    assert.isUndefined(status("Application/JSON; charset=utf-8", "/v1/x"))
    assert.isUndefined(status("multipart/form-data; boundary=x", "/v1/audio/transcriptions"))
    assert.strictEqual(status("multipart/form-data; boundary=x", "/v1/chat/completions"), 415)
    assert.strictEqual(status("text/plain", "/v1/x"), 415)
    assert.strictEqual(status(undefined, "/v1/x"), 415)
    assert.strictEqual(status(undefined, "/v1/x", { "content-length": undefined, "transfer-encoding": "chunked" }), 415)
    assert.isUndefined(status(undefined, "/v1/batches/x/cancel", { "content-length": "0" }))
    assert.isUndefined(Checks.contentType(head({}, "GET"), "/v1/models"))
  })
})
