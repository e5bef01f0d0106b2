import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { readdirSync, readlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Readable } from "node:stream"
import * as Input from "../../src/run/Input.ts"
import { maxLineBytes } from "../../src/run/Lines.ts"
import { folder } from "../support/files.ts"

type Options = Omit<Input.InputOptions, "paths"> & { readonly name?: string }

/** Reads bytes as a file of this name, in chunks of this size. */
const itemsOf = (content: string | Uint8Array, { name = "-", ...options }: Options = {}, size = 7) => {
  const bytes = Buffer.from(content)
  const chunks = Array.from(
    { length: Math.ceil(bytes.length / size) },
    (_, index) => bytes.subarray(index * size, (index + 1) * size)
  )
  return Stream.runCollect(Input.fromReadable({ paths: [name], ...options }, Readable.from(chunks)).items)
}

/** A prompt as its line, its id and its text; a line that is none as its line, its id and the reason. */
const shown = (items: Effect.Success<ReturnType<typeof itemsOf>>) =>
  items.map((item): ReadonlyArray<unknown> => [
    item.line,
    item.id,
    item._tag === "Prompt" ? item.messages.at(-1)?.content : `! ${item.message}`
  ])

type Shown = ReadonlyArray<readonly [line: number, id: string | undefined, text: string]>

describe("a table", () => {
  const name = "prompts.csv"
  const longest = "x".repeat(maxLineBytes - 20)

  it.effect.each<readonly [title: string, content: string | Uint8Array, options: Options, expected: Shown]>([
    ["a CSV", "id,prompt\n1,Hello\n2,Bye\n", { name }, [[2, "1", "Hello"], [3, "2", "Bye"]]],
    ["no final line feed", "id,prompt\n1,Hello", { name }, [[2, "1", "Hello"]]],
    ["CRLF", "id,prompt\r\n1,Hello\r\n2,Bye\r\n", { name }, [[2, "1", "Hello"], [3, "2", "Bye"]]],
    ["a byte order mark", "\uFEFFid,prompt\n1,Hello\n", { name }, [[2, "1", "Hello"]]],
    ["a quoted header", `"id","prompt"\n"1","Hello, you"\n`, { name }, [[2, "1", "Hello, you"]]],
    ["quotes", `id,prompt\n1,"say ""a"", b"\n2,5" pipe\n3,"a"b\n`, { name }, [
      [2, "1", `say "a", b`],
      [3, "2", `5" pipe`],
      [4, "3", `"a"b`]
    ]],
    ["line breaks in cells", `id,prompt\n1,"a\nb\n"\n2,"c\r\nd"\r\n\n\n3,e\n`, { name }, [
      [2, "1", "a\nb\n"],
      [5, "2", "c\r\nd"],
      [9, "3", "e"]
    ]],
    ["blank lines and rows", "\n\nid,prompt\n\n ,\n,\n1,a\n,,\n", { name }, [[7, "1", "a"]]],
    ["uneven rows", "id,prompt,x\n1\n2,b,c\n3,b,c,d\n4,b,c,,\n", { name }, [
      [2, "1", "! the row has 1 cells, and the header 3"],
      [3, "2", "b"],
      [4, "3", "! the row has 4 cells, and the header 3"],
      [5, "4", "b"]
    ]],
    ["an empty prompt", "id,prompt\n1, \n2,b\n", { name }, [[2, "1", "! prompt must not be empty"], [3, "2", "b"]]],
    ["NUL and control characters", `id,prompt\n${"1,a\n".repeat(20_000)}2,a\0b\x1b[2J\n`, { name, limit: 20_001 }, [
      ...Array.from({ length: 20_000 }, (_, index) => [index + 2, "1", "a"] as const),
      [20_002, "2", "a\0b\x1b[2J"]
    ]],
    ["the longest cell", `id,prompt\n1,"${longest}"\n`, { name }, [[2, "1", longest]]],
    ["semicolons", `id;prompt\n1;a,b\n`, { name }, [[2, "1", "a,b"]]],
    ["one column", "prompt\na\n", { name }, [[2, undefined, "a"]]],
    ["an id in capitals", "ID,prompt\n7,a\n,b\n", { name }, [[2, "7", "a"], [3, undefined, "b"]]],
    ["a nameless column", ",prompt\n7,a\n", { name }, [[2, undefined, "a"]]],
    ["columns of the names of request fields", "prompt,model,temperature\na,Golf,hot\n", { name }, [[
      2,
      undefined,
      "a"
    ]]],
    ["a TSV", `id\tprompt\n1\ta "b", c\n`, { name: "a.tsv" }, [[2, "1", `a "b", c`]]],
    ["a CSV by its content", "id,prompt\n1,Hello\n", {}, [[2, "1", "Hello"]]],
    ["a TSV by its content", "id\tprompt\n1\tHello\n", {}, [[2, "1", "Hello"]]],
    ["a CSV by the flag", "prompt?\nHello\n", { format: "csv", template: "{{prompt?}}" }, [[2, undefined, "Hello"]]],
    ["only a header", "id,prompt\n", { name }, []],
    ["nothing", "", { name }, []],
    ["a column named __proto__", "__proto__,prompt\nx,a\n", { name, template: "{{__proto__}} {{prompt}}" }, [[
      2,
      undefined,
      "x a"
    ]]]
  ])("is read: %s", ([, content, options, expected]) =>
    Effect.gen(function*() {
      for (const size of content.length > 20_000 ? [65_536] : [1, 7, 65_536]) {
        assert.deepStrictEqual<ReadonlyArray<unknown>>(shown(yield* itemsOf(content, options, size)), expected)
      }
    }))

  it.effect.each<readonly [title: string, content: string | Uint8Array, options: Options, part: string]>([
    ["no column for prompts", "id,body\n1,a\n", { name }, `no column prompt; its columns are id, body`],
    [
      "a misspelt column",
      "id,body\n1,a\n",
      { name, template: "{{bdy}}" },
      "no field bdy for --prompt-template; did you mean body? its columns are id, body"
    ],
    ["duplicate columns", "id,a,b,a\n1,2,3,4\n", { name }, "its columns 2 and 4 are both named a; rename one"],
    ["an open quote", `id,prompt\n1,a\n2,"b\n3,c\n`, { name }, "the quoted cell on line 3 is not closed"],
    [
      "a cell of 10 MB",
      `id,prompt\n1,a\n2,"${"x".repeat(10_000_000)}"\n`,
      { name },
      "the cell on line 3 makes a row of more than 8388608 bytes"
    ],
    ["Latin-1", Buffer.from("id,prompt\n1,caf\xe9\n", "latin1"), { name }, "iconv -f WINDOWS-1252"],
    ["an unfinished character", Buffer.from("id,prompt\n1,caf\xc3", "latin1"), { name }, "it is not UTF-8"],
    ["carriage returns", "id,prompt\r1,a\r", { name }, "carriage return alone"]
  ])("is refused: %s", ([, content, options, part]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(itemsOf(content, options, 65_536))
      assert.include(error.message, part)
      assert.notInclude(error.message, "\n")
    }))

  it.effect("rows before a broken one are read", () =>
    Effect.gen(function*() {
      const rows = Array.from({ length: 5_000 }, (_, index) => `${index},"a\n b"\n`).join("")
      const read = Input.fromReadable({ paths: [name] }, Readable.from([Buffer.from(`id,prompt\n${rows}x,"`)])).items
      assert.deepInclude((yield* Stream.runCollect(Stream.take(read, 4_000))).at(-1), { line: 8_000, id: "3999" })
    }))

  it.effect("columns are kept for the result, without large cells, unless the whole input is asked for", () =>
    Effect.gen(function*() {
      const large = "x".repeat(1_001)
      const content = `id,prompt,topic\n1,a,b\n2,${large},c\n`
      const inputs = (options: Options) =>
        Effect.map(itemsOf(content, { name, ...options }), (items) => items.map((item) => item.input))
      assert.deepStrictEqual(yield* inputs({}), [{ id: "1", prompt: "a", topic: "b" }, { id: "2", topic: "c" }])
      assert.deepStrictEqual((yield* inputs({ includeInput: true }))[1], { id: "2", prompt: large, topic: "c" })
    }))
})

describe("a JSON array", () => {
  const records = [{ prompt: "a", id: 1 }, { prompt: `]},"\\{`, id: 2 }]
  const expected: Shown = [[1, "1", "a"], [2, "2", `]},"\\{`]]

  it.effect.each<readonly [title: string, content: string, expected: Shown]>([
    ["on one line", JSON.stringify(records), expected],
    ["with a line end", `${JSON.stringify(records)}\n`, expected],
    ["over several lines", JSON.stringify(records, null, 2), expected],
    ["with an object per line", `[\n{"prompt":"a","id":1},\n${JSON.stringify(records[1])}\n]\n`, expected],
    ["after a byte order mark", `\uFEFF\n ${JSON.stringify(records, null, 1)}`, expected],
    ["with elements that are no prompts", `[{"prompt":"a"}, 7, {"prompt":oops}, , {"prompt":"b"},]`, [
      [1, undefined, "a"],
      [2, undefined, "! the line is JSON, but not an object"],
      [3, undefined, "! the line is not JSON"],
      [4, undefined, "! the element is empty"],
      [5, undefined, "b"]
    ]],
    ["that is empty", "[ ]", []]
  ])("is read: %s", ([, content, expected]) =>
    Effect.gen(function*() {
      for (const size of [1, 7, 65_536]) {
        assert.deepStrictEqual<ReadonlyArray<unknown>>(shown(yield* itemsOf(content, {}, size)), expected)
        assert.deepStrictEqual<ReadonlyArray<unknown>>(
          shown(yield* itemsOf(content, { format: "json" }, size)),
          expected
        )
      }
    }))

  it.effect("of many elements is read on demand, and a large element fails alone", () =>
    Effect.gen(function*() {
      let chunks = 0
      const endless = Readable.from((function*() {
        yield Buffer.from(`[{"prompt":"${"x".repeat(maxLineBytes)}"}`)
        for (;;) yield Buffer.from(`,{"prompt":"${chunks++}"}`)
      })())
      const { items } = Input.fromReadable({ paths: ["-"] }, endless)
      const read = shown(yield* Stream.runCollect(Stream.take(items, 3)))
      assert.include(String(read[0]?.[2]), "the limit is 8388608")
      assert.deepStrictEqual(read[2], [3, undefined, "1"])
      assert.isBelow(chunks, 1_000)
      assert.isTrue(endless.destroyed)
    }))

  it.effect.each<readonly [title: string, content: string, part: string]>([
    ["that is cut off", `[{"prompt":"a"},{"prompt":"b`, "its JSON array is not closed; element 2"],
    ["with text after it", `[{"prompt":"a"}] x`, "text follows the end"],
    ["that is an object", `{"data":[]}`, "it is no JSON array"]
  ])("is refused: %s", ([, content, part]) =>
    Effect.gen(function*() {
      assert.include((yield* Effect.flip(itemsOf(content, { format: "json" }))).message, part)
    }))
})

describe("--prompt-template", () => {
  const template = "Summarise {{ title }}: {{body}}"

  it.effect.each<readonly [title: string, content: string, options: Options, expected: Shown]>([
    ["columns", "id,title,body\n1,A,$& $1\n2,,b\n3,, \n", { name: "a.csv", template }, [
      [2, "1", "Summarise A: $& $1"],
      [3, "2", "Summarise : b"],
      [4, "3", "! title, body must not be empty"]
    ]],
    [
      "fields of JSON",
      `{"id":1,"title":"A","body":"{{title}}"}\n{"title":7,"body":{"a":[1]}}\n{"title":null,"body":"b"}\n`,
      { template },
      [
        [1, "1", "Summarise A: {{title}}"],
        [2, undefined, `Summarise 7: {"a":[1]}`],
        [3, undefined, "Summarise : b"]
      ]
    ],
    ["a missing field", `{"id":1,"title":"A","bdy":"b"}\n{"title":"A","body":"b"}\n`, { template }, [
      [1, "1", "! no field body for --prompt-template; did you mean bdy?"],
      [2, undefined, "Summarise A: b"]
    ]],
    ["names of object properties", `{"a":1}\n`, { template: "{{constructor}}" }, [
      [1, undefined, "! no field constructor for --prompt-template"]
    ]],
    ["a prompt", `{"prompt":"a","seed":"x"}\n{"prompt":"a"}\n`, { template: "Translate: {{prompt}}" }, [
      [1, undefined, "! seed must be a whole number"],
      [2, undefined, "Translate: a"]
    ]],
    ["messages", `{"messages":[],"prompt":"a"}\n`, { template: "{{prompt}}" }, [
      [1, undefined, "! the line has messages, which --prompt-template does not send"]
    ]],
    ["a field that would be one of the request", `{"model":"Golf","seed":"x"}\n`, { template: "{{model}} {{seed}}" }, [
      [1, undefined, "Golf x"]
    ]],
    ["plain lines", "a\nb\n", { name: "a.txt", template: "Translate: {{text}}" }, [
      [1, undefined, "Translate: a"],
      [2, undefined, "Translate: b"]
    ]],
    ["an array", `[{"title":"A","body":"b"}]`, { template }, [[1, undefined, "Summarise A: b"]]]
  ])("fills in %s", ([, content, options, expected]) =>
    Effect.gen(function*() {
      assert.deepStrictEqual<ReadonlyArray<unknown>>(shown(yield* itemsOf(content, options)), expected)
    }))

  it.effect("request fields beside those of the template are sent", () =>
    Effect.gen(function*() {
      const items = yield* itemsOf(`{"q":"a","model":"m","seed":7,"system":"s"}`, { template: "{{q}}" })
      assert.deepInclude(items[0], {
        model: "m",
        body: { seed: 7 },
        messages: [{ role: "system", content: "s" }, { role: "user", content: "a" }]
      })
    }))
})

describe("several files", () => {
  it.live("are read as if they were one, whatever their kinds, and their lines are numbered through", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const files: ReadonlyArray<readonly [name: string, content: string]> = [
        ["a.jsonl", `{"prompt":"a"}\n\n{"prompt":"b"}`],
        ["b.csv", `id,prompt\n1,"c\nd"\n\n`],
        ["c.json", `[{"prompt":"e"},{"prompt":"f"}]`],
        ["d.txt", "g\nh\n"],
        ["e.jsonl", ""],
        ["f.txt", "i"]
      ]
      const paths = files.map(([name, content]) => {
        writeFileSync(join(path, name), content)
        return join(path, name)
      })
      const input = yield* Input.make({ paths })
      const expected = [[1, "a"], [3, "b"], [5, "c\nd"], [8, "e"], [9, "f"], [10, "g"], [11, "h"], [12, "i"]]
      for (const items of [input.items, input.again ?? Stream.empty]) {
        assert.deepStrictEqual<ReadonlyArray<unknown>>(
          shown(yield* Stream.runCollect(items)).map(([line, , text]) => [line, text]),
          expected
        )
      }
      assert.strictEqual(yield* input.count ?? Effect.succeed(0), expected.length)
      assert.strictEqual(input.identities.length, files.length)
      const two = yield* Input.make({ paths, limit: 3 })
      assert.strictEqual(yield* Stream.runCount(two.items), 3)
    }))

  it.live("are closed if they are not read to their end, or are of another kind", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [large, wrong] = [join(path, "large.jsonl"), join(path, "wrong")]
      writeFileSync(large, `{"prompt":"a"}\n`.repeat(100_000))
      writeFileSync(wrong, "%PDF-1.7\n".repeat(100_000))
      const input = yield* Input.make({ paths: [large] })
      yield* Stream.runDrain(Stream.take(input.items, 1))
      yield* Effect.ignore(Effect.timeout(input.count ?? Effect.void, 1))
      yield* Effect.flip(Stream.runDrain((yield* Input.make({ paths: [wrong] })).items))
      const opened = () =>
        readdirSync("/proc/self/fd").filter((fd) => {
          try {
            return [large, wrong].includes(readlinkSync(`/proc/self/fd/${fd}`))
          } catch {
            return false
          }
        })
      for (let round = 0; process.platform === "linux" && opened().length > 0; round++) {
        assert.isBelow(round, 100, "a file is still open")
        yield* Effect.sleep(20)
      }
    }))

  it.live("are refused if one is missing, and its name is in the error, also if it fails later", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [a, b] = [join(path, "a.jsonl"), join(path, "b.csv")]
      writeFileSync(a, `{"prompt":"a"}\n`)
      assert.include((yield* Effect.flip(Input.make({ paths: [a, b] }))).message, "b.csv: no such file")
      writeFileSync(b, `prompt\n${"b\n".repeat(50_000)}"`)
      const input = yield* Input.make({ paths: [a, b] })
      assert.include((yield* Effect.flip(Stream.runDrain(input.items))).message, "b.csv: the quoted cell")
      assert.include((yield* Effect.flip(Input.make({ paths: ["-", a, "-"] }))).message, "only once")
    }))
})
