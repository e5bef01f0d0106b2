import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { execFile } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parse, parseAllDocuments } from "yaml"
import * as Process from "../packages/cli/test/support/command.ts"
import { lines, write } from "../packages/cli/test/support/files.ts"
import type { Server } from "../packages/sql/test/support/server.ts"
import * as Postgres from "../packages/sql/test/support/server.ts"

// The command lines, variables and probes of Compose and Kubernetes, as processes of this machine: there is no daemon to run containers.

const folder = fileURLToPath(new URL("../examples/deploy/", import.meta.url))
const read = (file: string): string => readFileSync(join(folder, file), "utf8")

/** A container, as far as a process can be like it. */
interface Part {
  readonly args: ReadonlyArray<string>
  /** The names of its variables. */
  readonly variables: ReadonlyArray<string>
  /** How long it may take to stop, in seconds. */
  readonly stopsWithin: number
  /** The command of its health check, on port 4000. */
  readonly check?: ReadonlyArray<string>
  /** The path of its readiness probe. */
  readonly ready?: string
}

const ofCompose = (name: string): Part => {
  const { services } = parse(read("compose/compose.yaml"), { merge: true }) as {
    readonly services: {
      readonly [name: string]: {
        readonly command: ReadonlyArray<string>
        readonly environment: { readonly [name: string]: string }
        readonly stop_grace_period?: string
        readonly healthcheck?: { readonly test: ReadonlyArray<string> }
      }
    }
  }
  const service = services[name]
  if (service === undefined) return assert.fail(`no service ${name}`)
  const [, ...check] = service.healthcheck?.test ?? []
  return {
    // Compose reads `$$` as a dollar sign.
    args: service.command.map((argument) => argument.replaceAll("$$", "$")),
    variables: Object.keys(service.environment),
    stopsWithin: Number.parseInt(service.stop_grace_period ?? "10"),
    ...(check.length === 0 ? {} : { check })
  }
}

const ofKubernetes = (file: string): Part => {
  const first = (file: string): unknown => parseAllDocuments(read(`kubernetes/${file}.yaml`))[0]?.toJS()
  const { stringData } = first("secret.example") as { readonly stringData: { readonly [name: string]: string } }
  const { spec } = first(file) as {
    readonly spec: {
      readonly template: {
        readonly spec: {
          readonly terminationGracePeriodSeconds?: number
          readonly containers: readonly [{
            readonly args: ReadonlyArray<string>
            readonly readinessProbe?: { readonly httpGet: { readonly path: string } }
          }]
        }
      }
    }
  }
  const { containers: [{ args, readinessProbe }], terminationGracePeriodSeconds = 30 } = spec.template.spec
  return {
    args,
    variables: Object.keys(stringData),
    stopsWithin: terminationGracePeriodSeconds,
    ...(readinessProbe === undefined ? {} : { ready: readinessProbe.httpGet.path })
  }
}

const deployments: ReadonlyArray<readonly [name: string, (part: "migrate" | "gateway" | "worker") => Part]> = [
  ["Compose", (part) => ofCompose(part === "gateway" ? "gateway-1" : part)],
  ["Kubernetes", ofKubernetes]
]

if (!Postgres.isInstalled()) {
  process.stderr.write("processes of Compose and Kubernetes: skipped, no Postgres is installed\n")
}

describe.skipIf(!Postgres.isInstalled())("the processes of Compose and Kubernetes", { timeout: 240_000 }, () => {
  let server: Server | undefined
  beforeAll(async () => {
    server = await Postgres.startServer()
  })
  afterAll(() => server?.stop())

  it.live.each(deployments)(
    "%s: two gateways become ready, a batch is answered by a gateway and a worker, and all stop within their time",
    ([name, partOf]) =>
      Effect.gen(function*() {
        const directory = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "sluice-processes-"))),
          (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
        )
        const provider = yield* LoopbackProvider.make({ turns: () => Turn.answer("Yes", { firstTokenMillis: 300 }) })
        const key = provider.apiKey === undefined ? "" : Redacted.value(provider.apiKey)
        const target = [`main=${provider.url}#rules`, `backup=${provider.url}#rules`]
        writeFileSync(join(directory, "sluice.json"), JSON.stringify({ serve: { target, concurrency: "4" } }))
        /** The variables of a part, with values of this place. */
        const valuesOf = ({ variables }: Part) =>
          Object.fromEntries(variables.map((name) => [name, name.startsWith("SLUICE_KEY_") ? key : server?.url ?? ""]))
        const sluice = (args: ReadonlyArray<string>) =>
          Effect.map(
            Effect.promise(() => Process.run(args, valuesOf(partOf("migrate")), directory)),
            ({ code, stderr, stdout }) => {
              assert.strictEqual(code, 0, stderr)
              return stdout.trim()
            }
          )
        const start = (part: Part, port: number) =>
          Effect.acquireRelease(
            Effect.sync(() => Process.start(part.args, { ...valuesOf(part), SLUICE_PORT: String(port) }, directory)),
            ({ process }) => Effect.sync(() => process.kill("SIGKILL"))
          )

        yield* sluice(partOf("migrate").args)
        const token = yield* sluice(["keys", "add", name])
        const gateway = partOf("gateway")
        const ports = [0, 1].map((one) => 25_000 + process.pid % 5_000 + one * 5_000)
        const gateways = yield* Effect.forEach(ports, (port) => start(gateway, port))
        const isReady = (port: number) =>
          Effect.promise(async () => {
            const { check, ready } = gateway
            if (check === undefined) {
              return fetch(`http://127.0.0.1:${port}${ready}`).then(({ ok }) => ok, () => false)
            }
            const [program = "", ...args] = check.map((part) => part.replace(":4000/", `:${port}/`))
            return new Promise<boolean>((resolve) => execFile(program, args, (error) => resolve(error === null)))
          })
        for (const port of ports) {
          for (let tries = 0; !(yield* isReady(port)); tries++) {
            if (tries === 150) assert.fail("a gateway is not ready")
            yield* Effect.sleep("200 millis")
          }
        }
        const worker = partOf("worker")
        const id = yield* sluice([
          "batch",
          "submit",
          write(join(directory, "prompts.jsonl"), lines(60)),
          "--model",
          "m"
        ])
        const started = yield* start(worker, 0)
        const results = (yield* sluice(["batch", "results", id, "--follow"])).split("\n").map((line) =>
          JSON.parse(line)
        )
        assert.strictEqual(new Set(results.map(({ id }) => id)).size, 60)
        assert.deepStrictEqual(new Set(results.map(({ status }) => status)), new Set(["ok"]))

        // A call at the second gateway is answered while it stops.
        const call = fetch(`http://127.0.0.1:${ports[1]}/v1/chat/completions`, {
          method: "POST",
          headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
          body: JSON.stringify({ model: "rules", messages: [{ role: "user", content: "Is it up?" }] })
        })
        yield* Effect.sleep("100 millis")
        const stopping = [...gateways.map((command) => ({ command, part: gateway })), {
          command: started,
          part: worker
        }]
        for (const { command, part } of stopping) {
          const before = performance.now()
          command.process.kill("SIGTERM")
          const { code, stderr } = yield* Effect.promise(() => command.ended)
          assert.strictEqual(code, 0, stderr)
          assert.isBelow(performance.now() - before, part.stopsWithin * 1_000)
        }
        assert.strictEqual((yield* Effect.promise(() => call)).status, 200)
      })
  )
})
