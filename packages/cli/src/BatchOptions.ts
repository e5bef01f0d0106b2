import type { Values } from "./Flag.ts"
import * as Flag from "./Flag.ts"
import { defineCommand } from "./Command.ts"
import { serve } from "./ServeOptions.ts"
import { run } from "./RunOptions.ts"

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
