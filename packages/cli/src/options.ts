import type { Values } from "./Flag.ts"
import * as Flag from "./Flag.ts"
import * as Gateway from "./Gateway.ts"

/** A command of the program: what its parser and its help text need. */
export interface Command<F extends Flag.Flags> {
  readonly name: string
  /** One line for the list of commands. */
  readonly summary: string
  /** The usage line, after the program's name. */
  readonly usage: string
  /** Paragraphs below the usage line. */
  readonly about: ReadonlyArray<string>
  /** Names of the positional arguments. One in brackets can be left out. The last one can be repeated if its name ends in `...`. */
  readonly inputs: ReadonlyArray<string>
  readonly flags: F
  /** Titles of the help text, with the names of the flags below them. Default: one title for all. */
  readonly groups?: { readonly [title: string]: ReadonlyArray<string> } | undefined
  /** Values of ACTION, the first input. A title of `groups` that is one of them holds the flags of that action. */
  readonly actions?: ReadonlyArray<string> | undefined
  /** A command whose flags this one takes too. The help text names it instead of them. */
  readonly borrows?: Command<Flag.Flags> | undefined
  /** Titled blocks below the flags. Their lines are printed unwrapped. */
  readonly notes: ReadonlyArray<{ readonly title: string; readonly lines: ReadonlyArray<string> }>
}

const help = Flag.toggle("help", { short: "h", perRun: true, about: "Print this help." })

const defineCommand = <F extends Flag.Flags>(
  command: Command<F>
): Command<F & { readonly help: Flag.Flag<boolean> }> => ({
  ...command,
  flags: { ...command.flags, help }
})

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

/** Flags that name files of a run or shape its requests. The results depend on them, so a retry takes those of the run. */
const {
  config: _config,
  force: _force,
  help: _help,
  includeInput: _includeInput,
  inputFormat: _inputFormat,
  limit: _limit,
  maxTokens: _maxTokens,
  model: _model,
  omit: _omit,
  onlyNew: _onlyNew,
  output: _output,
  promptTemplate: _promptTemplate,
  resume: _resume,
  retryFailed: _retryFailed,
  system: _system,
  systemFile: _systemFile,
  temperature: _temperature,
  ...retryFlags
} = run.flags

export const retry = defineCommand({
  name: "retry",
  summary: "Send the failed prompts of a run again.",
  usage: "retry RESULTS [flags]",
  about: [
    "Send again every prompt that failed or was not finished, and append to RESULTS. The input and the flags " +
    "of the run are read from RESULTS.run. Flags given here replace them. The key comes from the environment " +
    "or a file, as in `sluice run`."
  ],
  inputs: ["RESULTS"],
  flags: {
    input: Flag.many("input", {
      perRun: true,
      path: "file",
      argument: "FILE",
      about: "Read the prompts from FILE. Can be repeated. [default: the files of the run]",
      parse: Flag.text
    }),
    ...retryFlags
  },
  notes: [{ title: "Exit code", lines: ["As `sluice run`."] }]
})

export type RetryFlags = Values<typeof retry.flags>

export const status = defineCommand({
  name: "status",
  summary: "Print the progress of a run, also while it runs.",
  usage: "status RESULTS",
  about: [
    "Print how many lines of RESULTS are answered, failed, not finished and left, whether a run is active, and " +
    "the command that continues it. Change nothing."
  ],
  inputs: ["RESULTS"],
  flags: {},
  notes: [{
    title: "Exit code",
    lines: ["0    RESULTS was read", "2    RESULTS is missing or has lines of another kind"]
  }]
})

const logFormats = ["text", "json"] as const

const answers = ["live", "whole"] as const

const exportFormats = ["csv", "openai"] as const

export const exportResults = defineCommand({
  name: "export",
  summary: "Write the results of a run as CSV or in OpenAI's format.",
  usage: "export RESULTS [flags]",
  about: [
    "Write the results of a run in another format, one per line of the input and in its order. The last answer " +
    "of a line counts. RESULTS does not change, so the run can continue."
  ],
  inputs: ["RESULTS"],
  flags: {
    format: Flag.withDefault<typeof exportFormats[number]>("format", "csv", {
      argument: "FORMAT",
      choices: exportFormats,
      about:
        "Write csv: the columns of the input, then those of the result. Or openai: the output file of OpenAI's Batch " +
        "API. [default: csv]",
      parse: Flag.oneOf(exportFormats)
    }),
    output: Flag.optional("output", {
      short: "o",
      path: "file",
      argument: "FILE",
      about: "Write to FILE. Fail if FILE exists. [default: standard output]",
      parse: Flag.text
    }),
    force: Flag.toggle("force", { about: "Replace FILE." })
  },
  notes: [{
    title: "Exit code",
    lines: [
      "0    the results were written",
      "2    RESULTS is missing or has lines of another kind, or FILE cannot",
      "     be written",
      "141  the reader of the output closed the pipe"
    ]
  }]
})

export type ExportFlags = Values<typeof exportResults.flags>

export const explain = defineCommand({
  name: "explain",
  summary: "Print what happened to one prompt of a run, step by step.",
  usage: "explain ID LOG",
  about: [
    "Print the record of the prompt with this id, or else on the line with this number: its attempts, their times and " +
    "outcomes, targets that were skipped and why, and the cost. LOG is the file of `sluice run --log`."
  ],
  inputs: ["ID", "LOG"],
  flags: {},
  notes: [
    {
      title: "Exit code",
      lines: ["0    the prompt was found", "1    the log has no such prompt", "2    the log is missing or unreadable"]
    }
  ]
})

export const config = defineCommand({
  name: "config",
  summary: "Print each setting of a run and where it comes from.",
  usage: "config [flags]",
  about: [
    "Print the settings that `sluice run` with these flags has, from flags, variables, sluice.json and defaults, in this " +
    "order. Keys are masked. Call no provider. All flags of `sluice run` are allowed."
  ],
  inputs: [],
  borrows: run,
  flags: {
    ...run.flags,
    json: Flag.toggle("json", { perRun: true, about: "Print JSON." })
  },
  notes: [
    {
      title: "sluice.json, in the working directory: flags of `sluice run`",
      lines: [
        `{`,
        `  "target": [`,
        `    "main=https://api.openai.com/v1#gpt-5-mini",`,
        `    { "name": "own", "url": "https://\${HOST}/v1", "model": "m" }`,
        `  ],`,
        `  "concurrency": 32, "timeout": "90s", "noStream": true`,
        `}`,
        "Paths are relative to the file. Keys are refused. ${NAME} in a URL is",
        "replaced by that variable. Flags of one run, such as --output, are",
        "refused. A flag overrides a switch of the file: --no-stream=false"
      ]
    },
    {
      title: "Variables",
      lines: [
        "SLUICE_ and the flag in capitals: SLUICE_MAX_TOKENS=500. A switch is",
        "true or false. Values of a repeated flag are one per line."
      ]
    },
    {
      title: "Exit code",
      lines: ["0    a run could start with these settings", "2    it could not; the message says why"]
    }
  ]
})

export const completions = defineCommand({
  name: "completions",
  summary: "Print a script that completes commands in a shell.",
  usage: "completions bash|zsh|fish",
  about: ["Print a script for SHELL that completes commands, flags, files and values at the Tab key."],
  inputs: ["SHELL"],
  flags: {},
  notes: [
    {
      title: "Where to put it",
      lines: [
        "bash  in ~/.bashrc: source <(sluice completions bash)",
        "zsh   in ~/.zshrc, after compinit: source <(sluice completions zsh)",
        "fish  sluice completions fish > ~/.config/fish/completions/sluice.fish"
      ]
    },
    { title: "Exit code", lines: ["0    printed", "2    no such shell"] }
  ]
})

export const provider = defineCommand({
  name: "provider",
  summary: "Start a local provider, to try sluice without a key.",
  usage: "provider [flags]",
  about: [
    "Serve OpenAI's chat completions and Anthropic's messages on 127.0.0.1 until Ctrl-C, with the faults of a " +
    "script. Answers come from rules for English letters, not from a language model. Begin the first line of a " +
    "prompt with Summarise:, Extract: or Keywords:."
  ],
  inputs: [],
  flags: {
    port: Flag.withDefault("port", 0, {
      argument: "N",
      about: "Listen on port N. [default: any free port]",
      parse: Flag.integer(0, 65_535)
    }),
    script: Flag.optional("script", {
      path: "file",
      argument: "FILE",
      about: "Inject the faults that the JSON in FILE describes. [default: no faults]",
      parse: Flag.text
    }),
    models: Flag.many("model", {
      argument: "NAME",
      about: "Serve this model and answer 404 for others. Can be repeated. [default: serve every name]",
      parse: Flag.text
    }),
    noKey: Flag.toggle("no-key", {
      about: "Require no key. [default: require a random one, so that no web page can use the provider]"
    })
  },
  notes: [
    {
      title: "Example script: rate limits for a tenth of the prompts, and an outage",
      lines: [
        `{ "seed": 7, "faults": { "rateLimit": 0.1 }, "retryAfterSeconds": 2,`,
        `  "outage": { "afterCalls": 100, "requests": 30,`,
        `              "atMostMillis": 20000 } }`,
        `faults (0 to 1): rateLimit, unavailable, reset, hang, slowStart, cut`
      ]
    },
    {
      title: "Exit code",
      lines: ["0    stopped by Ctrl-C or SIGTERM", "2    could not start"]
    }
  ]
})

export type ProviderFlags = Values<typeof provider.flags>

const { allowInsecureKey, headers, itpm, keyEnv, keyFile, otpm, price, priceFile, rpm, tpm } = run.flags

const postgresUrl = Flag.databaseUrl(["postgres", "postgresql"])

const keysFile = Flag.withDefault("keys", "sluice-keys.sqlite", {
  path: "file",
  holdsSecret: "database",
  argument: "FILE",
  about:
    "Keep the keys of clients in FILE, hashed, or in Postgres after `sluice migrate`: postgres://host/name. Write its " +
    "password as ${NAME} of a variable, or set SLUICE_KEYS. [default: that of sluice.json, else sluice-keys.sqlite " +
    "in the working directory]",
  parse: (text) => Flag.isDatabaseUrl(text) ? postgresUrl(text) : Flag.text(text)
})

export const serve = defineCommand({
  name: "serve",
  summary: "Start a gateway with retries and fallback for any client.",
  usage: "serve [flags]",
  about: [
    "Serve OpenAI's and Anthropic's APIs, and send each request to the first target that is available. A stream is complete or " +
    "ends with an error, never silently.",
    "Set the base URL of a client to what is printed at the start, and its key to the token printed there, or to one of " +
    "`sluice keys add`."
  ],
  inputs: [],
  groups: {
    "Server": [
      "host",
      "port",
      "allow-host",
      "keys",
      "batches",
      "file-storage",
      "store",
      "processes",
      "heartbeat",
      "drain-delay",
      "drain-timeout",
      "log-format"
    ],
    "Providers": ["url", "model", "target", "models", "key-env", "key-file", "allow-insecure-key", "header"],
    "Limits and retries": [
      "concurrency",
      "rpm",
      "tpm",
      "itpm",
      "otpm",
      "max-attempts",
      "answer",
      "timeout",
      "first-token-timeout",
      "idle-timeout",
      "deadline",
      "dedupe",
      "price",
      "price-file"
    ]
  },
  flags: {
    config: Flag.optional("config", {
      perRun: true,
      path: "file",
      argument: "FILE",
      about: "Read settings from the key `serve` of FILE, again at SIGHUP and when it changes. Variables such as " +
        "SLUICE_PORT override it, and flags override both. [default: sluice.json in the working directory, if there]",
      parse: Flag.text
    }),
    host: Flag.withDefault("host", "127.0.0.1", {
      argument: "ADDRESS",
      about: "Listen on ADDRESS. An address other than loopback requires a key of `sluice keys add`. [default: " +
        "127.0.0.1]",
      parse: Flag.text
    }),
    port: Flag.withDefault("port", 4_000, {
      argument: "N",
      about: "Listen on port N. 0: any free port. [default: 4000]",
      parse: Flag.integer(0, 65_535)
    }),
    allowHosts: Flag.many("allow-host", {
      argument: "NAME",
      about: "Accept requests to this host name too, such as the name of a proxy. Can be repeated. Other names are " +
        "refused, so that no web page can reach the gateway under its own name. [default: localhost and IP " +
        "addresses]",
      parse: Gateway.hostName
    }),
    keys: keysFile,
    batches: Flag.optional("batches", {
      holdsSecret: "database",
      argument: "URL",
      about: "Serve OpenAI's /v1/files and /v1/batches for every target, from the database at URL: sqlite:FILE, or " +
        "postgres://host/database after `sluice migrate`. Write its password as ${NAME} of a variable, or set " +
        "SLUICE_BATCHES. [default: files and batches are the first target's]",
      parse: Flag.batchesUrl
    }),
    fileStorageBytes: Flag.withDefault("file-storage", 20 * 2 ** 30, {
      argument: "SIZE",
      about: "Keep at most SIZE of uploaded files per key, with --batches. Further uploads are refused until the key " +
        "deletes files or they expire. [default: 20GiB]",
      parse: Flag.bytes
    }),
    store: Flag.optional("store", {
      holdsSecret: "database",
      argument: "URL",
      about: "Share circuits and limits, also those of keys, with the other gateways of the database at URL: " +
        "redis://host, postgres://host/name after `sluice migrate`, or sqlite:FILE on one machine. Write its password " +
        "as ${NAME} of a variable, or set SLUICE_STORE. [default: each gateway has its own]",
      parse: Flag.storeUrl
    }),
    processes: Flag.withDefault("processes", 1, {
      argument: "N",
      about: "While --store is down, allow 1/N of each limit, for N gateways. Limits of cost refuse. [default: 1]",
      parse: Flag.integer(1, 1_000)
    }),
    url: Flag.optional("url", {
      holdsSecret: "url",
      argument: "URL",
      about: "Call the API at URL, instead of --target. [default: OPENAI_BASE_URL, else https://api.openai.com/v1]",
      parse: Flag.httpUrl
    }),
    model: Flag.optional("model", {
      argument: "NAME",
      about: "Call this model at --url for every request. [default: the model of the request]",
      parse: Flag.text
    }),
    targets: Flag.many("target", {
      holdsSecret: "url",
      fromObject: Gateway.targetFromObject,
      argument: "NAME=URL#MODEL",
      about:
        "Call MODEL at URL, as in `sluice run`. Repeat in order of preference. Without #MODEL, call the model of " +
        "the request. The key is read from SLUICE_KEY_ plus NAME in capitals. [default: one target, of --url]",
      parse: Gateway.target
    }),
    routes: Flag.many("models", {
      fromObject: Gateway.routesFromObject,
      argument: "ASKED=NAME,NAME",
      about: "Send requests for the model ASKED to these targets, in order. ASKED can end in *, for all models with " +
        "this prefix. Can be repeated. Other models are refused. sluice.json can give targets weights: " +
        "[{\"main\": 1, \"azure\": 3}, \"backup\"]. [default: every model to all targets]",
      parse: Gateway.routes
    }),
    keyEnv,
    keyFile,
    allowInsecureKey,
    headers,
    concurrency: Flag.many("concurrency", {
      argument: "N",
      about:
        "Run at most N calls at once per target: 64, or NAME=64 for one. More go to the next target, or wait. [default: no " +
        "limit]",
      parse: Flag.limit
    }),
    rpm,
    tpm,
    itpm,
    otpm,
    price,
    priceFile,
    maxAttempts: Flag.withDefault("max-attempts", 3, {
      argument: "N",
      about: "Make at most N attempts per request, over all targets. A client waits meanwhile. [default: 3]",
      parse: Flag.integer(1, 100)
    }),
    answer: Flag.withDefault<typeof answers[number]>("answer", "live", {
      argument: "WHEN",
      choices: answers,
      about:
        "Send a stream live, from its first output, or once it is whole. If it is held until then, a failure in its " +
        "middle is retried too, and no client gets half of it. Set whole if your clients show no text early. [default: live]",
      parse: Flag.oneOf(answers)
    }),
    timeoutMillis: Flag.withDefault("timeout", 600_000, {
      argument: "TIME",
      about: "Limit an attempt, to the end of its answer. As in the official clients. [default: 10m]",
      parse: Flag.duration(1)
    }),
    firstTokenTimeoutMillis: Flag.withDefault("first-token-timeout", 120_000, {
      argument: "TIME",
      about: "Limit the wait for the first output of a stream. Some models think for that long. [default: 2m]",
      parse: Flag.duration(1)
    }),
    idleTimeoutMillis: Flag.withDefault("idle-timeout", 60_000, {
      argument: "TIME",
      about: "Limit the silence within a stream that has begun. [default: 60s]",
      parse: Flag.duration(1)
    }),
    deadlineMillis: Flag.optional("deadline", {
      argument: "TIME",
      about: "Limit a request, with all attempts and waits. Only you know how long your clients wait. [default: none]",
      parse: Flag.duration(1)
    }),
    dedupe: Flag.toggle("dedupe", {
      about:
        "Let identical requests with the same key that run at the same time share one call and its answer, also at " +
        "a temperature above 0."
    }),
    heartbeatMillis: Flag.optional("heartbeat", {
      argument: "TIME",
      about:
        "Send a comment every TIME to a client that waits for the first output of a stream. Set 30s behind a proxy that " +
        "closes silent connections. From then on the status is 200, and an error is an event. [default: never]",
      parse: Flag.duration(1_000)
    }),
    drainDelayMillis: Flag.withDefault("drain-delay", 0, {
      argument: "TIME",
      about:
        "After SIGTERM, accept requests for TIME while /ready answers 503, so that a load balancer stops sending " +
        "them. Set 5s behind one. [default: 0s]",
      parse: Flag.duration(0)
    }),
    drainTimeoutMillis: Flag.withDefault("drain-timeout", 30_000, {
      argument: "TIME",
      about:
        "After that, let running requests finish within TIME, and end the rest with an error event. [default: 30s]",
      parse: Flag.duration(0)
    }),
    logFormat: Flag.optional<typeof logFormats[number]>("log-format", {
      argument: "FORMAT",
      choices: logFormats,
      about:
        "Write logs on standard error as text or json, without prompts and answers. [default: text on a terminal, " +
        "else json]",
      parse: Flag.oneOf(logFormats)
    })
  },
  notes: [
    {
      title: "Paths",
      lines: [
        "/v1/...           the APIs of the providers",
        "/health, /ready   200, and 503 while it stops",
        "/metrics          for Prometheus, with the token or an admin key",
        "/sluice/calls/ID  the attempts of a call; ID is in the header",
        "                  x-sluice-call of its answer"
      ]
    },
    {
      title: "Exit code",
      lines: [
        "0    stopped by Ctrl-C or SIGTERM; press or send twice to stop now",
        "2    unusable flags, settings or keys, or the port is in use"
      ]
    }
  ]
})

export type ServeFlags = Values<typeof serve.flags>

export const keys = defineCommand({
  name: "keys",
  summary: "Add, list and remove the keys of a gateway's clients.",
  usage: "keys add NAME [flags] | keys list | keys remove NAME",
  about: [
    "Add a key for a client of `sluice serve`, and print it once. Only its hash is kept. A running gateway " +
    "applies changes within a second."
  ],
  inputs: ["ACTION", "[NAME]"],
  actions: ["add", "list", "remove"],
  flags: {
    rpm: Flag.optional("rpm", {
      argument: "N",
      about: "Allow N requests a minute: 60, 2k. [default: no limit]",
      parse: Flag.count
    }),
    tpm: Flag.optional("tpm", {
      argument: "N",
      about: "Allow N tokens a minute, input and output together: 200k. [default: no limit]",
      parse: Flag.count
    }),
    maxCostPerDay: Flag.optional("max-cost-per-day", {
      argument: "USD",
      about: "Allow USD in 24 hours, by the prices of the targets. [default: no limit]",
      parse: Flag.dollars
    }),
    models: Flag.withDefault("models", [], {
      argument: "NAMES",
      about: "Allow these models only, separated by commas. A name can end in *, for all models with this prefix: " +
        "gpt-5*,claude-*. [default: all]",
      parse: Gateway.modelNames
    }),
    isAdmin: Flag.toggle("admin", {
      about: "Allow /metrics and all below /sluice/ too, which show the calls of all clients."
    }),
    keys: keysFile
  },
  notes: [
    {
      title: "Exit code",
      lines: ["0    done", "2    no such key, a name that is taken, or unusable keys"]
    }
  ]
})

export type KeysFlags = Values<typeof keys.flags>

const fleetStore = Flag.optional("store", {
  holdsSecret: "database",
  argument: "URL",
  about: "Use the store of the fleet at URL, as `sluice serve` names it: redis://host, postgres://host/name, or " +
    "sqlite:FILE. Write its password as ${NAME} of a variable. [default: SLUICE_STORE, else that of sluice.json]",
  parse: Flag.storeUrl
})

const fleetReason = Flag.optional("reason", {
  perRun: true,
  argument: "TEXT",
  about: "Say why, in 4 to 200 characters. Everyone who looks at the fleet reads it. Required for a change.",
  parse: Flag.text
})

/** Thirty days. */
const longestHoldMillis = 30 * 86_400_000
const holdMillis = Flag.duration(1_000, longestHoldMillis)

const fleetFor = Flag.optional("for", {
  perRun: true,
  argument: "TIME",
  about: "End the change after TIME: 15m, 4h, 2d, or none for no end. [default: 1h]",
  parse: (text): Flag.Read<number | null> => text === "none" ? { ok: true, value: null } : holdMillis(text)
})

export const circuits = defineCommand({
  name: "circuits",
  summary: "Show the circuits of a fleet, and change them by hand.",
  usage: "circuits ACTION [NAME] [flags]",
  about: [
    "`list` shows the circuits of all gateways and workers that share a store, and what was done by hand. `watch` " +
    "keeps showing them until Ctrl-C; piped, it prints a line for each change.",
    "`open` stops calls to the target NAME, `close` sends calls to it whatever happens, and `reset` lets its circuit " +
    "decide again. All processes follow within five seconds, and the live page of each gateway shows who did it and why."
  ],
  inputs: ["ACTION", "[NAME]"],
  flags: {
    store: fleetStore,
    reason: fleetReason,
    forMillis: fleetFor,
    unused: Flag.toggle("unused", {
      perRun: true,
      about: "Accept the whole name of a circuit that no call has used lately, such as gateway/main."
    }),
    json: Flag.toggle("json", { perRun: true, about: "Print a line of JSON for each circuit." })
  },
  notes: [
    {
      title: "Exit code",
      lines: [
        "0    done",
        "1    changed, but the store did not keep who did it",
        "2    no such circuit, or the store cannot be used"
      ]
    }
  ]
})

export type CircuitsFlags = Values<typeof circuits.flags>

/** An unused quota is forgotten after two days, with what was set by hand. */
const longestLimitMillis = 2 * 86_400_000

export const quotas = defineCommand({
  name: "quotas",
  summary: "Show what a fleet uses of its limits, and lower one.",
  usage: "quotas ACTION [NAME] [LIMIT] [flags]",
  about: [
    "`list` shows what all gateways and workers that share a store have used of each limit, and what was lowered.",
    "`set NAME LIMIT` lowers a limit of all processes for a while, such as requests/min=100, tokens/min=50k, " +
    "money/day=5 (dollars) or atOnce=8. none ends it: requests/min=none. Set it again to change it up or down.",
    "A limit above the one that a process has changes nothing: that one is in its settings, which the store does not have. " +
    "Raise it there and reload."
  ],
  inputs: ["ACTION", "[NAME]", "[LIMIT]"],
  flags: {
    store: fleetStore,
    reason: fleetReason,
    forMillis: Flag.optional("for", {
      perRun: true,
      argument: "TIME",
      about: "End the change after TIME, at most 2d: 15m, 4h. [default: 1h]",
      parse: Flag.duration(1_000, longestLimitMillis)
    }),
    json: Flag.toggle("json", { perRun: true, about: "Print a line of JSON for each limit." })
  },
  notes: [
    {
      title: "Exit code",
      lines: [
        "0    done",
        "1    changed, but the store did not keep who did it",
        "2    no such quota or limit, or the store cannot be used"
      ]
    }
  ]
})

export type QuotasFlags = Values<typeof quotas.flags>

const resultFormats = ["sluice", "openai"] as const
const resultOrders = ["completion", "input"] as const

/** The flags of `sluice serve` that `sluice batch work` takes too. Some need other words there. */
export const batchBorrows = {
  config: {
    ...serve.flags.config,
    about:
      "Read settings from the key `serve` of FILE, and from its key `batch`, which overrides it. Variables such as " +
      "SLUICE_CONCURRENCY override both, and flags override all. [default: sluice.json in the working directory, if " +
      "there]"
  },
  url: serve.flags.url,
  targets: serve.flags.targets,
  routes: serve.flags.routes,
  keyEnv: serve.flags.keyEnv,
  keyFile: serve.flags.keyFile,
  allowInsecureKey: serve.flags.allowInsecureKey,
  headers: serve.flags.headers,
  store: {
    ...serve.flags.store,
    about: "Share circuits and limits with the other workers and gateways of the database at URL: redis://host, or " +
      "postgres://host/name after `sluice migrate`. Write its password as ${NAME} of a variable, or set SLUICE_STORE. " +
      "[default: each worker has its own]"
  },
  processes: {
    ...serve.flags.processes,
    about: "While --store is down, allow 1/N of each limit, for N workers and gateways. [default: 1]"
  },
  concurrency: serve.flags.concurrency,
  rpm: serve.flags.rpm,
  tpm: serve.flags.tpm,
  itpm: serve.flags.itpm,
  otpm: serve.flags.otpm,
  maxAttempts: {
    ...serve.flags.maxAttempts,
    about: "Make at most N attempts per request, over all targets, before it is put back for later. [default: 3]"
  },
  timeoutMillis: serve.flags.timeoutMillis,
  drainTimeoutMillis: {
    ...serve.flags.drainTimeoutMillis,
    about:
      "After SIGTERM or Ctrl-C, take no further request, and let calls finish within TIME. The rest is sent again " +
      "by another worker. [default: 30s]"
  },
  model: {
    ...serve.flags.model,
    about: "submit: use this model for lines that name none. work: call this model at --url for every request. " +
      "[default: that of the line or target]"
  },
  price: serve.flags.price,
  priceFile: serve.flags.priceFile
}

export const batchActions = ["submit", "work", "status", "results", "cancel", "retry", "remove"] as const

export const batch = defineCommand({
  name: "batch",
  summary: "Run durable batches, on one machine or many.",
  usage: "batch ACTION [ID | FILE...] [flags]",
  about: [
    "`submit FILE...` stores the prompts as a batch and prints its id. `work` sends the requests of all batches to a model, in as " +
    "many processes as you start. Each request gets one result, even if processes die.",
    "`status [ID]` and `results ID` can be called at any time. `cancel ID` stops a batch, `retry ID` sends again what failed, and " +
    "`remove ID` deletes an ended batch with its results.",
    "Repeat an interrupted `submit`: the same files and flags are the same batch.",
    "`sluice batch submit --help` prints only the flags of `submit`."
  ],
  inputs: ["ACTION", "[FILE...]"],
  actions: batchActions,
  groups: {
    "All actions": ["batches", "config"],
    "submit": [
      "input-format",
      "prompt-template",
      "limit",
      "system",
      "model",
      "temperature",
      "max-tokens",
      "name",
      "priority",
      "weight",
      "expires",
      "max-cost",
      "price"
    ],
    "work": [
      "url",
      "target",
      "model",
      "models",
      "key-env",
      "key-file",
      "allow-insecure-key",
      "header",
      "store",
      "processes",
      "concurrency",
      "rpm",
      "tpm",
      "itpm",
      "otpm",
      "max-attempts",
      "timeout",
      "drain-timeout",
      "price",
      "price-file"
    ],
    "status": ["watch", "json"],
    "results": ["output", "force", "order", "follow", "format"],
    "cancel": ["interrupt"],
    "retry": ["unasked", "max-cost"]
  },
  flags: {
    batches: Flag.withDefault("batches", "sqlite:sluice-batches.sqlite", {
      holdsSecret: "database",
      argument: "URL",
      about:
        "Keep batches in the database at URL: sqlite:FILE for one machine, postgres://host/database for many, after " +
        "`sluice migrate`. Write its password as ${NAME} of a variable, or set SLUICE_BATCHES. [default: " +
        "sqlite:sluice-batches.sqlite]",
      parse: Flag.batchesUrl
    }),
    ...batchBorrows,
    model: {
      ...batchBorrows.model,
      about:
        "submit: ask this model, for lines that name none. Required if there are any. work: call this model at --url " +
        "for every request, as a target with #MODEL does. [default: that of the line]"
    },
    price: {
      ...batchBorrows.price,
      about:
        "Count cost at these dollars for a million input and output tokens. work: for what answers cost. submit: for " +
        "the most that a request costs. [default: the prices of --price-file]"
    },
    maxAttempts: {
      ...batchBorrows.maxAttempts,
      about: "Make at most N attempts per request, over all targets, before it is put back. [default: 3]"
    },
    drainTimeoutMillis: {
      ...batchBorrows.drainTimeoutMillis,
      about: "After Ctrl-C or SIGTERM, let running calls finish within TIME. Other workers ask the rest. [default: 30s]"
    },
    inputFormat: run.flags.inputFormat,
    promptTemplate: run.flags.promptTemplate,
    limit: run.flags.limit,
    system: run.flags.system,
    temperature: run.flags.temperature,
    maxTokens: run.flags.maxTokens,
    name: Flag.optional("name", {
      perRun: true,
      argument: "NAME",
      about: "Show NAME in the status. [default: the name of FILE]",
      parse: Flag.text
    }),
    priority: Flag.withDefault("priority", 0, {
      argument: "N",
      about: "Send batches of a higher priority first. Equal ones share the workers. [default: 0]",
      parse: Flag.integer(-1_000, 1_000)
    }),
    weight: Flag.withDefault("weight", 1, {
      argument: "N",
      about: "Give the batch N times the workers of a batch of weight 1 and the same priority. [default: 1]",
      parse: Flag.integer(1, 1_000)
    }),
    expiresMillis: Flag.optional("expires", {
      argument: "TIME",
      about: "Send no request later than TIME from now. [default: never]",
      parse: Flag.duration(1_000)
    }),
    maxCost: Flag.optional("max-cost", {
      argument: "USD",
      about:
        "Stop the batch before it costs more than USD. The workers need the prices of its models. Exact with --price and " +
        "--max-tokens, which bound one request. retry: a new budget, which includes what is spent. [default: no limit; " +
        "retry: that of the batch]",
      parse: Flag.dollars
    }),
    watch: Flag.toggle("watch", {
      perRun: true,
      about: "Print again until all batches have ended: every second on a terminal or with --json, else every 10s."
    }),
    json: Flag.toggle("json", { about: "Print a line of JSON for each batch." }),
    output: Flag.optional("output", {
      short: "o",
      perRun: true,
      path: "file",
      argument: "FILE",
      about: "Write to FILE. Fail if FILE exists. [default: standard output]",
      parse: Flag.text
    }),
    force: Flag.toggle("force", { perRun: true, about: "Replace FILE." }),
    order: Flag.withDefault<typeof resultOrders[number]>("order", "completion", {
      argument: "ORDER",
      choices: resultOrders,
      about:
        "Write results as they were completed, or in the order of the input, up to the first request without one. " +
        "[default: completion]",
      parse: Flag.oneOf(resultOrders)
    }),
    follow: Flag.toggle("follow", { perRun: true, about: "Wait for further results until the batch has ended." }),
    format: Flag.withDefault<typeof resultFormats[number]>("format", "sluice", {
      argument: "FORMAT",
      choices: resultFormats,
      about: "Write lines as `sluice run` does, or those of OpenAI's Batch API. [default: sluice]",
      parse: Flag.oneOf(resultFormats)
    }),
    interrupt: Flag.toggle("interrupt", {
      perRun: true,
      about: "Interrupt the calls that run, too. Their answers may be paid. Otherwise they are finished and kept."
    }),
    unasked: Flag.toggle("unasked", {
      perRun: true,
      about: "Send again what was left by a cancel, an expiry or a budget, instead of what failed."
    })
  },
  notes: [{
    title: "Exit code",
    lines: [
      "0    done",
      "1    status or results: requests of the batch have failed",
      "2    no such batch, or unusable flags, files or database",
      "141  the reader of the output closed the pipe"
    ]
  }]
})

export type BatchFlags = Values<typeof batch.flags>

export const migrate = defineCommand({
  name: "migrate",
  summary: "Make the tables of stores and batches in a database.",
  usage: "migrate URL",
  about: [
    "Make or update the tables of circuits, quotas, changes by hand, batches and keys in the database at URL: postgres://host/database, or " +
    "sqlite:FILE. Write its password as ${NAME} of a variable. Needs a role that may create tables; the other " +
    "commands do not.",
    "Run it before a new version of sluice starts. The old version goes on meanwhile."
  ],
  inputs: ["URL"],
  flags: {},
  notes: [{ title: "Exit code", lines: ["0    done", "2    the database cannot be used, and nothing was changed"] }]
})

/** Every command, in the order of the help text. */
export const commands = [
  run,
  retry,
  status,
  exportResults,
  explain,
  serve,
  keys,
  circuits,
  quotas,
  batch,
  migrate,
  config,
  provider,
  completions
] as const
