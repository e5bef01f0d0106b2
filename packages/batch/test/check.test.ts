/** The check of the kill tests itself: it has to see each kind of damage. */
import { SqlClient } from "effect/sql"
import assert from "node:assert/strict"
import { readFileSync, writeFileSync } from "node:fs"
import { afterAll, beforeAll, describe, it } from "vitest"
import { Deployment } from "./support/deployment.ts"
import { poster } from "./support/http.ts"
import * as Places from "./support/places.ts"

const count = 20

describe("the check of a deployment", { timeout: 60_000 }, () => {
  let place: Places.Place
  let deployment: Deployment
  const check = () => deployment.check("file", count)
  const change = (statement: string) => deployment.run(SqlClient.SqlClient.use((sql) => sql.unsafe(statement)))

  beforeAll(async () => {
    place = await Places.all.SQLite()
    deployment = await Deployment.start({ database: place.url, requests: count, inFlight: 5, millis: 1 })
    await deployment.start("both")
    await deployment.submit({ id: "file" }, count)
    await deployment.ended("file")
    for (const order of ["input", "completion"] as const) {
      await (await deployment.startExporter("file", order)).ended
    }
  }, 60_000)

  afterAll(async () => {
    await deployment[Symbol.asyncDispose]()
    await place[Symbol.asyncDispose]()
  })

  it("accepts a batch to which nothing happened", async () => {
    const { again, attempts, failed, marked, ok } = await check()
    assert.deepEqual({ again, attempts, failed, marked, ok }, {
      again: 0,
      attempts: 1,
      failed: 0,
      marked: 0,
      ok: count
    })
  })

  const result = "update sluice_batch_result set"
  const progress = "update sluice_batch_progress set"
  const queue = "update sluice_batch_queue set"
  /** What is done to the tables, how it is undone, and what the check says. */
  const damages: ReadonlyArray<readonly [what: string, damage: string, repair: string, says: RegExp]> = [
    [
      "a result that is missing",
      `${result} batch = -1 where seq = 3`,
      `${result} batch = 1 where batch = -1`,
      /one row/
    ],
    [
      "a result of no request",
      `${result} seq = 99 where seq = 19`,
      `${result} seq = 19 where seq = 99`,
      /output and the err/
    ],
    ["a wrong progress", `${progress} ok = ok + 1`, `${progress} ok = ok - 1`, /progress is that/],
    ["a wrong cost", `${progress} micros = micros + 100`, `${progress} micros = micros - 100`, /paid once/],
    [
      "the answer of another request",
      `${result} body = replace(body, 'file/3', 'file/4') where seq = 3`,
      `${result} body = replace(body, 'file/4', 'file/3') where seq = 3`,
      /request 3 has its own answer/
    ],
    [
      "a paid request that is marked",
      `${result} kind = 'capped' where seq = 3; ${progress} ok = ok - 1, marked = 1, micros = micros - 100`,
      `${result} kind = 'ok' where seq = 3; ${progress} ok = ok + 1, marked = 0, micros = micros + 100`,
      /request 3 was paid, and has the result capped/
    ],
    [
      "another state",
      `update sluice_batch set state = 'expired'`,
      `update sluice_batch set state = 'completed'`,
      /expired/
    ],
    ["another size", `update sluice_batch set total = 19`, `update sluice_batch set total = 20`, /19/],
    [
      "a ticket that the queue gave up",
      `${queue} state = 'failed' where sequence = 1`,
      `${queue} state = 'completed' where sequence = 1`,
      /gave up no ticket/
    ],
    [
      "a second delivery",
      `${queue} attempts = 2 where sequence = 1`,
      `${queue} attempts = 1 where sequence = 1`,
      /delivered once/
    ]
  ]

  for (const [what, damage, repair, says] of damages) {
    it(`sees ${what}`, async () => {
      for (const statement of damage.split("; ")) await change(statement)
      await assert.rejects(check, says)
      for (const statement of repair.split("; ")) await change(statement)
      await check()
    })
  }

  it("sees an export with a line too much, a line twice and a line out of its place", () => {
    const damaged = (
      order: "input" | "completion",
      damage: (lines: ReadonlyArray<string>) => ReadonlyArray<string>
    ) => {
      const file = deployment.fileOf("file", order)
      const whole = readFileSync(file, "utf8")
      deployment.checkExport("file", count, order)
      writeFileSync(file, damage(whole.split("\n")).join("\n"))
      try {
        deployment.checkExport("file", count, order)
      } finally {
        writeFileSync(file, whole)
      }
    }
    assert.throws(() => damaged("completion", ([first = "", ...others]) => [first, first, ...others]), /as many lines/)
    assert.throws(() => damaged("completion", ([first = "", , ...others]) => [first, first, ...others]), /once/)
    assert.throws(() => damaged("input", ([first = "", second = "", ...others]) => [second, first, ...others]), /order/)
  })

  it("sees an answer without a call, and a call that was made again", async () => {
    const { wasAsked } = deployment.provider
    deployment.provider.wasAsked = () => false
    await assert.rejects(check, /request 0 has an answer, and was asked/)
    deployment.provider.wasAsked = wasAsked
    await check()
    await poster(deployment.provider.url, "another")("", "file/3")
    await assert.rejects(check, /1 requests were asked again, at most 0 may be/)
  })

  it("sees a queue without tickets", async () => {
    deployment.mayAskAgain = 1
    await change("delete from sluice_batch_queue")
    await assert.rejects(check, /has had tickets/)
  })
})
