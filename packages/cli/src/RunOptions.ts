import type { Values } from "./Flag.ts"
import * as Flag from "./Flag.ts"
import { defineCommand } from "./Command.ts"

/** Shows a text of the user's own as it is. */
const asGiven = (text: string): string => text

/** Ten years. */
const longestCacheMillis = 3_650 * 86_400_000

export const run = defineCommand({
  name: "run",
  summary: "Send a file of prompts to a model, and retry failures.",
  usage: "run FILE... -o RESULTS [flags]",
  about: [
    "Send every prompt in FILE to a model behind an OpenAI-compatible URL. Write one line of JSON per prompt to RESULTS, as " +
    "each one finishes. Several files are read as if they were one. `-` is standard input or output.",
    "No prompt is refused for lack of capacity. While the provider is down, the run waits for it. With several targets, " +
    "prompts go to the next target meanwhile."
  ],
  inputs: ["FILE..."],
  groups: {
    "Input": ["input-format", "prompt-template", "limit"],
    "Output": ["output", "force", "include-input", "ordered", "sync"],
    "Resuming": ["resume", "only-new", "retry-failed"],
    "Provider": ["url", "model", "target", "key-env", "key-file", "allow-insecure-key", "header"],
    "Request": ["system", "system-file", "temperature", "max-tokens", "samples", "omit", "no-stream"],
    "Limits and retries": [
      "concurrency",
      "adaptive",
      "rpm",
      "tpm",
      "itpm",
      "otpm",
      "max-attempts",
      "timeout",
      "first-token-timeout",
      "idle-timeout",
      "deadline",
      "max-outage",
      "max-cost",
      "price",
      "price-file"
    ],
    "Reuse of answers": ["no-share", "dedupe-ttl", "cache", "cache-ttl", "cache-size"]
  },
  flags: {
    output: Flag.optional("output", {
      short: "o",
      perRun: true,
      path: "file",
      argument: "FILE",
      about: "Write results to FILE. Fail if FILE exists. Required on a terminal, where results would mix with the " +
        "progress. [default: standard output, if piped]",
      parse: Flag.text
    }),
    force: Flag.toggle("force", { perRun: true, about: "Replace existing results, log and report files." }),
    resume: Flag.toggle("resume", {
      perRun: true,
      about:
        "Continue the run that wrote RESULTS: send the lines that have no answer, and append to RESULTS. No answer " +
        "is paid for twice. Without RESULTS, start it. FILE and the flags that shape a request must be the same."
    }),
    onlyNew: Flag.toggle("only-new", {
      perRun: true,
      about: "As --resume, for lines that were not sent or not finished. Leave out those that failed."
    }),
    retryFailed: Flag.toggle("retry-failed", {
      perRun: true,
      about: "As --resume, for lines that failed. Leave out those without a result. `sluice retry` needs fewer flags."
    }),
    config: Flag.optional("config", {
      perRun: true,
      path: "file",
      argument: "FILE",
      about: "Read settings from FILE. Variables such as SLUICE_MAX_TOKENS override it, and flags override both. " +
        "`sluice config` prints them. [default: sluice.json in the working directory, if there]",
      parse: Flag.text
    }),
    url: Flag.optional("url", {
      holdsSecret: "url",
      argument: "URL",
      about: "Call the API at URL, without its final /chat/completions. [default: OPENAI_BASE_URL, else " +
        "https://api.openai.com/v1]",
      parse: Flag.httpUrl
    }),
    model: Flag.optional("model", {
      argument: "NAME",
      about: "Use this model for lines that name none. No model is built in, since models differ in price. [default: " +
        "none]",
      parse: Flag.text
    }),
    targets: Flag.many("target", {
      holdsSecret: "url",
      fromObject: Flag.targetFromObject,
      argument: "NAME=URL#MODEL",
      about:
        "Call MODEL at URL, instead of --url and --model. Repeat in order of preference: prompts fall back to the next " +
        "target if one fails, is down or rate-limited. NAME=anthropic:URL#MODEL speaks Anthropic's Messages API. The " +
        "key is read from SLUICE_KEY_ plus NAME in capitals. [default: one target, of --url and --model]",
      parse: Flag.target
    }),
    inputFormat: Flag.optional("input-format", {
      argument: "KIND",
      choices: Flag.inputFormats,
      about: "Read FILE as jsonl, json (an array), csv, tsv or text. [default: by the name, as .csv, else the content]",
      parse: Flag.oneOf(Flag.inputFormats)
    }),
    promptTemplate: Flag.optional("prompt-template", {
      argument: "TEXT",
      about:
        "Build each prompt from TEXT and the fields or columns that it names: \"Summarise: {{body}}\". The text of " +
        "a plain line is {{text}}. [default: the field prompt]",
      shown: asGiven,
      parse: Flag.template
    }),
    includeInput: Flag.toggle("include-input", {
      about:
        "Repeat each line of the input in its result. Rows of a table are repeated anyway, without cells of over " +
        "1000 characters."
    }),
    system: Flag.optional("system", {
      argument: "TEXT",
      about: "Put a system message before those of each prompt. [default: none]",
      shown: asGiven,
      parse: Flag.text
    }),
    systemFile: Flag.optional("system-file", {
      path: "file",
      argument: "FILE",
      about: "Read the text of --system from FILE. [default: none]",
      parse: Flag.text
    }),
    temperature: Flag.optional("temperature", {
      argument: "N",
      about: "Set the temperature (0 to 2). [default: the provider's]",
      parse: Flag.decimal(0, 2)
    }),
    maxTokens: Flag.optional("max-tokens", {
      argument: "N",
      about: "Limit each answer to N tokens. [default: the provider's]",
      parse: Flag.integer(1, 100_000_000)
    }),
    concurrency: Flag.optional("concurrency", {
      argument: "N",
      about: "Run at most N calls at once per target. [default: found by --adaptive; with --rpm, --tpm, --itpm or " +
        "--otpm as many as the limits allow, at most 512]",
      parse: Flag.integer(1, 1000)
    }),
    adaptive: Flag.optionalToggle("adaptive", {
      about:
        "Find how many calls the provider accepts at once: start with 4 per target, and raise the number until a " +
        "call is rejected, up to --concurrency, else 64 (512 with a rate limit). --adaptive=false runs 16. " +
        "[default: on without --concurrency, --rpm, --tpm, --itpm and --otpm]"
    }),
    rpm: Flag.many("rpm", {
      argument: "N",
      about:
        "Send at most N requests in any minute to each account: 500, 2k. NAME=N is for the account of one target. " +
        "Rejections lower a limit that is too high. [default: none]",
      parse: Flag.limit
    }),
    tpm: Flag.many("tpm", {
      argument: "N",
      about: "Use at most N tokens a minute, input and output together, as --rpm: 200k, 2M. [default: none]",
      parse: Flag.limit
    }),
    itpm: Flag.many("itpm", {
      argument: "N",
      about: "Use at most N input tokens a minute, as --rpm. [default: none]",
      parse: Flag.limit
    }),
    otpm: Flag.many("otpm", {
      argument: "N",
      about: "Use at most N output tokens a minute, as --rpm. [default: none]",
      parse: Flag.limit
    }),
    maxAttempts: Flag.withDefault("max-attempts", 5, {
      argument: "N",
      about: "Make at most N attempts per prompt, including the first. Attempts while the provider is down or limits " +
        "the rate do not count. A file is less urgent than an interactive client. [default: 5]",
      parse: Flag.integer(1, 100)
    }),
    timeoutMillis: Flag.withDefault("timeout", 60_000, {
      argument: "TIME",
      about: "Limit an attempt, to the end of its answer. Long answers take half of the default. [default: 60s]",
      parse: Flag.duration(1)
    }),
    firstTokenTimeoutMillis: Flag.optional("first-token-timeout", {
      argument: "TIME",
      about: "Limit the wait for the first token of an attempt. Some models think for long. [default: as --timeout]",
      parse: Flag.duration(1)
    }),
    idleTimeoutMillis: Flag.optional("idle-timeout", {
      argument: "TIME",
      about:
        "Limit the silence within an answer that has begun. An answer silent for 30s does not resume. [default: 30s]",
      parse: Flag.duration(1)
    }),
    deadlineMillis: Flag.optional("deadline", {
      argument: "TIME",
      about: "Limit the time per prompt, from its start, with all attempts and delays. A file is rarely urgent. " +
        "[default: none]",
      parse: Flag.duration(1)
    }),
    noStream: Flag.toggle("no-stream", {
      about: "Request whole answers, for servers that cannot stream. Streaming detects a stalled answer sooner."
    }),
    dedupeTtlMillis: Flag.withDefault("dedupe-ttl", 3_600_000, {
      argument: "TIME",
      about:
        "Reuse an answer for TIME for later lines with the same request, at most until the run ends. 0s shares only " +
        "calls in flight. Most runs take less than 1h. [default: 1h]",
      parse: Flag.duration(0)
    }),
    samples: Flag.withDefault("samples", 1, {
      argument: "N",
      about:
        "Request N answers to each prompt, and write N results with the numbers of their samples. Samples share no " +
        "call. [default: 1]",
      parse: Flag.integer(1, 100)
    }),
    ordered: Flag.toggle("ordered", {
      about: "Write results in the order of FILE. Results wait in memory for earlier lines: up to 16 per concurrent " +
        "call, or 64 MiB. A kill loses them. [default: as each one finishes]"
    }),
    sync: Flag.toggle("sync", {
      about:
        "Flush results to the disk before the next ones are written, so that a power cut loses none. [default: once " +
        "a second]"
    }),
    cache: Flag.optional("cache", {
      path: "folder",
      argument: "DIR",
      about: "Keep complete answers in DIR, and reuse them in later runs for the same request to the same target. " +
        "Several runs can share DIR. [default: none]",
      parse: Flag.text
    }),
    cacheTtlMillis: Flag.withDefault("cache-ttl", 604_800_000, {
      argument: "TIME",
      about:
        "Reuse an answer of --cache for TIME, then delete it. Providers change a model behind its name. [default: " +
        "7d]",
      parse: Flag.duration(1, longestCacheMillis)
    }),
    cacheBytes: Flag.withDefault("cache-size", 2 ** 30, {
      argument: "SIZE",
      about: "Keep at most SIZE of answers in --cache. The oldest are deleted first. 300,000 answers take 1GiB. " +
        "[default: 1GiB]",
      parse: Flag.bytes
    }),
    noShare: Flag.toggle("no-share", { about: "Make a call for every line, even if requests are equal." }),
    limit: Flag.optional("limit", {
      argument: "N",
      about: "Read only the first N prompts. Lines that are no prompts do not count. [default: all]",
      parse: Flag.integer(1, Number.MAX_SAFE_INTEGER)
    }),
    maxOutageMillis: Flag.withDefault("max-outage", 600_000, {
      argument: "TIME",
      about: "Wait at most TIME for a provider that is down. Most outages end within 10m. [default: 10m]",
      parse: Flag.duration(0)
    }),
    maxCost: Flag.optional("max-cost", {
      argument: "USD",
      about: "Spend at most USD, together with earlier runs of RESULTS. Each attempt is reserved at its maximum, so " +
        "answers need a token limit. [default: no limit]",
      parse: Flag.dollars
    }),
    price: Flag.optional("price", {
      argument: "IN,OUT",
      about: "Count cost at these dollars for a million input and output tokens. [default: the prices of --price-file]",
      parse: Flag.price
    }),
    priceFile: Flag.optional("price-file", {
      path: "file",
      argument: "FILE",
      about: "Read the prices of models from FILE. [default: the price list of sluice]",
      parse: Flag.text
    }),
    dryRun: Flag.toggle("dry-run", {
      perRun: true,
      about: "Send nothing and write nothing. Print the number of lines, different requests and tokens, the highest " +
        "cost and the shortest time."
    }),
    keyEnv: Flag.optional("key-env", {
      argument: "NAME",
      about: "Read the key from environment variable NAME, for every target without its own key. The default may be " +
        "unset if the URL needs no key. [default: OPENAI_API_KEY]",
      parse: Flag.text
    }),
    keyFile: Flag.optional("key-file", {
      path: "file",
      argument: "FILE",
      about: "Read the key from FILE. No flag takes the key itself: other users can see flags. [default: none]",
      parse: Flag.text
    }),
    allowInsecureKey: Flag.toggle("allow-insecure-key", {
      about: "Send the key over http:// to another machine."
    }),
    headers: Flag.many("header", {
      holdsSecret: "header",
      argument: "NAME=VALUE",
      about:
        "Send this header to every target. Can be repeated. ${NAME} in VALUE is replaced from the environment, so " +
        "that other users cannot see a secret: 'X-Api-Key=${MY_KEY}'. [default: none]",
      shown: Flag.shownHeader,
      parse: Flag.header
    }),
    omit: Flag.many("omit", {
      argument: "FIELD",
      about: "Leave FIELD out of every request, for a server that refuses it. Can be repeated. [default: none]",
      parse: Flag.text
    }),
    log: Flag.optional("log", {
      perRun: true,
      path: "file",
      argument: "FILE",
      about:
        "Write a record of every prompt to FILE: attempts, times, outcomes and cost, but no prompt and no answer. " +
        "`sluice explain` reads it. [default: none]",
      parse: Flag.text
    }),
    explain: Flag.many("explain", {
      perRun: true,
      argument: "ID",
      about: "After the run, print the record of the prompt with this id or else this line number. Can be repeated. " +
        "[default: none]",
      parse: Flag.text
    }),
    report: Flag.optional("report", {
      perRun: true,
      path: "file",
      argument: "FILE.html",
      about: "Write a page about the run: attempts and circuits over time, latency, failures, cost. [default: none]",
      parse: Flag.text
    }),
    quiet: Flag.toggle("quiet", { short: "q", about: "Print errors only: no progress and no summary." })
  },
  notes: [
    {
      title: "Input: one of these per line; blank lines are skipped",
      lines: [
        `{"prompt": "...", "id": "optional"}`,
        `{"messages": [{"role": "user", "content": "..."}], "id": "optional"}`,
        `{"custom_id": "...", "body": {...}}   a line for OpenAI's Batch API`,
        `any text                              in a file named .txt`,
        `a row with a column prompt            in a file named .csv or .tsv`,
        "With --prompt-template, any fields or columns. Objects can also be in",
        "one JSON array.",
        "Beside prompt, messages, or in body: model, temperature, max_tokens,",
        "seed, stop, response_format and more. They override the flags. A",
        "request field that cannot be sent fails its line."
      ]
    },
    {
      title: "Exit code",
      lines: [
        "0    every prompt was answered",
        "1    some prompts failed; their lines say why",
        "2    unusable flags, files, URL or model; a key that is refused;",
        "     an input that does not match the results",
        "3    the provider or every target was down longer than --max-outage",
        "4    the rest of --max-cost is too small for the next prompt",
        "129  SIGHUP, handled like Ctrl-C",
        "130  Ctrl-C: running prompts were finished; press twice to stop now",
        "141  the reader of the results closed the pipe",
        "143  SIGTERM, handled like Ctrl-C"
      ]
    }
  ]
})

export type RunFlags = Values<typeof run.flags>
