import { assert, describe, it } from "@effect/vitest"
import { Redis } from "effect/persistence"
import { describeError } from "../../src/internal/describeError.ts"

class SocketClosedUnexpectedlyError extends Error {}

const describedAs = (cause: unknown) => describeError(new Redis.RedisError({ cause }))
const refused = Object.assign(new Error("connect ECONNREFUSED redis://me:secret@10.1.2.3:6379"), {
  code: "ECONNREFUSED"
})

describe("describeError", () => {
  it("an error is described by the code of the reply, the code of the error, or its class", () => {
    assert.strictEqual(describedAs(new Error("WRONGTYPE Operation against a key")), "Redis answered WRONGTYPE")
    assert.strictEqual(describedAs(new Error("OOM")), "Redis answered OOM")
    assert.strictEqual(describedAs(refused), "Redis request failed (ECONNREFUSED)")
    assert.strictEqual(
      describedAs(new SocketClosedUnexpectedlyError("Socket closed unexpectedly")),
      "Redis request failed (SocketClosedUnexpectedlyError)"
    )
    assert.strictEqual(
      describedAs(Object.assign(new Error("given up"), { socketError: refused })),
      "Redis request failed (ECONNREFUSED)"
    )
  })

  it("the description contains nothing of the message, which may name keys and addresses", () => {
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
    for (const cause of causes) assert.notMatch(describedAs(cause), /secret|10\.1|6381/)
  })
})
