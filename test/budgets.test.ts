import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

/** The fields of a manifest, or of an entry of the lockfile, that determine what is installed. */
interface Entry {
  readonly resolved?: string
  readonly link?: boolean
  readonly hasInstallScript?: boolean
  readonly dependencies?: { readonly [name: string]: string }
  readonly optionalDependencies?: { readonly [name: string]: string }
  readonly peerDependencies?: { readonly [name: string]: string }
  readonly scripts?: { readonly [name: string]: string }
}

const read = (path: string): unknown => JSON.parse(readFileSync(new URL(`../${path}`, import.meta.url), "utf8"))
const manifestOf = (folder: string): Entry => read(`packages/${folder}/package.json`) as Entry
const locked = (read("package-lock.json") as { readonly packages: { readonly [path: string]: Entry } }).packages

/** Everything that is installed with a package, as paths of the lockfile. */
const installedWith = (path: string): ReadonlySet<string> => {
  const found = new Set<string>()
  const visit = (path: string): void => {
    const { dependencies, optionalDependencies, peerDependencies } = locked[path] ?? {}
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies })) {
      const next = resolve(path, name)
      if (next === undefined || found.has(next)) continue
      found.add(next)
      visit(next)
    }
  }
  visit(path)
  return found
}

/** The path at which Node finds a package that another one imports. */
const resolve = (from: string, name: string): string | undefined => {
  const folders = from.split("/")
  for (let depth = folders.length; depth >= 0; depth--) {
    const path = [...folders.slice(0, depth), "node_modules", name].join("/")
    const entry = locked[path]
    if (entry !== undefined) return entry.link === true ? entry.resolved : path
  }
  return undefined
}

/** The direct dependencies of one of our packages. */
const directDependencies = (
  folder: string
): { readonly needs: ReadonlyArray<string>; readonly peers: ReadonlyArray<string> } => {
  const { dependencies = {}, optionalDependencies = {}, peerDependencies = {} } = manifestOf(folder)
  return { needs: Object.keys({ ...dependencies, ...optionalDependencies }), peers: Object.keys(peerDependencies) }
}

const published = ["core", "ai", "redis", "sql", "batch", "local-model", "testing", "cli"]

describe("dependencies", () => {
  it("core has only the peer dependency effect", () => {
    assert.deepStrictEqual(directDependencies("core"), { needs: [], peers: ["effect"] })
    assert.deepStrictEqual([...installedWith("packages/core")], ["node_modules/effect"])
  })

  for (const folder of ["redis", "testing"]) {
    it(`${folder} depends only on core, with the peer dependency effect`, () => {
      assert.deepStrictEqual(directDependencies(folder), { needs: ["@sluice/core"], peers: ["effect"] })
    })
  }

  it("batch depends on core and sql, with the peer dependency effect", () => {
    assert.deepStrictEqual(directDependencies("batch"), { needs: ["@sluice/core", "@sluice/sql"], peers: ["effect"] })
    assert.strictEqual(installedWith("packages/batch").size, 4)
  })

  it("sql depends on core and a driver, with the peer dependency effect", () => {
    assert.deepStrictEqual(directDependencies("sql"), { needs: ["@effect/sql-pg", "@sluice/core"], peers: ["effect"] })
    assert.strictEqual(installedWith("packages/sql").size, 3)
  })

  it("ai has at most three dependencies, and the peer dependency effect", () => {
    const { needs, peers } = directDependencies("ai")
    assert.isAtMost(needs.length, 3, needs.join(", "))
    assert.deepStrictEqual(peers, ["effect"])
  })

  it("cli installs at most eight packages beyond Effect and its platform", () => {
    // Not counted: the packages of Effect's platform, which every program with Effect on Node has already.
    const platform = new Set([
      "node_modules/effect",
      "node_modules/@effect/platform-node",
      ...installedWith("node_modules/@effect/platform-node")
    ])
    const others = [...installedWith("packages/cli")].filter((path) =>
      !platform.has(path) && !path.startsWith("packages/")
    )
    assert.include(others, "node_modules/wink-nlp")
    assert.isAtMost(others.length, 8, others.join(", "))
  })

  it("the lockfile has the dependencies of every manifest", () => {
    for (const folder of published) {
      const { dependencies, optionalDependencies, peerDependencies } = manifestOf(folder)
      const entry = locked[`packages/${folder}`]
      assert.deepStrictEqual(
        [entry?.dependencies, entry?.optionalDependencies, entry?.peerDependencies],
        [dependencies, optionalDependencies, peerDependencies],
        folder
      )
    }
  })

  it("no package that is installed runs a script", () => {
    for (const folder of published) {
      // npm runs `prepack` only when it packs.
      assert.deepStrictEqual(manifestOf(folder).scripts, { prepack: "tsc -b" }, folder)
      const scripted = [...installedWith(`packages/${folder}`)].filter((path) =>
        locked[path]?.hasInstallScript === true
      )
      assert.deepStrictEqual(scripted, [], folder)
    }
  })
})
