import type { Values } from "./Flag.ts"
import * as Flag from "./Flag.ts"

/** A command as a person meets it. */
export interface Command<F extends Flag.Flags> {
  readonly name: string
  /** One line for the list of commands. */
  readonly summary: string
  /** How it is called, after the program's name. */
  readonly usage: string
  /** Paragraphs below the usage. */
  readonly about: ReadonlyArray<string>
  /** How many inputs it takes, all of them needed, and what one is called. */
  readonly inputs: ReadonlyArray<string>
  readonly flags: F
  /** Below the flags: headed paragraphs, whose lines are printed as they are. */
  readonly notes: ReadonlyArray<{ readonly title: string; readonly lines: ReadonlyArray<string> }>
}

const help = Flag.toggle("help", { short: "h", about: "Print this help." })

const defineCommand = <F extends Flag.Flags>(
  command: Command<F>
): Command<F & { readonly help: Flag.Flag<boolean> }> => ({
  ...command,
  flags: { ...command.flags, help }
})

/** `sluice run`. */
export const run = defineCommand({
  name: "run",
  summary: "send a file of prompts through a model, safely",
  usage: "run FILE -o RESULTS [flags]",
  about: [
    "Sends every prompt of FILE to a model at an OpenAI-compatible URL and writes one line of JSON per prompt to " +
    "RESULTS, as they finish. `-` stands for standard input or output.",
    "A prompt is never refused for capacity. While the provider is down the run waits, and goes on when it is back. " +
    "With several targets it asks the next one meanwhile."
  ],
  inputs: ["FILE"],
  flags: {
    output: Flag.optional("output", {
      short: "o",
      argument: "FILE",
      about: "Where results go. Default: standard output if it is piped; needed on a terminal, where they would mix " +
        "with the progress. An existing file is refused.",
      parse: Flag.text
    }),
    force: Flag.toggle("force", { about: "Replace an existing output file." }),
    url: Flag.optional("url", {
      argument: "URL",
      about: "The API, up to and without /chat/completions. Default: OPENAI_BASE_URL, else https://api.openai.com/v1.",
      parse: Flag.httpUrl
    }),
    model: Flag.optional("model", {
      argument: "NAME",
      about: "The model for lines that name none. Default: SLUICE_MODEL; there is no other, since models differ in " +
        "price.",
      parse: Flag.text
    }),
    targets: Flag.many("target", {
      argument: "NAME=URL#MODEL",
      about:
        "In place of --url and --model, and more than once: where to ask, in the order of preference. The next is " +
        "asked where one fails, is down or wants to be left alone. Its key is in SLUICE_KEY_ and NAME in capitals. " +
        "NAME=anthropic:URL#MODEL speaks Anthropic's messages. Default: one target, of --url and --model.",
      parse: Flag.target
    }),
    system: Flag.optional("system", {
      argument: "TEXT",
      about: "A system message before those of each prompt. Default: none.",
      parse: Flag.text
    }),
    temperature: Flag.optional("temperature", {
      argument: "N",
      about: "From 0 to 2. Default: the provider's.",
      parse: Flag.decimal(0, 2)
    }),
    maxTokens: Flag.optional("max-tokens", {
      argument: "N",
      about: "The longest answer. Default: the provider's.",
      parse: Flag.integer(1, 100_000_000)
    }),
    concurrency: Flag.withDefault("concurrency", 16, {
      argument: "N",
      about: "Calls at once, at each target. Default 16, which small accounts are allowed.",
      parse: Flag.integer(1, 1000)
    }),
    maxAttempts: Flag.withDefault("max-attempts", 5, {
      argument: "N",
      about: "Tries per prompt, the first included. Default 5: nobody watches a file, so it tries harder than a " +
        "client would.",
      parse: Flag.integer(1, 100)
    }),
    timeoutMillis: Flag.withDefault("timeout", 60_000, {
      argument: "TIME",
      about: "The longest try, to the end of its answer. Default 60s: long answers take half of it.",
      parse: Flag.duration(1)
    }),
    firstTokenTimeoutMillis: Flag.optional("first-token-timeout", {
      argument: "TIME",
      about: "The longest wait for the first token of a try. Default: as --timeout, since some models think for long.",
      parse: Flag.duration(1)
    }),
    idleTimeoutMillis: Flag.optional("idle-timeout", {
      argument: "TIME",
      about:
        "The longest silence within an answer that has begun. Default 30s: one that is silent for so long does not " +
        "go on.",
      parse: Flag.duration(1)
    }),
    deadlineMillis: Flag.optional("deadline", {
      argument: "TIME",
      about:
        "The longest that a prompt may take, from its turn, with all tries and waits. Default: none; a file is in " +
        "no hurry.",
      parse: Flag.duration(1)
    }),
    noStream: Flag.toggle("no-stream", {
      about: "Ask for answers in one piece, for servers that cannot stream. A stream shows sooner that nothing comes."
    }),
    dedupeTtlMillis: Flag.withDefault("dedupe-ttl", 3_600_000, {
      argument: "TIME",
      about: "How long an answer also serves later lines with the same request. Default 1h, longer than most runs; " +
        "it ends with the run. 0s shares only calls that are running.",
      parse: Flag.duration(0)
    }),
    noShare: Flag.toggle("no-share", { about: "Make a call for every line, also for equal ones." }),
    limit: Flag.optional("limit", {
      argument: "N",
      about: "Only the first N prompts. Default: all.",
      parse: Flag.integer(1, Number.MAX_SAFE_INTEGER)
    }),
    maxOutageMillis: Flag.withDefault("max-outage", 600_000, {
      argument: "TIME",
      about: "How long to wait for a provider that is down. Default 10m: most outages are over by then.",
      parse: Flag.duration(0)
    }),
    keyEnv: Flag.optional("key-env", {
      argument: "NAME",
      about:
        "The environment variable with the key, of every target that has none of its own. Default OPENAI_API_KEY, " +
        "which may be missing if the URL wants no key.",
      parse: Flag.text
    }),
    keyFile: Flag.optional("key-file", {
      argument: "FILE",
      about: "A file with the key. A key is never a flag: flags are seen by others.",
      parse: Flag.text
    }),
    allowInsecureKey: Flag.toggle("allow-insecure-key", {
      about: "Send the key over http:// to another machine."
    }),
    log: Flag.optional("log", {
      argument: "FILE",
      about: "Write what was decided for every prompt: what was tried, when, what came of it and what it cost; no " +
        "prompt and no answer. `sluice explain` reads it. Default: none.",
      parse: Flag.text
    }),
    explain: Flag.many("explain", {
      argument: "ID",
      about:
        "Print what was decided for one prompt, by its id or else the number of its line, when the run is over; may be " +
        "repeated. Default: none.",
      parse: Flag.text
    }),
    report: Flag.optional("report", {
      argument: "FILE.html",
      about: "Write a page about the run: tries and circuits over time, latency, failures, cost. Default: none.",
      parse: Flag.text
    }),
    quiet: Flag.toggle("quiet", { short: "q", about: "No progress and no table; errors only." })
  },
  notes: [
    {
      title: "Input, one of these per line; blank lines are skipped",
      lines: [
        `{"prompt": "...", "id": "optional"}`,
        `{"messages": [{"role": "user", "content": "..."}], "id": "optional"}`,
        `{"custom_id": "...", "body": {...}}   a line for OpenAI's Batch API`,
        `any text                              if the file's name ends in .txt`
      ]
    },
    {
      title: "Exit code",
      lines: [
        "0    every prompt was answered",
        "1    some failed; their lines say why",
        "2    nothing could be done: flags, files, URL, key or model",
        "3    the provider, or every target, was down for longer than --max-outage",
        "130  Ctrl-C: what was running was finished and written; press twice to stop",
        "141  whoever read the results went away"
      ]
    }
  ]
})

/** The flags of `sluice run`, read. */
export type RunFlags = Values<typeof run.flags>

/** `sluice explain`. */
export const explain = defineCommand({
  name: "explain",
  summary: "say what became of one prompt of a run, step by step",
  usage: "explain ID LOG",
  about: [
    "Prints what a run decided for the prompt with this id, or else on the line with this number: what was tried, when, what " +
    "came of it, what was passed over and why, and what it cost. LOG is what `sluice run --log LOG` wrote."
  ],
  inputs: ["ID", "LOG"],
  flags: {},
  notes: [
    {
      title: "Exit code",
      lines: ["0    it was found", "1    the log has no such prompt", "2    there is no such log"]
    }
  ]
})

/** `sluice provider`. */
export const provider = defineCommand({
  name: "provider",
  summary: "start a provider on this machine, to try things with no key",
  usage: "provider [flags]",
  about: [
    "Serves OpenAI's chat completions and Anthropic's messages on 127.0.0.1, with faults as a script says, until " +
    "Ctrl-C. What answers is a set " +
    "of rules for English letters, no language model: Summarise:, Extract: or Keywords: as a prompt's first line."
  ],
  inputs: [],
  flags: {
    port: Flag.withDefault("port", 0, {
      argument: "N",
      about: "Default: any free port.",
      parse: Flag.integer(0, 65_535)
    }),
    script: Flag.optional("script", {
      argument: "FILE",
      about: "What goes wrong, as JSON. Default: nothing.",
      parse: Flag.text
    }),
    models: Flag.many("model", {
      argument: "NAME",
      about: "A model that it knows; may be repeated, others get 404. Default: it answers to every name.",
      parse: Flag.text
    }),
    noKey: Flag.toggle("no-key", {
      about: "Ask for no key. Default: a random one, so that no web page can use it."
    })
  },
  notes: [
    {
      title: "A script: a tenth of the prompts limited at first, and an outage of 30 calls",
      lines: [
        `{ "seed": 7, "faults": { "rateLimit": 0.1 }, "retryAfterSeconds": 2,`,
        `  "outage": { "afterCalls": 100, "requests": 30, "atMostMillis": 20000 } }`,
        `faults, from 0 to 1: rateLimit, unavailable, reset, hang, slowStart, cut`
      ]
    },
    {
      title: "Exit code",
      lines: ["0    ended by Ctrl-C or SIGTERM, which is how one ends it", "2    it could not start"]
    }
  ]
})

/** The flags of `sluice provider`, read. */
export type ProviderFlags = Values<typeof provider.flags>

/** Every command, in the order in which the help lists them. */
export const commands = [run, explain, provider] as const
