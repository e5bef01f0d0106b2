/** `npm start`: one bad day at a provider, met by the official client, by Sluice, and by Sluice with a second provider. */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { mkdirSync, writeFileSync } from "node:fs"
import { relative } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as Result from "../src/run/Result.ts"
import * as Words from "../src/run/Words.ts"
import * as Terminal from "../src/Terminal.ts"
import * as Text from "../src/Text.ts"
import { concurrency } from "./badDay.ts"
import * as Comparison from "./Comparison.ts"
import * as Official from "./officialClient.ts"
import * as Provider from "./Provider.ts"
import * as Strip from "./Strip.ts"
import * as Through from "./throughSluice.ts"
import * as Tickets from "./tickets.ts"

const columns = 78

/** Counts on one line while something runs; says it once where nobody looks on. */
const progress = (label: string, total: number) => {
  const isLive = process.stderr.isTTY === true && process.env["NO_COLOR"] === undefined
  let done = 0
  const show = () => process.stderr.write(isLive ? `\r  ${label} ${done}/${total}` : "")
  if (!isLive) process.stderr.write(`  ${label} ...\n`)
  return {
    onDone: () => {
      done++
      show()
    },
    end: () => process.stderr.write(isLive ? "\r\u001b[2K" : "")
  }
}

const resultsPath = fileURLToPath(new URL("../../../build/demo/results.jsonl", import.meta.url))

const writeResults = (results: ReadonlyArray<Result.Result>): string => {
  mkdirSync(new URL("../../../build/demo/", import.meta.url), { recursive: true })
  writeFileSync(resultsPath, results.map((result) => Result.encode(result, (text) => text)).join(""))
  return relative(process.cwd(), resultsPath)
}

const demonstrate = Effect.fnUntraced(function*(seed: number) {
  const tickets = Tickets.read()
  const different = new Set(tickets.map(({ prompt }) => prompt)).size
  const story =
    `A provider has a bad day (seed ${seed}): rate limits, resets, hangs, answers cut short, and an outage. ` +
    `${tickets.length} support tickets, ${different} of them different, are sent to it three times, ${concurrency} at a ` +
    "time: in batches by the official openai client, by Sluice, and by Sluice with a second provider to fall back on."
  yield* Console.log(`\n${Text.wrap(story, columns).join("\n")}\n`)
  const providers = yield* Provider.start(seed)
  const prompts = new Map(tickets.map(({ id, prompt }) => [id, prompt]))

  const official = progress("official openai client, at its defaults", tickets.length)
  const officialOutcomes = yield* Effect.promise(() => Official.run(providers.first, tickets, official.onDone))
  official.end()
  const them = Comparison.counts(officialOutcomes, yield* providers.journal)

  const through = Effect.fnUntraced(function*(label: string, places: Parameters<typeof Through.run>[0]) {
    yield* providers.clear
    const ours = progress(label, tickets.length)
    const run = yield* Effect.scoped(Through.run(places, tickets, ours.onDone))
    ours.end()
    const outcomes = run.results.map((result) => ({
      prompt: prompts.get(result.id ?? "") ?? "",
      text: result.status === "ok" ? result.text : undefined
    }))
    return { run, counts: Comparison.counts(outcomes, yield* providers.journal) }
  })
  const { counts: us, run } = yield* through("Sluice, at the defaults of `sluice run`", [providers.first])
  const second = yield* through("Sluice, with a second target", [providers.first, providers.second])

  yield* Console.log(
    ["Counted by the providers, in one way for all:", "", ...Comparison.table(them, us, second.counts)].join("\n")
  )
  yield* Console.log(verdict(them, us))
  yield* Console.log(
    `\nThe circuit in front of the provider, ${Words.time(run.millis)}: - closed, O open, ? probe\n${strip(run)}\n` +
      `The same with a second provider, ${Words.time(second.run.millis)}:\n${strip(second.run)}`
  )
  yield* Console.log(details(run))
  yield* Console.log(samples(run.results, prompts))
  const path = writeResults(run.results)
  yield* Console.log(
    `\nAll answers: ${path}\n` +
      `Other faults: npm start -- --seed ${seed + 1}\n` +
      "Your own: npm run sluice -- run FILE -o results.jsonl --url URL --model NAME\n" +
      "          FILE has a prompt per line; the key is read from OPENAI_API_KEY\n" +
      "          --report page.html shows what happened, --target adds a provider\n"
  )
  return [us, second.counts].every(({ answered, cutShort }) => answered === tickets.length && cutShort === 0)
})

const strip = ({ circuits, millis }: Through.Run): string =>
  `  ${Strip.render(circuits.filter(({ target }) => target === "first"), millis, columns - 4)}`

const verdict = (them: Comparison.Counts, us: Comparison.Counts): string => {
  const slower = us.millis - them.millis
  return slower > 0
    ? `\nSluice took ${Words.time(slower)} longer: it waited for the provider instead of failing.`
    : `\nSluice was done ${Words.time(-slower)} sooner.`
}

const details = ({ tally }: Through.Run): string => {
  const retries = tally.failures.map(([reason, times]) => `${reason} ${times}`).join(", ")
  return `\nShared: ${tally.joined} tickets joined a call that ran, ${tally.cached} took an answer that was there.\n` +
    wrapped(`Failed tries, and so retried: ${retries}.`)
}

/** Two tickets that had to be tried more than once, and what the model of rules made of them. */
const samples = (results: ReadonlyArray<Result.Result>, prompts: ReadonlyMap<string, string>): string =>
  results
    .filter((result) => result.status === "ok" && result.attempts > 1)
    .sort((a, b) => a.line - b.line)
    .slice(0, 2)
    .map((result) => {
      const ticket = Terminal.escape((prompts.get(result.id ?? "") ?? "").replaceAll(/\s+/g, " "))
      const answer = Terminal.escape(result.status === "ok" ? summaryOf(result.text) : "")
      return `\n${result.id}, answered by try ${result.attempts}:\n${quoted("  > ", ticket, 3)}\n${
        quoted("  = ", answer, 3)
      }`
    })
    .join("\n")

const summaryOf = (text: string): string => {
  const { summary }: { readonly summary?: string } = JSON.parse(text)
  return summary ?? text
}

const wrapped = (text: string): string => Text.wrap(text, columns).join("\n  ")

const quoted = (mark: string, text: string, most: number): string => {
  const lines = Text.wrap(text, columns - mark.length)
  const shown = lines.length > most ? [...lines.slice(0, most - 1), `${lines[most - 1]} ...`] : lines
  return shown.map((line) => mark + Terminal.clip(line, columns - mark.length)).join("\n")
}

const usage = "npm start -- [--seed N]: a bad day at a provider; another seed has other faults. Default: 7."

/** The seed, or what is to be said instead. */
const seedFrom = (argv: ReadonlyArray<string>): number | "help" | undefined => {
  const { positionals, tokens, values } = parseArgs({
    args: [...argv],
    options: { seed: { type: "string", default: "7" }, help: { type: "boolean", short: "h" } },
    strict: false,
    allowPositionals: true,
    tokens: true
  })
  if (values.help === true) return "help"
  const isKnown = tokens.every((token) => token.kind !== "option" || token.name === "seed")
  const seed = values.seed === "" ? Number.NaN : Number(values.seed)
  return isKnown && positionals.length === 0 && typeof values.seed === "string" && Number.isSafeInteger(seed) &&
      seed >= 0
    ? seed
    : undefined
}

const main = async (): Promise<number> => {
  const seed = seedFrom(process.argv.slice(2))
  if (seed === "help") {
    process.stdout.write(`${usage}\n`)
    return 0
  }
  if (seed === undefined) {
    process.stderr.write(`npm start: there is --seed with a whole number, and nothing else\n${usage}\n`)
    return 2
  }
  return await Effect.runPromise(Effect.scoped(demonstrate(seed))) ? 0 : 1
}

process.exitCode = await main()
