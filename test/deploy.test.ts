import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parse, parseAllDocuments } from "yaml"
import * as Arguments from "../packages/cli/src/Arguments.ts"
import * as Options from "../packages/cli/src/options.ts"

const folder = fileURLToPath(new URL("../examples/deploy/", import.meta.url))

const read = (file: string): string => readFileSync(join(folder, file), "utf8")

/** The shapes of the files, as far as the tests read them. A wrong one fails where it is read. */
interface Container {
  readonly args: ReadonlyArray<string>
  readonly envFrom: ReadonlyArray<{ readonly secretRef: { readonly name: string } }>
  readonly ports?: ReadonlyArray<{ readonly name: string; readonly containerPort: number }>
  readonly volumeMounts?: ReadonlyArray<{ readonly name: string }>
}

interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string }
  readonly stringData?: { readonly [name: string]: string }
  readonly spec: {
    readonly replicas?: number
    readonly selector?: { readonly matchLabels?: object }
    readonly template?: {
      readonly metadata: { readonly labels: object }
      readonly spec: {
        readonly terminationGracePeriodSeconds?: number
        readonly containers: readonly [Container]
        readonly volumes?: ReadonlyArray<{ readonly name: string }>
      }
    }
  }
}

interface Service {
  readonly command?: ReadonlyArray<string>
  readonly environment?: { readonly [name: string]: string }
  readonly stop_grace_period?: string
  readonly depends_on?: { readonly [name: string]: { readonly condition: string } }
  readonly healthcheck?: object
}

const manifests = readdirSync(join(folder, "kubernetes")).toSorted().flatMap((file) =>
  parseAllDocuments(read(`kubernetes/${file}`)).map((document) => {
    assert.deepStrictEqual(document.errors, [], file)
    return document.toJS() as Manifest
  })
)

const compose = parse(read("compose/compose.yaml"), { merge: true }) as {
  readonly services: { readonly [name: string]: Service }
}

const units = readdirSync(join(folder, "systemd")).filter((file) => file.endsWith(".service")).toSorted()

interface Started {
  readonly where: string
  readonly args: ReadonlyArray<string>
  /** How long it may take to stop, in seconds. */
  readonly stopsWithin: number | undefined
}

const ofUnit = (file: string): Started => {
  const text = read(`systemd/${file}`)
  const [, command = ""] = /^ExecStart=\/usr\/local\/bin\/sluice (.*)$/m.exec(text) ?? []
  const [, seconds] = /^TimeoutStopSec=(\d+)$/m.exec(text) ?? []
  return {
    where: file,
    args: command.replaceAll("$$", "$").split(" "),
    stopsWithin: seconds === undefined ? undefined : Number(seconds)
  }
}

const ofManifests = manifests.flatMap(({ metadata, spec }): ReadonlyArray<Started> => {
  const { containers, terminationGracePeriodSeconds } = spec?.template?.spec ?? {}
  return containers === undefined
    ? []
    : [{ where: metadata.name, args: containers[0].args, stopsWithin: terminationGracePeriodSeconds }]
})

const ofServices = Object.entries(compose.services).flatMap(([where, { command, environment, stop_grace_period }]) =>
  environment?.["SLUICE_STORE"] === undefined
    ? []
    : [{
      where,
      args: (command ?? []).map((argument) => argument.replaceAll("$$", "$")),
      stopsWithin: stop_grace_period === undefined ? undefined : Number.parseInt(stop_grace_period)
    }]
)

const all: ReadonlyArray<Started> = [...units.map(ofUnit), ...ofManifests, ...ofServices]

const secondsOf = (values: { readonly [name: string]: unknown }, name: string) => Number(values[name] ?? 0) / 1_000

describe("the examples of a deployment", () => {
  it("each has a gateway, a worker and a migration", () => {
    assert.deepStrictEqual(all.map(({ args: [command], where }) => `${where}: ${command}`), [
      "sluice-gateway.service: serve",
      "sluice-migrate.service: migrate",
      "sluice-worker@.service: batch",
      "sluice-gateway: serve",
      "sluice-migrate: migrate",
      "sluice-worker: batch",
      "migrate: migrate",
      "gateway-1: serve",
      "gateway-2: serve",
      "worker: batch"
    ])
  })

  it.each(all)("$where: the command has known flags, and more time to stop than its drain takes", (started) => {
    const [name, ...args] = started.args
    const command = Options.commands.find((command) => command.name === name)
    if (command === undefined) return assert.fail(`no command ${name}`)
    const parsed = Arguments.parse(command, args)
    if (parsed._tag !== "Parsed") return assert.fail(JSON.stringify(parsed))
    if (name === "migrate") return assert.deepStrictEqual(parsed.inputs, ["${SLUICE_BATCHES}"])
    const values: { readonly [name: string]: unknown } = parsed.values
    const drain = secondsOf(values, "drainDelayMillis") + secondsOf(values, "drainTimeoutMillis")
    assert.strictEqual(started.stopsWithin, drain + 5)
  })

  it("processes that share limits know how many they are", () => {
    const processesOf = (some: ReadonlyArray<Started>) =>
      some.flatMap(({ args }) => args.includes("--processes") ? [args[args.indexOf("--processes") + 1]] : [])
    const replicas = manifests.reduce((sum, { spec }) => sum + (spec?.replicas ?? 0), 0)
    assert.deepStrictEqual([...new Set(processesOf(ofManifests))], [String(replicas)])
    assert.deepStrictEqual([...new Set(processesOf(ofServices))], [String(processesOf(ofServices).length)])
  })

  it("variables are those of flags, or keys of the targets in sluice.json", () => {
    const { serve } = JSON.parse(read("sluice.json")) as { readonly serve: { readonly target: ReadonlyArray<string> } }
    const flags = [...Object.values(Options.serve.flags), ...Object.values(Options.batch.flags)]
    const known = [
      ...flags.map(({ name }) => `SLUICE_${name.toUpperCase().replaceAll("-", "_")}`),
      ...serve.target.map((target) => `SLUICE_KEY_${target.split("=")[0]?.toUpperCase()}`)
    ]
    const given = [
      ...[...read("systemd/sluice.env").matchAll(/^(\w+)=/gm)].map(([, name]) => name),
      ...manifests.flatMap(({ stringData }) => Object.keys(stringData ?? {})),
      ...Object.keys(compose.services["worker"]?.environment ?? {})
    ]
    assert.strictEqual(given.length, 15)
    for (const name of given) assert.include(known, name)
  })

  it("manifests of Kubernetes name each other correctly", () => {
    const named = (kind: string) =>
      manifests.filter((manifest) => manifest.kind === kind).map(({ metadata }) => metadata.name)
    assert.deepStrictEqual(named("Deployment"), ["sluice-gateway", "sluice-worker"])
    for (const { apiVersion, kind, metadata, spec } of manifests) {
      assert.match(apiVersion, /^(?:(?:apps|batch|policy)\/)?v1$/)
      assert.match(metadata.name, /^[a-z0-9-]+$/)
      const { template } = spec ?? {}
      if (template === undefined) continue
      const [container] = template.spec.containers
      for (const { secretRef } of container.envFrom) assert.include(named("Secret"), secretRef.name)
      if (kind === "Deployment") assert.deepStrictEqual(spec.selector?.matchLabels, template.metadata.labels)
      assert.deepStrictEqual(
        (container.volumeMounts ?? []).map(({ name }) => name),
        (template.spec.volumes ?? []).map(({ name }) => name)
      )
    }
    const service = manifests.find(({ kind }) => kind === "Service")
    const gateway = manifests.find(({ metadata }) => metadata.name === "sluice-gateway")
    assert.deepStrictEqual<unknown>(service?.spec.selector, gateway?.spec.template?.metadata.labels)
    assert.deepStrictEqual(gateway?.spec.template?.spec.containers[0].ports, [{ name: "http", containerPort: 4_000 }])
  })

  it("services of Compose wait for services that exist and say when they are ready", () => {
    for (const [name, { depends_on = {} }] of Object.entries(compose.services)) {
      for (const [other, { condition }] of Object.entries(depends_on)) {
        assert.isDefined(compose.services[other], `${name} waits for ${other}`)
        if (condition === "service_healthy") assert.isDefined(compose.services[other]?.healthcheck, other)
      }
    }
  })

  it.skipIf(spawnSync("systemd-analyze", ["--version"]).status !== 0)("systemd finds no fault in the units", () => {
    const directory = mkdtempSync(join(tmpdir(), "sluice-units-"))
    try {
      const files = units.map((file) => {
        const path = join(directory, file)
        // The command is not installed here.
        writeFileSync(path, read(`systemd/${file}`).replaceAll("/usr/local/bin/sluice", "/bin/true"))
        return path
      })
      const { status, stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", ...files], { encoding: "utf8" })
      assert.deepStrictEqual([status, stderr.split("\n").filter((line) => line.includes("sluice-"))], [0, []])
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  it("the tags of the image are the version of the package, and no shell stands between it and a signal", () => {
    const { version } = JSON.parse(readFileSync(join(folder, "../../packages/cli/package.json"), "utf8"))
    assert.include(read("Dockerfile"), `ENTRYPOINT ["sluice"]`)
    for (
      const text of [
        read("compose/compose.yaml"),
        ...readdirSync(join(folder, "kubernetes")).map((file) => read(`kubernetes/${file}`))
      ]
    ) {
      for (const [, tag] of text.matchAll(/image: sluice:(.*)/g)) assert.strictEqual(tag, version)
    }
  })
})
