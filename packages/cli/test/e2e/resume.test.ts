import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Deferred, Effect } from "effect"
import { appendFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { hostname } from "node:os"
import { join } from "node:path"
import * as RunFile from "../../src/run/RunFile.ts"
import * as Process from "../support/command.ts"
import { refused } from "../support/command.ts"
import { allAnswered, lines, resultsIn, write } from "../support/files.ts"
import { requests, run, setUp, start } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

/** How often a run is killed. 20 in a longer form: SLUICE_KILLS=20. */
const kills = Number(process.env["SLUICE_KILLS"] ?? 5)
const concurrency = 16

const inShell = (
  args: ReadonlyArray<string>,
  env: { readonly [name: string]: string } = {}
) => Effect.promise(() => Process.run(args, env))

/** The prompts that have an answer in whole lines of the results. */
const answeredIn = (path: string): ReadonlySet<string> => {
  const text = existsSync(path) ? readFileSync(path, "utf8") : ""
  const whole = text.slice(0, text.lastIndexOf("\n") + 1)
  return new Set(
    whole.split("\n").filter((line) => line.includes(`"status":"ok"`)).map((line) => {
      const { id }: { readonly id: string } = JSON.parse(line)
      return `Question ${id.slice(1)}`
    })
  )
}

/** The prompts that were sent since this many requests. */
const sentSince = (provider: LoopbackProvider.LoopbackProvider["Service"], count: number) =>
  Effect.map(provider.journal, (journal) => journal.slice(count).map(({ prompt }) => prompt ?? ""))

/** Some answers have 1 MiB, some requests fail. */
const answer: LoopbackProvider.Options["answer"] = ({ prompt }) => {
  const number = Number(prompt.slice("Question ".length))
  return number % 50 === 7
    ? Effect.fail(new LoopbackProvider.AnswerError({ status: 400, message: "not this one" }))
    : Effect.succeed({ text: number % 10 === 0 ? "x".repeat(2 ** 20) : "fine" })
}

describe("a run that is resumed", { timeout: processTimeout }, () => {
  it.live("no answer is paid for twice, and every line is answered once, however often the run is killed", () =>
    Effect.gen(function*() {
      const count = 100 * (kills + 1)
      const { env, prompts, provider, results } = yield* setUp(lines(count), { answer, pace: { firstTokenMillis: 20 } })
      const args = [
        prompts,
        "-o",
        results,
        "--resume",
        "--no-stream",
        "--no-share",
        "--quiet",
        "--concurrency",
        String(concurrency)
      ]
      let seed = 7
      for (let kill = 0; kill < kills; kill++) {
        const before = (yield* provider.journal).length
        const answered = answeredIn(results)
        const command = yield* start(args, env)
        seed = seed * 48_271 % 2_147_483_647
        yield* requests(provider, before + 20 + seed % 60, command)
        command.process.kill("SIGKILL")
        yield* Effect.promise(() => command.ended)
        const again = (yield* sentSince(provider, before)).filter((prompt) => answered.has(prompt))
        assert.deepStrictEqual(again, [])
        assert.isTrue(existsSync(`${results}.lock`))
      }
      const ended = yield* run(args, env)
      assert.strictEqual(ended.code, 1, ended.stderr)
      const written = resultsIn(results)
      const ok = written.filter(({ status }) => status === "ok").map(({ line }) => line)
      assert.strictEqual(new Set(ok).size, ok.length)
      assert.strictEqual(ok.length, count - count / 50)
      const refusals = (yield* provider.journal).filter(({ status }) => status === 400).length
      assert.isAtMost((yield* provider.journal).length - refusals, ok.length + kills * concurrency)
      assert.isFalse(existsSync(`${results}.lock`))
    }))

  it.live("a tail that a kill or a power cut left is cut off, and the message names it", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(20))
      yield* run([prompts, "-o", results, "--limit", "10"], env)
      const half = Buffer.from(`{"line":11,"id":"p11","status":"ok","text":"é`).subarray(0, -1)
      for (const tail of [Buffer.alloc(4_096), half, Buffer.from(`{"line":`)]) {
        const before = readFileSync(results)
        const sent = (yield* provider.journal).length
        appendFileSync(results, tail)
        const limit = String(
          Number(resultsIn(write(`${results}.copy`, before.toString().trimEnd().split("\n"))).length) + 2
        )
        const { code, stderr } = yield* run([prompts, "-o", results, "--resume", "--limit", limit], env)
        assert.strictEqual(code, 0, stderr)
        assert.include(
          stderr,
          `ends in an unfinished line, of which ${tail.length.toLocaleString("en")} bytes are cut off\n`
        )
        assert.strictEqual((yield* provider.journal).length, sent + 2)
        assert.isTrue(readFileSync(results).subarray(0, before.length).equals(before))
        allAnswered(resultsIn(results), Number(limit))
      }
    }))

  it.live("a last result without its line feed is kept", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(4))
      yield* run([prompts, "-o", results, "--limit", "3"], env)
      writeFileSync(results, readFileSync(results, "utf8").trimEnd())
      assert.strictEqual((yield* run([prompts, "-o", results, "--resume"], env)).code, 0)
      allAnswered(resultsIn(results), 4)
      assert.strictEqual((yield* provider.journal).length, 4)
    }))

  it.live("changed, inserted and removed lines are refused with their numbers, and nothing is written or sent", () =>
    Effect.gen(function*() {
      const all = lines(40)
      const { env, prompts, provider, results } = yield* setUp(all)
      assert.strictEqual((yield* run([prompts, "-o", results, "--limit", "30"], env)).code, 0)
      const before = readFileSync(results, "utf8")
      const refuse = Effect.fnUntraced(function*(
        changed: ReadonlyArray<string>,
        flags: ReadonlyArray<string>,
        ...parts: ReadonlyArray<string>
      ) {
        write(prompts, changed)
        refused(yield* run([prompts, "-o", results, "--resume", ...flags], env), ...parts)
        assert.strictEqual(readFileSync(results, "utf8"), before)
        assert.strictEqual((yield* provider.journal).length, 30)
      })
      const changed = all.map((line, index) => index === 6 ? line.replace("Question", "Another question") : line)
      yield* refuse(changed, [], "line 7 (id p7) of the input is not the prompt that was sent")
      yield* refuse(
        [...all.slice(0, 9), `{"id":"new","prompt":"New"}`, ...all.slice(9)],
        [],
        "line 10 of the input is another prompt: id new, in the results id p10, and so are 20 other lines"
      )
      yield* refuse(
        [...all.slice(0, 9), ...all.slice(10)],
        [],
        "line 10 of the input is another prompt: id p11, in the results id p10"
      )
      yield* refuse(all.slice(0, 28), [], "line 29 has a result and is missing in the input, and 1 other too")
      yield* refuse(
        all.map((line, index) => index === 3 ? "" : line),
        [],
        "line 4 has a result and is missing in the input"
      )
      yield* refuse(all, ["--system", "Be brief"], "line 1 (id p1) of the input is not", "and so are 29 other lines")
      yield* refuse(all, ["--model", "other"], "--model")
      write(prompts, all)
      assert.strictEqual((yield* run([prompts, "-o", results, "--resume"], env)).code, 0)
      allAnswered(resultsIn(results), 40)
      assert.strictEqual((yield* provider.journal).length, 40)
      // Nothing is left.
      const complete = yield* run([prompts, "-o", results, "--resume"], env)
      assert.strictEqual(complete.code, 0, complete.stderr)
      assert.include(complete.stderr, "  earlier runs     40 answered\n")
      assert.strictEqual((yield* provider.journal).length, 40)
    }))

  it.live("a file of another kind is refused as results, and not changed", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(3))
      for (const content of ["notes", "notes\nof mine\n"]) {
        writeFileSync(results, content)
        refused(yield* run([prompts, "-o", results, "--resume"], env), "its line 1 is no result of sluice run")
        assert.strictEqual(readFileSync(results, "utf8"), content)
      }
      refused(yield* run([prompts, "-o", results, "--resume", "--force"], env), "--force replaces the results")
      refused(yield* run([prompts, "-o", results, "--only-new", "--retry-failed"], env), "--resume does both")
      refused(yield* run([prompts, "-o", "-", "--resume"], env), "--output must name a file")
      refused(yield* run([prompts, "-o", "/dev/null", "--resume"], env), "is not a file")
      assert.deepStrictEqual(yield* provider.journal, [])
    }))

  it.live("standard input is compared line by line", () =>
    Effect.gen(function*() {
      const all = lines(12)
      const { env, provider, results } = yield* setUp(all)
      const pipe = Effect.fnUntraced(function*(input: ReadonlyArray<string>, ...flags: ReadonlyArray<string>) {
        const command = yield* start(["-", "-o", results, ...flags], env)
        command.process.stdin.end(input.map((line) => `${line}\n`).join(""))
        return yield* Effect.promise(() => command.ended)
      })
      assert.strictEqual((yield* pipe(all.slice(0, 6))).code, 0)
      const other = yield* pipe([...all.slice(0, 3), `{"id":"x","prompt":"X"}`], "--resume")
      assert.strictEqual(other.code, 2)
      assert.include(other.stderr, "line 4 of the input is another prompt: id x, in the results id p4")
      const short = yield* pipe(all.slice(0, 5), "--resume")
      assert.strictEqual(short.code, 2)
      assert.include(short.stderr, "line 6 has a result and is missing")
      assert.strictEqual((yield* provider.journal).length, 6)
      assert.strictEqual((yield* pipe(all, "--resume")).code, 0)
      allAnswered(resultsIn(results), 12)
      assert.strictEqual((yield* provider.journal).length, 12)
    }))
})

describe("failed prompts", { timeout: processTimeout }, () => {
  const setUpFailing = Effect.gen(function*() {
    let isMended = false
    const files = yield* setUp([...lines(10), "oops"], {
      answer: ({ prompt }) =>
        !isMended && (prompt === "Question 3" || prompt === "Question 8")
          ? Effect.fail(new LoopbackProvider.AnswerError({ status: 400, message: "not this one" }))
          : Effect.succeed({ text: "fine" })
    })
    const first = yield* run([files.prompts, "-o", files.results, "--limit", "6"], files.env)
    assert.strictEqual(first.code, 1, first.stderr)
    assert.include(first.stderr, `To send the failed prompts again:\n  sluice retry '${files.results}'\n`)
    yield* files.provider.clear
    return { ...files, mend: () => isMended = true }
  })

  it.live("--only-new leaves failed lines out, --retry-failed sends only them, --resume sends all without an answer", () =>
    Effect.gen(function*() {
      const { env, mend, prompts, provider, results } = yield* setUpFailing
      const sent = sentSince(provider, 0)
      const onlyNew = yield* run([prompts, "-o", results, "--only-new"], env)
      assert.strictEqual(onlyNew.code, 1, onlyNew.stderr)
      assert.include(onlyNew.stderr, "  earlier runs     5 answered; 1 line without an answer left out\n")
      assert.deepStrictEqual((yield* sent).toSorted(), ["Question 10", "Question 7", "Question 8", "Question 9"])
      yield* provider.clear
      mend()
      const retried = yield* run([prompts, "-o", results, "--retry-failed"], env)
      // The line that is no prompt has failed as before.
      assert.strictEqual(retried.code, 1, retried.stderr)
      assert.deepStrictEqual((yield* sent).toSorted(), ["Question 3", "Question 8"])
      yield* provider.clear
      // A corrected line is sent.
      write(prompts, [...lines(10), `{"id":"p11","prompt":"Question 11"}`])
      const resumed = yield* run([prompts, "-o", results, "--resume"], env)
      assert.strictEqual(resumed.code, 0, resumed.stderr)
      assert.deepStrictEqual(yield* sent, ["Question 11"])
      allAnswered(resultsIn(results).filter(({ status }) => status === "ok"), 11)
    }))

  it.live("`sluice retry` needs only the results, in another environment and folder", () =>
    Effect.gen(function*() {
      const { env, mend, provider, results } = yield* setUpFailing
      const { OPENAI_API_KEY: key } = env
      mend()
      const retried = yield* inShell(["retry", results], { OPENAI_API_KEY: key! })
      // The four lines beyond the limit were not sent.
      assert.strictEqual(retried.code, 0, retried.stderr)
      assert.deepStrictEqual(yield* sentSince(provider, 0), ["Question 3"])
      const none = yield* inShell(["retry", results], { OPENAI_API_KEY: key! })
      assert.strictEqual(none.code, 0, none.stderr)
      assert.strictEqual((yield* provider.journal).length, 1)
      const kept = readFileSync(`${results}.run`, "utf8")
      assert.notInclude(kept, key!)
      refused(yield* inShell(["retry", `${results}.no`]), "no such file")
      writeFileSync(`${results}.run`, "")
      refused(yield* inShell(["retry", results]), "use --input FILE")
    }))

  it.live("a secret of a URL is not kept, and the user has to give it again", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(2))
      assert.strictEqual((yield* run([prompts, "-o", results, "--limit", "1"], env)).code, 0)
      const target = { name: "a", wire: "openai", model: "rules", apiKey: undefined, keySource: "" } as const
      const url = "https://one.example/v1?key=canary-5d1f"
      const settings: Parameters<typeof RunFile.write>[2] = { output: results, targets: [{ ...target, url }] }
      yield* Effect.promise(() => RunFile.write([prompts], new Map([["system", ["a?key=b"]]]), settings))
      const kept = readFileSync(`${results}.run`, "utf8")
      assert.notInclude(kept, "canary")
      assert.deepStrictEqual(JSON.parse(kept).flags, { model: ["rules"], system: ["a?key=b"] })
      refused(yield* inShell(["retry", results], env), "--url of the run has a secret")
      yield* Effect.promise(() => RunFile.write([prompts], new Map([["limit", ["1"]]]), settings))
      const given = yield* inShell(["retry", results, "--url", provider.url], env)
      assert.strictEqual(given.code, 0, given.stderr)
    }))
})

describe("two runs on one output", { timeout: processTimeout }, () => {
  it.live("the second run is refused, also with --force and --resume, and the results of the first are whole", () =>
    Effect.gen(function*() {
      // The answers wait for the end of the test, apart from the first ones.
      const gate = yield* Deferred.make<void>()
      const { directory, env, prompts, provider, results } = yield* setUp(lines(100), {
        answer: ({ prompt }) =>
          Effect.as(
            Number(prompt.slice("Question ".length)) > 20 ? Deferred.await(gate) : Effect.void,
            { text: "fine" }
          )
      })
      const log = join(directory, "calls.jsonl")
      const first = yield* start([prompts, "-o", results, "--log", log, "--timeout", "20m"], env)
      yield* requests(provider, 36, first)
      for (const flag of ["--force", "--resume", "--quiet"]) {
        refused(yield* run([prompts, "-o", results, flag], env), `another run writes it (process ${first.process.pid})`)
      }
      const other = join(directory, "other.jsonl")
      refused(yield* run([prompts, "-o", other, "--log", log, "--force"], env), "calls.jsonl: another run writes it")
      const { code, stdout } = yield* inShell(["status", results])
      assert.strictEqual(code, 0)
      assert.match(stdout, new RegExp(`results\\.jsonl: a run writes it \\(process ${first.process.pid} on `))
      assert.match(stdout, / {2}answered {7}20 of 100 lines in /)
      yield* Deferred.succeed(gate, undefined)
      const ended = yield* Effect.promise(() => first.ended)
      assert.strictEqual(ended.code, 0, ended.stderr)
      allAnswered(resultsIn(results), 100)
      assert.deepStrictEqual(readdirSync(directory).filter((name) => name.includes(".lock")), [])
      assert.include((yield* inShell(["status", results])).stdout, "results.jsonl: complete\n")
    }))

  it.live("a lock that a kill left is taken over, also if another process has its number now", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(60), { pace: { firstTokenMillis: 100 } })
      const first = yield* start([prompts, "-o", results, "--concurrency", "2"], env)
      yield* requests(provider, 9, first)
      first.process.kill("SIGKILL")
      yield* Effect.promise(() => first.ended)
      const { stdout } = yield* inShell(["status", results])
      assert.include(stdout, `its run was killed (process ${first.process.pid})`)
      assert.match(
        stdout,
        /To go on:\n {2}sluice run [^\n]* --resume --url [^\n]* --model rules [^\n]*--concurrency 2\n$/
      )
      const lock = JSON.parse(readFileSync(`${results}.lock`, "utf8"))
      assert.strictEqual(lock.host, hostname())
      // This process lives, and started at another time.
      writeFileSync(`${results}.lock`, JSON.stringify({ ...lock, pid: process.pid }))
      const second = yield* run([prompts, "-o", results, "--resume"], env)
      assert.strictEqual(second.code, 0, second.stderr)
      allAnswered(resultsIn(results), 60)
      assert.isFalse(existsSync(`${results}.lock`))
    }))
})

describe("the end of a run", { timeout: processTimeout }, () => {
  it.live("after Ctrl-C the printed command sends the remaining prompts", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(80), { pace: { firstTokenMillis: 100 } })
      const first = yield* start([prompts, "-o", results, "--concurrency", "2", "--system", "It's"], env)
      yield* requests(provider, 9, first)
      first.process.kill("SIGINT")
      const { code, stderr } = yield* Effect.promise(() => first.ended)
      assert.strictEqual(code, 130, stderr)
      const next = /\nTo go on:\n {2}sluice ([^\n]*)\n$/.exec(stderr)?.[1] ?? ""
      const split = yield* Effect.promise(() => Process.split(next))
      const second = yield* inShell(split, env)
      assert.strictEqual(second.code, 0, second.stderr)
      const ok = resultsIn(results).filter(({ status }) => status === "ok")
      allAnswered(ok, 80)
      assert.strictEqual((yield* provider.journal).length, 80)
    }))

  it.live("repeated ids are counted and named", () =>
    Effect.gen(function*() {
      const { env, prompts, results } = yield* setUp([...lines(3), ...lines(2)])
      const { code, stderr } = yield* run([prompts, "-o", results], env)
      assert.strictEqual(code, 0, stderr)
      assert.include(stderr, "  repeated ids     2 lines with the id of an earlier one, for example line 4: p1\n")
    }))
})
