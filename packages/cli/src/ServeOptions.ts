import type { Values } from "./Flag.ts"
import * as Flag from "./Flag.ts"
import * as Gateway from "./Gateway.ts"
import { defineCommand } from "./Command.ts"
import { run } from "./RunOptions.ts"

const logFormats = ["text", "json"] as const

const answers = ["live", "whole"] as const

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
    // Twenty of the largest files, which have 1 GiB: a mistake in a loop fills no disk unnoticed.
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
