import * as Batches from "@sluice/batch/Batches"
import * as Files from "@sluice/batch/Files"
import { assert } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { describeWithBoth } from "../../sql/test/support/databases.ts"
import * as Db from "../src/internal/tables/db.ts"
import * as Tables from "../src/internal/tables/files.ts"
import { machine, Scripted } from "./support/machine.ts"

const line = (fields: object) =>
  JSON.stringify({ custom_id: "a", method: "POST", url: "/v1/chat/completions", body: { model: "m" }, ...fields })

const layer = (scripted: Scripted) => Files.layer.pipe(Layer.provideMerge(machine(scripted)))

const upload = (lines: ReadonlyArray<string>) =>
  Files.Files.use((files) =>
    files.upload({ name: "in.jsonl", purpose: "batch", owner: "ann" }, Stream.fromIterable(lines))
  )

await describeWithBoth("Files", (it) => {
  it.effect("a batch asks the lines of a file, and the file comes back as it was", () => {
    const scripted = new Scripted()
    return Effect.gen(function*() {
      const lines = Array.from({ length: 500 }, (_, n) => line({ custom_id: `c${n}` }))
      const file = yield* upload(lines)
      assert.deepInclude(file, { lines: 500, bytes: lines.join("\n").length + 1, owner: "ann", problems: [] })
      const files = yield* Files.Files
      assert.deepStrictEqual(yield* Stream.runCollect(files.lines(file.id)), lines)
      const batches = yield* Batches.Batches
      const submit = batches.submit({ file: file.id, endpoint: "/v1/chat/completions", owner: "ann" }, Stream.empty)
      const [one, other] = [yield* submit, yield* submit]
      for (const id of [one, other]) {
        const results = yield* Stream.runCollect(batches.results(id, { order: "input", follow: true }))
        assert.deepStrictEqual(results.map(({ key }) => key), lines.map((_, n) => `c${n}`))
        assert.strictEqual(results[7]?.body, lines[7])
      }
      yield* Stream.runDrain(batches.watch(other, 20))
      yield* files.remove(file.id)
      assert.strictEqual((yield* Effect.flip(files.find(file.id)))._tag, "FileNotFound")
      assert.strictEqual((yield* Stream.runCollect(batches.results(one))).length, 500)
      assert.deepStrictEqual((yield* batches.list({ owner: "ann" })).map(({ id }) => id), [other, one])
      assert.deepStrictEqual(yield* batches.list({ owner: "bob" }), [])
    }).pipe(Effect.provide(layer(scripted)))
  })

  it.effect("expired files that batches use do not keep others from being deleted", () =>
    Effect.gen(function*() {
      const db = yield* Db.make
      const files = yield* Files.Files
      const batches = yield* Batches.Batches
      const ids: Array<string> = []
      for (let n = 0; n < 101; n++) ids.push((yield* upload([line({})])).id)
      for (const file of ids.slice(0, 100)) yield* batches.submit({ file }, Stream.empty)
      yield* db.sql`update sluice_batch set state = 'completed', ended_at = 1`
      yield* db.sql`update sluice_batch_file set expires_at = 1`
      const expired = yield* Tables.expired(db)
      const rows = yield* db.sql`select file from sluice_batch_file where id = ${ids[100]}`
      assert.deepStrictEqual(expired, rows.map(({ file }) => Number(file)))
      assert.deepStrictEqual(yield* files.list({ purpose: "batch" }), [])
    }).pipe(Effect.provide(Layer.provide(Layer.merge(Files.layer, Batches.layer), Batches.migrations.layer))))

  it.effect("an unknown order and a limit below 1 are refused by name", () =>
    Effect.gen(function*() {
      const files = yield* Files.Files
      const order = "desc, (select 1)" as "desc" // What a program without types can pass.
      assert.match(
        String(yield* Effect.flip(files.list({ order, limit: 0 }))),
        /InvalidOptions: Files: .*limit .*order /s
      )
    }).pipe(Effect.provide(Layer.provide(Files.layer, Batches.migrations.layer))))

  it.effect("options that the database cannot store are refused by name, and no file is made", () =>
    Effect.gen(function*() {
      const files = yield* Files.Files
      const before = yield* files.list()
      for (
        const [options, named] of [
          [{ purpose: "a\0" }, "purpose"],
          [{ owner: "\ud800" }, "owner"],
          [{ expires: 0 }, "expires"],
          [{ expires: Infinity }, "expires"]
        ] as const
      ) {
        const error = yield* Effect.flip(
          files.upload({ name: "in", purpose: "batch", ...options }, Stream.make(line({})))
        )
        assert.strictEqual(error._tag, "InvalidOptions")
        if (error._tag === "InvalidOptions") assert.deepStrictEqual(error.issues.map(({ option }) => option), [named])
      }
      assert.deepStrictEqual(yield* files.list(), before)
    }).pipe(Effect.provide(layer(new Scripted()))))

  it.effect("a file with problems makes a failed batch, and no line is asked", () => {
    const scripted = new Scripted()
    return Effect.gen(function*() {
      const file = yield* upload([
        line({}),
        "{",
        line({}),
        line({ custom_id: "" }),
        line({ custom_id: "b", method: "GET" }),
        line({ custom_id: "c", url: "/v1/embeddings" }),
        line({ custom_id: "d", body: { stream: true } }),
        line({ custom_id: "e", body: [] }),
        line({ custom_id: "f", body: { text: "x".repeat(2 ** 20) } })
      ])
      assert.deepStrictEqual(
        file.problems.map(({ code, line }) => [line, code]).toSorted((a, b) => Number(a[0]) - Number(b[0])),
        [
          [2, "invalid_json_line"],
          [3, "duplicate_custom_id"],
          [4, "invalid_custom_id"],
          [5, "invalid_method"],
          [6, "mixed_endpoints"],
          [7, "stream_not_supported"],
          [8, "invalid_body"],
          [9, "line_too_large"]
        ]
      )
      const batches = yield* Batches.Batches
      const id = yield* batches.submit({ file: file.id, endpoint: "/v1/chat/completions" }, Stream.empty)
      const status = yield* batches.status(id)
      assert.strictEqual(status.state, "failed")
      assert.strictEqual(JSON.parse(status.error ?? "").length, 8)
      const good = yield* upload([line({})])
      const other = yield* batches.submit({ file: good.id, endpoint: "/v1/embeddings" }, Stream.empty)
      assert.strictEqual((yield* batches.status(other)).state, "failed")
      const empty = yield* upload([])
      assert.deepStrictEqual(empty.problems.map(({ code }) => code), ["empty_file"])
      assert.deepStrictEqual(scripted.asked, [])
    }).pipe(Effect.provide(layer(scripted)))
  })
})
