/**
 * `npm start`: one bad day at a provider, met by the official client, by Sluice, by Sluice with a second provider, and by the
 * official client through a gateway.
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
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
import * as Gateway from "./gateway.ts"
import * as KilledRun from "./killedRun.ts"
import * as Official from "./officialClient.ts"
import * as Provider from "./Provider.ts"
import * as Strip from "./Strip.ts"
import * as Through from "./throughSluice.ts"
import * as Tickets from "./tickets.ts"

const columns = 78

const aboutGateway = `\n${
  Text.wrap(
    "The last client is the first one with another baseURL. The gateway held each stream until it was whole (--answer " +
      "whole). Without that flag a stream that breaks raises an error in the client after its first words.",
    columns
  ).join("\n")
}`

/** Counts tickets on one line of a terminal. Elsewhere it prints the label once. */
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
  writeFileSync(resultsPath, results.map((result) => Result.encode(result)).join(""))
  return relative(process.cwd(), resultsPath)
}

const demonstrate = Effect.fnUntraced(function*(seed: number) {
  const tickets = Tickets.read()
  const different = new Set(tickets.map(({ prompt }) => prompt)).size
  const story =
    `A provider has a bad day (seed ${seed}): rate limits, resets, hangs, truncated answers and an outage. ` +
    `Four clients each send it ${tickets.length} support tickets (${different} different), ${concurrency} at a time: ` +
    "the official openai client in batches, Sluice, Sluice with a second provider as fallback, and the official " +
    "client again with the baseURL of `sluice serve`, a gateway to both providers."
  yield* Console.log(`\n${Text.wrap(story, columns).join("\n")}\n`)
  const providers = yield* Provider.start(seed)
  const prompts = new Map(tickets.map(({ id, prompt }) => [id, prompt]))

  // It starts while the first client waits.
  const starting = yield* Effect.forkChild(Gateway.start(providers))
  const throughOfficial = Effect.fnUntraced(function*(label: string, endpoint: Provider.Endpoint) {
    yield* providers.clear
    const progressLine = progress(label, tickets.length)
    const outcomes = yield* Effect.promise(() => Official.run(endpoint, tickets, progressLine.onDone))
    progressLine.end()
    return Comparison.counts(outcomes, yield* providers.journals)
  })
  const official = yield* throughOfficial("official openai client, at its defaults", providers.first)

  const throughSluice = Effect.fnUntraced(function*(label: string, endpoints: Parameters<typeof Through.run>[0]) {
    yield* providers.clear
    const progressLine = progress(label, tickets.length)
    const run = yield* Effect.scoped(Through.run(endpoints, tickets, progressLine.onDone))
    progressLine.end()
    const outcomes = run.results.map((result) => ({
      prompt: prompts.get(result.id ?? "") ?? "",
      text: result.status === "ok" ? result.text : undefined
    }))
    return { run, counts: Comparison.counts(outcomes, yield* providers.journals) }
  })
  // Most of the time the clients wait, so the run that is killed disturbs them little.
  const killing = yield* Effect.forkChild(KilledRun.run(providers.third, tickets.length))
  const { counts: sluice, run } = yield* throughSluice("Sluice, at the defaults of `sluice run`", [providers.first])
  const second = yield* throughSluice("Sluice, with a second target", [providers.first, providers.second])
  const gateway = yield* throughOfficial("official openai client, through `sluice serve`", yield* Fiber.join(starting))

  yield* Console.log(
    [
      "Counted at the providers, the same way for all clients:",
      "",
      ...Comparison.table({ official, sluice, withSecond: second.counts, gateway })
    ].join("\n")
  )
  yield* Console.log(verdict(official, sluice))
  yield* Console.log(aboutGateway)
  yield* Console.log(
    `\nThe provider's circuit over ${Words.time(sluice.millis)}: - closed, O open, ? probe\n${strip(run, sluice)}\n` +
      `The same with a second provider, over ${Words.time(second.counts.millis)}:\n${strip(second.run, second.counts)}`
  )
  yield* Console.log(details(run))
  const killed = yield* Fiber.join(killing)
  yield* Console.log(`\n${KilledRun.render(killed, (yield* providers.journals).third, tickets.length)}`)
  yield* Console.log("\nTwo tickets of Sluice without the second provider: > is the ticket, = the answer")
  yield* Console.log(samples(run.results, prompts))
  const path = writeResults(run.results)
  yield* Console.log(
    `\nAll answers of Sluice without the second provider: ${path}\n` +
      `Other faults: npm start -- --seed ${seed + 1}\n` +
      "Your own: npm run sluice -- run FILE -o results.jsonl --url URL --model NAME\n" +
      "  FILE has one prompt per line. The key is read from OPENAI_API_KEY.\n" +
      "  --report page.html shows what happened, --target adds a provider.\n" +
      "A gateway for your clients: npm run sluice -- serve --target NAME=URL\n"
  )
  return killed.answered === tickets.length && killed.twice === 0 &&
    [sluice, second.counts, gateway].every(({ answered, cutShort }) => answered === tickets.length && cutShort === 0)
})

const strip = ({ circuits }: Through.Run, { millis }: Comparison.Counts): string =>
  `  ${Strip.render(circuits.filter(({ target }) => target === "first"), millis, columns - 4)}`

const verdict = (official: Comparison.Counts, sluice: Comparison.Counts): string => {
  const slower = sluice.millis - official.millis
  return slower > 0
    ? `\nSluice took ${Words.time(slower)} longer than the official client: it waited for the provider\n` +
      "instead of failing."
    : `\nSluice finished ${Words.time(-slower)} sooner than the official client.`
}

const details = ({ tally }: Through.Run): string => {
  const failures = tally.failures.map(([reason, times]) => `${reason}: ${times}`).join(", ")
  return `\nWithout the second provider ${tally.joined} tickets joined a request under way, and ${tally.cached} reused\n` +
    `an answer.\n${wrapped(`Failed attempts: ${failures}.`)}`
}

/** Shows two tickets that took more than one attempt, and their answers. */
const samples = (results: ReadonlyArray<Result.Result>, prompts: ReadonlyMap<string, string>): string =>
  results
    .filter((result) => result.status === "ok" && result.attempts > 1)
    .sort((a, b) => a.line - b.line)
    .slice(0, 2)
    .map((result) => {
      const ticket = Terminal.escape((prompts.get(result.id ?? "") ?? "").replaceAll(/\s+/g, " "))
      const answer = Terminal.escape(result.status === "ok" ? summaryOf(result.text) : "")
      return `${result.id}, answered by attempt ${result.attempts}:\n${quoted("  > ", ticket, 3)}\n${
        quoted("  = ", answer, 3)
      }`
    })
    .join("\n\n")

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

const usage = "npm start -- [--seed N]   Run the demo. Another seed injects other faults. [default: 7]"

/** Parses the seed. `undefined` for wrong arguments. */
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
    process.stderr.write(`npm start: the only option is --seed with a whole number\n${usage}\n`)
    return 2
  }
  return await Effect.runPromise(Effect.scoped(demonstrate(seed))) ? 0 : 1
}

process.exitCode = await main()
