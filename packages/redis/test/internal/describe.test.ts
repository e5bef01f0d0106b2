import { assert, describe, it } from "@effect/vitest"
import { Redis } from "effect/persistence"
import { describe as describeError } from "../../src/internal/describe.ts"

class SocketClosedUnexpectedlyError extends Error {}

const said = (cause: unknown) => describeError(new Redis.RedisError({ cause }))
const refused = Object.assign(new Error("connect ECONNREFUSED redis://me:secret@10.1.2.3:6379"), {
  code: "ECONNREFUSED"
})

describe("what is told of an error of Redis", () => {
  it("is the code of the server's answer, or the kind of error", () => {
    assert.strictEqual(said(new Error("WRONGTYPE Operation against a key")), "Redis answered WRONGTYPE")
    assert.strictEqual(said(new Error("OOM")), "Redis answered OOM")
    assert.strictEqual(said(refused), "Redis could not be asked (ECONNREFUSED)")
    assert.strictEqual(
      said(new SocketClosedUnexpectedlyError("Socket closed unexpectedly")),
      "Redis could not be asked (SocketClosedUnexpectedlyError)"
    )
    assert.strictEqual(
      said(Object.assign(new Error("given up"), { socketError: refused })),
      "Redis could not be asked (ECONNREFUSED)"
    )
  })

  it("is nothing that the error says beyond that", () => {
    const causes = [
      new Error("MOVED 3999 10.1.2.3:6381"),
      new Error("ERR the key 'sluice:circuit:{secret}' is secret"),
      new Error("Invalid URL redis://me:secret@10.1.2.3"),
      Object.assign(new Error("secret"), { code: "secret" }),
      refused,
      "secret",
      { message: "secret" },
      null
    ]
    for (const cause of causes) assert.notMatch(said(cause), /secret|10\.1|6381/)
  })
})
