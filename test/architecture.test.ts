/** The direction of imports: no cycle of values, no import that points up, and no internals of another package. */
import { assert, describe, it } from "@effect/vitest"
import { globSync, readFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))

/** Packages, from the bottom. A package imports those on lower floors. */
const packages = [["core", "local-model"], ["ai", "redis", "sql", "testing"], ["batch"], ["cli"], ["bench"]]

/**
 * The public modules and rooms of a package, from the bottom. A room is a folder in `internal` and ends with a slash. Each
 * imports itself and what is on lower floors. A room also imports types of its own public modules, which are above it. The command
 * has no public modules: its rooms are the folders of `src`, above the files that are in none.
 */
const floors: Readonly<Record<string, ReadonlyArray<ReadonlyArray<string>>>> = {
  core: [
    ["BoundedJson", "InvalidOptions", "Refusal", "Timer"],
    ["OptionsReader", "Outcome"],
    ["kit/"],
    ["Hub", "deadline/", "hashing/"],
    ["Deadline", "KeyHash"],
    ["circuit/", "dedupe/", "permits/", "retry/"],
    ["admission/", "quota/"],
    ["CircuitBreakerStore", "FlightStore", "QuotaStore", "RetryPolicy"],
    ["Backpressure", "CircuitBreaker", "Deduplicator", "Quota", "StoreCodec"],
    ["Admission", "EffectCircuitBreaker", "pipeline/", "policy/"],
    ["Pipeline", "Sluice"],
    ["index"]
  ],
  ai: [
    ["kit/"],
    ["IdempotencyKey", "RetryAfter", "TextModel", "rejection/", "stream/", "testing/Turn"],
    ["RateLimits", "telemetry/", "testing/Script", "wire/"],
    ["AiOutcome", "AnthropicMessages", "CallLog", "GenAiTelemetry", "HttpTransport", "OpenAiCompatible", "loopback/"],
    ["AiRejection", "testing/Journal"],
    ["resilient/"],
    ["front/"],
    ["ResilientModel", "testing/LoopbackProvider", "testing/ScriptedModel"],
    ["Front", "testing/ScriptedEmbedding"],
    ["index", "testing/index"]
  ],
  sql: [
    ["internal/describeError", "internal/sqliteClient"],
    ["Migrations", "SqlDatabase"],
    ["internal/session"],
    ["circuit/", "flight/", "quota/"],
    ["internal/tables"],
    ["SqlCircuitBreakerStore", "SqlFlightStore", "SqlQuotaStore"],
    ["SqlStores"],
    ["index"]
  ],
  batch: [
    ["internal/reason"],
    ["Batch", "internal/identity", "internal/persist", "internal/plan", "internal/text", "internal/ticket"],
    ["Asker", "internal/queue", "internal/store", "internal/writer", "tables/"],
    ["internal/engine"],
    ["internal/feeder", "internal/files", "worker/"],
    ["internal/batches"],
    ["Batches"],
    ["internal/withTables"],
    ["Feeder", "Files", "Worker"],
    ["BatchMachine"],
    ["index"]
  ],
  cli: [
    ["src/"],
    ["openai/", "run/"],
    ["config/", "explain/", "export/", "fleet/", "provider/", "report/"],
    ["command/", "serve/"],
    ["batch/"]
  ]
}

/** The public modules of a room, of which it imports types. */
const publicModules: Readonly<Record<string, ReadonlyArray<string>>> = {
  "core admission/": ["Admission", "CircuitBreaker", "CircuitBreakerStore"],
  "core circuit/": ["CircuitBreaker", "CircuitBreakerStore"],
  "core deadline/": ["Deadline"],
  "core dedupe/": ["Deduplicator", "FlightStore"],
  "core permits/": ["Backpressure"],
  "core quota/": ["Quota", "QuotaStore"],
  "core retry/": ["RetryPolicy"],
  "core pipeline/": ["Pipeline"],
  "core policy/": ["Sluice"],
  "ai front/": ["Front"],
  "ai loopback/": ["testing/Journal", "testing/LoopbackProvider", "testing/ScriptedModel"],
  "ai rejection/": ["AiRejection"],
  "ai resilient/": ["ResilientModel"],
  "ai wire/": ["AnthropicMessages", "OpenAiCompatible"],
  "batch internal/batches": ["Batches"],
  "batch internal/files": ["Files"],
  "batch tables/": ["Files"]
}

interface Import {
  readonly from: string
  readonly to: string
  readonly isType: boolean
}

const statement = /^(?:import|export)\s+(type\s+)?([^"';]*?)\s*from\s*"([^"]+)"/gm

const importsOf = (from: string): ReadonlyArray<Import> => {
  const source = readFileSync(join(root, from), "utf8").replaceAll(/\/\*[\s\S]*?\*\//g, "")
  return [...source.matchAll(statement)].flatMap(([, type, names = "", specifier = ""]) => {
    const to = pathOf(from, specifier)
    const isType = type !== undefined || /^\{\s*(?:type\s+[^,}]+,?\s*)+\}$/.test(names)
    return to === undefined ? [] : [{ from, to, isType }]
  })
}

const pathOf = (from: string, specifier: string): string | undefined => {
  if (specifier.startsWith(".")) return normalize(join(dirname(from), specifier))
  const own = /^@sluice\/([\w-]+)\/?(.*)$/.exec(specifier)
  return own === null ? undefined : `packages/${own[1]}/src/${own[2] || "index"}.ts`
}

const files = globSync("packages/*/src/**/*.ts", { cwd: root })
const imports = files.flatMap(importsOf)

const packageOf = (file: string): string => /^packages\/([\w-]+)\//.exec(file)?.[1] ?? ""

/** The public module or room that a file belongs to. */
const unitOf = (file: string): string => {
  if (packageOf(file) === "cli") return /\/src\/(\w+\/)/.exec(file)?.[1] ?? "src/"
  const [, room, publicModule = ""] = /\/src\/(?:internal\/(\w+\/)|(.*)\.ts$)/.exec(file) ?? []
  return room ?? publicModule
}

const floorOf = (all: ReadonlyArray<ReadonlyArray<string>>, unit: string): number =>
  all.findIndex((floor) => floor.includes(unit))

const show = ({ from, to }: Import): string => `${from} imports ${to}`

describe("imports", () => {
  it("imports of values form no cycle", () => {
    const next = new Map<string, Array<string>>(files.map((file) => [file, []]))
    for (const { from, isType, to } of imports) if (!isType) next.get(from)?.push(to)
    const path: Array<string> = []
    const done = new Set<string>()
    const visit = (file: string): void => {
      const start = path.indexOf(file)
      if (start >= 0) assert.fail(`a cycle: ${[...path.slice(start), file].join(" -> ")}`)
      if (done.has(file)) return
      path.push(file)
      next.get(file)?.forEach(visit)
      path.pop()
      done.add(file)
    }
    files.forEach(visit)
    assert.strictEqual(done.size, files.length)
  })

  it("imports of another package reach only its public modules, and point down", () => {
    const wrong = imports.filter(({ from, to }) => {
      if (packageOf(from) === packageOf(to)) return false
      // The benchmarks measure internal parts too.
      const isHidden = to.includes("/internal/") && packageOf(from) !== "bench"
      return isHidden || floorOf(packages, packageOf(from)) <= floorOf(packages, packageOf(to))
    })
    assert.deepStrictEqual(wrong.map(show), [])
  })

  for (const [name, all] of Object.entries(floors)) {
    it(`imports within ${name} point down`, () => {
      const inside = imports.filter(({ from, to }) => packageOf(from) === name && packageOf(to) === name)
      const wrong = inside.filter(({ from, isType, to }) => {
        const [unit, other] = [unitOf(from), unitOf(to)]
        if (unit === other) return false
        if (isType && publicModules[`${name} ${unit}`]?.includes(other) === true) return false
        return floorOf(all, other) < 0 || floorOf(all, unit) <= floorOf(all, other)
      })
      assert.deepStrictEqual([...new Set(wrong.map(show))], [])
    })

    it(`every public module and room of ${name} has its floor`, () => {
      const units = new Set(files.filter((file) => packageOf(file) === name).map(unitOf))
      assert.deepStrictEqual([...units].toSorted(), all.flat().toSorted())
    })
  }

  it("the rooms are those that docs/architecture.md lists", () => {
    const listed = readFileSync(join(root, "docs/architecture.md"), "utf8").matchAll(/^\| `(\w+\/)`/gm)
    const rooms = Object.values(floors).flatMap((all) => all.flat().filter((unit) => unit.endsWith("/")))
    assert.deepStrictEqual([...listed].map(([, room = ""]) => room).toSorted(), rooms.toSorted())
  })
})
